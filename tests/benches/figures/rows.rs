//! What is measured: a row each, and the ways in which people get there.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use hop_tests::{ELSEWHERE, Ran, Running};

use crate::bench_router::{BenchRouter, Cost, TARGET, succeeds};
use crate::module;
use crate::source::Source;

/// How a program gets to a router and is run there, or what else is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// TCP without encryption, into a file in RAM; nothing is run. No way is cheaper.
    Raw,
    /// `ssh router 'cat >f && chmod 755 f && ./f'`.
    Ssh,
    /// `scp -O`, then `ssh router ./f`: what people do.
    Scp,
    /// `hop run`.
    Hop,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// CPU seconds of the router.
    Cpu,
    /// Bytes on the wire.
    Bytes,
    /// Milliseconds of the router's clock.
    Delay,
    /// Memory in KiB.
    Memory,
    /// Seconds of this machine's clock.
    Wall,
}

/// One measurement: its figures.
pub type Sample = Vec<(Unit, f64)>;

/// A row of the table.
pub struct Row {
    /// What it is called on the command line and in the JSON.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// The ways that are compared.
    pub ways: &'static [Way],
    /// What is to be reached.
    pub targets: &'static [(Unit, Target)],
    /// True if it is short, and repeats so well that CI compares it.
    pub is_checked: bool,
    /// Measures one way so many times.
    pub measure: fn(&mut BenchRouter, Way, usize) -> Vec<Sample>,
}

/// What Hop must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// A figure of its own.
    AtMost(f64),
    /// A part of what another way costs.
    PartOf(Way, f64),
}

use Target::{AtMost, PartOf};
use Unit::{Bytes, Cpu, Delay, Memory};
use Way::{Hop, Raw, Scp, Ssh};

/// How long an idle router is looked at.
const IDLE: Duration = Duration::from_secs(30);

/// The same where nothing but a question every few seconds is to be seen.
const LONG_IDLE: Duration = Duration::from_secs(60);

/// The bytes that make the server one of 8 MB.
const BALLAST: usize = 1_600_000;

/// The output of 10 MiB: blocks of 64 KiB.
const BLOCKS: usize = 160;

/// Prints the highest RssAnon that the agent had until a file appeared. The shell alone does it, which forks nothing: it
/// looks some hundred times a second.
const SAMPLER: &str = "echo started; most=0
    until read stop 2>/dev/null </tmp/bench/stop; do
        while read name value rest; do
            case $name in RssAnon:) [ $value -gt $most ] && most=$value;; esac
        done </proc/AGENT/status
    done
    echo $most";

/// All rows, in the order of the table.
pub const ROWS: [Row; 19] = [
    Row {
        name: "connect",
        what: "connect, ask, and leave",
        ways: &[Ssh, Hop],
        targets: &[],
        is_checked: true,
        measure: connect,
    },
    Row {
        name: "first",
        what: "first run of the hello",
        ways: &[Raw, Ssh, Scp, Hop],
        targets: &[(Cpu, AtMost(0.10))],
        is_checked: true,
        measure: |bench, way, runs| first(bench, way, runs, "hello"),
    },
    Row {
        name: "again",
        what: "the same hello again",
        ways: &[Ssh, Scp, Hop],
        targets: &[(Cpu, AtMost(0.035))],
        is_checked: true,
        measure: again,
    },
    Row {
        name: "edit",
        what: "the hello after one string was changed",
        ways: &[Ssh, Scp, Hop],
        targets: &[(Cpu, AtMost(0.05))],
        is_checked: true,
        measure: |bench, way, runs| edited(bench, way, runs, "hello", Source::change_a_string),
    },
    Row {
        name: "again-kept",
        what: "the same hello again, over a kept connection",
        ways: &[Hop],
        targets: &[(Cpu, AtMost(0.035))],
        is_checked: true,
        measure: |bench, way, runs| kept(bench, |bench| again(bench, way, runs)),
    },
    Row {
        name: "edit-kept",
        what: "the hello after one string was changed, over a kept connection",
        ways: &[Hop],
        targets: &[(Cpu, AtMost(0.05))],
        is_checked: true,
        measure: |bench, way, runs| {
            kept(bench, |bench| edited(bench, way, runs, "hello", Source::change_a_string))
        },
    },
    Row {
        name: "server",
        what: "first run of the net/http server",
        ways: &[Raw, Ssh, Scp, Hop],
        targets: &[(Cpu, PartOf(Scp, 0.1))],
        is_checked: false,
        measure: |bench, way, runs| first(bench, way, runs, "server"),
    },
    Row {
        name: "server-other",
        what: "the same, on a router that has the hello",
        ways: &[Hop],
        targets: &[],
        is_checked: false,
        measure: other,
    },
    Row {
        name: "server-string",
        what: "the server after one string was changed",
        ways: &[Scp, Hop],
        targets: &[(Bytes, AtMost(15e3))],
        is_checked: true,
        measure: |bench, way, runs| edited(bench, way, runs, "server", Source::change_a_string),
    },
    Row {
        name: "server-function",
        what: "the server after a function was added",
        ways: &[Scp, Hop],
        targets: &[(Bytes, AtMost(45e3))],
        is_checked: false,
        measure: |bench, way, runs| edited(bench, way, runs, "server", |source, _| source.add_a_function()),
    },
    Row {
        name: "server-imports",
        what: "the server after three imports were added",
        ways: &[Scp, Hop],
        targets: &[(Bytes, AtMost(320e3))],
        is_checked: false,
        measure: |bench, way, runs| {
            edited(bench, way, runs, "server", |source, _| source.add_three_imports())
        },
    },
    Row {
        name: "output",
        what: "10 MiB of log lines of a program that is there",
        ways: &[Ssh, Hop],
        targets: &[(Cpu, PartOf(Ssh, 1.0 / 3.0))],
        is_checked: false,
        measure: |bench, way, runs| output(bench, way, runs, "log-lines"),
    },
    Row {
        name: "output-random",
        what: "10 MiB of random bytes of a program that is there",
        ways: &[Ssh, Hop],
        targets: &[],
        is_checked: false,
        measure: |bench, way, runs| output(bench, way, runs, "noise"),
    },
    Row {
        name: "lines",
        what: "1,000 lines, one every 10 ms, of a program that is there",
        ways: &[Ssh, Hop],
        targets: &[(Cpu, PartOf(Ssh, 0.5))],
        is_checked: false,
        measure: lines,
    },
    Row {
        name: "delay",
        what: "the slowest of 1,000 lines, there and its answer back",
        ways: &[Ssh, Hop],
        targets: &[(Delay, AtMost(20.0))],
        is_checked: false,
        measure: delay,
    },
    Row {
        name: "idle",
        what: "an hour with a program that is silent, connected",
        ways: &[Hop],
        targets: &[],
        is_checked: false,
        measure: idle,
    },
    Row {
        name: "idle-kept",
        what: "an hour of a kept connection, with nothing to do",
        ways: &[Hop],
        targets: &[(Cpu, AtMost(0.1)), (Memory, AtMost(512.0))],
        is_checked: false,
        measure: idle_kept,
    },
    Row {
        name: "memory",
        what: "the agent's memory while 8 MB arrive as an edit, and run",
        ways: &[Hop],
        targets: &[(Memory, AtMost(1536.0))],
        is_checked: false,
        measure: memory,
    },
    Row {
        name: "module",
        what: "the tests of a module of 20 packages, by `go test`",
        ways: &[Scp, Hop],
        targets: &[],
        is_checked: false,
        measure: module::measure,
    },
];

/// What something cost, as a sample.
pub fn of(cost: Cost) -> Sample {
    vec![(Cpu, cost.cpu), (Bytes, cost.bytes as f64)]
}

fn connect(bench: &mut BenchRouter, way: Way, runs: usize) -> Vec<Sample> {
    bench.fresh_agent();
    let act = |bench: &BenchRouter| match way {
        Hop => succeeds(bench.hop(&["info"]).run()),
        _ => succeeds(bench.ssh("true").wait()),
    };
    (0..runs).map(|_| of(bench.cost(|| drop(act(bench))))).collect()
}

/// Measures with connections that are kept.
fn kept(bench: &mut BenchRouter, measure: impl FnOnce(&mut BenchRouter) -> Vec<Sample>) -> Vec<Sample> {
    bench.keeps_connections = true;
    let samples = measure(bench);
    bench.keeps_connections = false;
    bench.disconnect();
    samples
}

/// The router has nothing of it.
fn first(bench: &mut BenchRouter, way: Way, runs: usize, name: &'static str) -> Vec<Sample> {
    let source = Source::of(name);
    let one = |_| {
        prepare(bench, way);
        arrive(bench, way, &source)
    };
    (0..runs).map(one).collect()
}

/// The router has another program of the same Go.
fn other(bench: &mut BenchRouter, way: Way, runs: usize) -> Vec<Sample> {
    let (hello, server) = (Source::of("hello"), Source::of("server"));
    let one = |_| {
        prepare(bench, way);
        arrive(bench, way, &hello);
        arrive(bench, way, &server)
    };
    (0..runs).map(one).collect()
}

/// It has run there.
fn again(bench: &mut BenchRouter, way: Way, runs: usize) -> Vec<Sample> {
    let source = Source::of("hello");
    prepare(bench, way);
    arrive(bench, way, &source);
    (0..runs).map(|_| arrive(bench, way, &source)).collect()
}

/// Another version of it has run there. Each run is preceded by the version of the example.
fn edited(
    bench: &mut BenchRouter,
    way: Way,
    runs: usize,
    name: &'static str,
    edit: fn(&Source, usize),
) -> Vec<Sample> {
    let one = |number| {
        let source = Source::of(name);
        prepare(bench, way);
        arrive(bench, way, &source);
        edit(&source, number);
        arrive(bench, way, &source)
    };
    (0..runs).map(one).collect()
}

/// Makes a router that has never seen a program.
fn prepare(bench: &mut BenchRouter, way: Way) {
    bench.shell().sh("rm -f /tmp/f");
    match way {
        Hop => bench.fresh_agent(),
        Raw => bench.start_receiver(),
        Ssh | Scp => {}
    }
}

/// A program arrives and is run. Both examples do no more than starting and ending if they are asked for their options.
fn arrive(bench: &BenchRouter, way: Way, source: &Source) -> Sample {
    if way == Hop {
        let package = source.package();
        // Built before, so that `hop` and the router are not slowed by the compiler.
        source.build();
        let flags = bench.executed.is_some().then_some(ELSEWHERE);
        let hop = bench.hop(&["run"]).args(flags).args([&package, "-h"]).current_dir(source.module());
        return of(bench.cost(|| drop(succeeds(hop.run()))));
    }
    let file = source.build();
    let content = fs::read(&file).unwrap();
    of(bench.cost(|| match way {
        Raw => bench.send_raw(&content),
        Ssh => drop(succeeds(pipe(bench.ssh("cat >/tmp/f && chmod 755 /tmp/f && /tmp/f -h"), &content))),
        _ => {
            succeeds(bench.scp(&file));
            succeeds(bench.ssh("/tmp/f -h").wait());
        }
    }))
}

fn pipe(mut running: Running, content: &[u8]) -> Ran {
    running.stdin.take().unwrap().write_all(content).unwrap();
    running.wait()
}

/// Runs a fixture that is there, by its own name.
fn start(bench: &BenchRouter, way: Way, fixture: &Path, words: &[&str]) -> Running {
    match way {
        Hop => bench.hop(&["exec"]).arg(fixture).args(words).start(),
        _ => bench.ssh(&format!("{} {}", fixture.display(), words.join(" "))),
    }
}

/// Puts a fixture on the router, in the way in which the next run expects it.
fn place(bench: &mut BenchRouter, way: Way, name: &str, words: &[&str]) -> std::path::PathBuf {
    if way == Hop {
        let fixture = match bench.executed {
            Some(_) => hop_tests::fixture_elsewhere(TARGET, name),
            None => hop_tests::fixture(TARGET, name),
        };
        bench.fresh_agent();
        succeeds(start(bench, way, &fixture, words).wait());
        fixture
    } else {
        bench.install(name).into()
    }
}

fn output(bench: &mut BenchRouter, way: Way, runs: usize, fixture: &str) -> Vec<Sample> {
    let fixture = place(bench, way, fixture, &["0"]);
    let blocks = BLOCKS.to_string();
    let one = |_| {
        let mut length = 0;
        let cost =
            bench.cost(|| length = succeeds(start(bench, way, &fixture, &[&blocks]).wait()).stdout.len());
        assert_eq!(length, BLOCKS << 16, "all of it comes");
        of(cost)
    };
    (0..runs).map(one).collect()
}

fn lines(bench: &mut BenchRouter, way: Way, runs: usize) -> Vec<Sample> {
    let fixture = place(bench, way, "lines", &["0", "0s"]);
    let one = |_| {
        let mut count = 0;
        let words = ["1000", "10ms"];
        let cost = bench
            .cost(|| count = succeeds(start(bench, way, &fixture, &words).wait()).stdout().lines().count());
        assert_eq!(count, 1000, "all of them come");
        of(cost)
    };
    (0..runs).map(one).collect()
}

fn delay(bench: &mut BenchRouter, way: Way, runs: usize) -> Vec<Sample> {
    let fixture = place(bench, way, "lines", &["0", "0s"]);
    let one = |_| {
        let mut running = start(bench, way, &fixture, &["1000", "10ms", "answered"]);
        let mut stdin = running.stdin.take().unwrap();
        loop {
            let line = running.line();
            assert!(!line.is_empty(), "the program goes on");
            if let Some(delays) = line.strip_prefix("delays ") {
                let (_, most) = delays.trim().split_once(' ').unwrap();
                drop(stdin);
                succeeds(running.wait());
                return vec![(Delay, most.parse::<f64>().unwrap() / 1e3)];
            }
            stdin.write_all(b"seen\n").unwrap();
        }
    };
    (0..runs).map(one).collect()
}

/// What a connected controller adds to the load of a router on which the same program runs without one.
fn idle(bench: &mut BenchRouter, way: Way, runs: usize) -> Vec<Sample> {
    let path = bench.install("wait");
    let fixture = place(bench, way, "blocks", &["0"]).with_file_name("wait");
    hop_tests::fixture(TARGET, "wait");
    let one = |_| {
        let mut alone = bench.shell().start(&format!("echo $$; exec {path}"));
        let pid = alone.line();
        assert_eq!(alone.line(), "ready\n");
        let without = bench.load_at_rest(IDLE);
        // Its child is in the same session, and ends with it.
        bench.shell().sh(&format!("kill {}; killall sleep", pid.trim()));
        alone.wait();
        let mut connected = start(bench, way, &fixture, &[]);
        assert_eq!(connected.line(), "ready\n");
        let with = bench.load_at_rest(IDLE);
        let memory = agents_memory(bench);
        connected.signal(rustix::process::Signal::TERM);
        connected.wait();
        vec![(Cpu, (with - without) * 3600.0), (Memory, memory)]
    };
    (0..runs).map(one).collect()
}

/// What a connection that is kept adds to the load of a router on which an agent waits; the agent has run a program before.
fn idle_kept(bench: &mut BenchRouter, way: Way, runs: usize) -> Vec<Sample> {
    place(bench, way, "blocks", &["0"]);
    let one = |_| {
        let without = bench.load_at_rest(LONG_IDLE);
        bench.keeps_connections = true;
        succeeds(bench.hop(&["info"]).run());
        let with = bench.load_at_rest(LONG_IDLE);
        let memory = agents_memory(bench);
        bench.keeps_connections = false;
        bench.disconnect();
        vec![(Cpu, (with - without) * 3600.0), (Memory, memory)]
    };
    (0..runs).map(one).collect()
}

fn agents_memory(bench: &BenchRouter) -> f64 {
    rss_anon(&bench.shell().sh(&format!("cat /proc/{}/status", bench.agent())))
}

fn memory(bench: &mut BenchRouter, way: Way, runs: usize) -> Vec<Sample> {
    let one = |number| {
        let mut source = Source::of("server");
        source.add_ballast(BALLAST);
        prepare(bench, way);
        arrive(bench, way, &source);
        source.change_a_string(number);
        // A loop of the shell alone, which forks nothing: some hundred looks a second.
        let mut sampler = bench.shell().start(&SAMPLER.replace("AGENT", bench.agent()));
        assert_eq!(sampler.line(), "started\n");
        let hop = bench.hop(&["run", &source.package(), "-h"]).current_dir(source.module());
        succeeds(hop.run());
        bench.shell().sh("echo >/tmp/bench/stop");
        let most: f64 = sampler.line().trim().parse().unwrap();
        sampler.wait();
        vec![(Memory, most)]
    };
    (0..runs).map(one).collect()
}

/// What a status of a process says, in KiB.
fn rss_anon(status: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
