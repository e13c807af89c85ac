//! How each row is measured.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use hop_tests::{ELSEWHERE, Ran, Running};

use crate::bench_router::{BenchRouter, Cost, TARGET, succeeds};
use crate::rows::Sample;
use crate::rows::Unit::{Bytes, Cpu, Delay, Memory};
use crate::rows::Way::{self, Hop, Raw, Scp, Ssh};
use crate::source::Source;

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

/// What something cost, as a sample.
pub fn of(cost: Cost) -> Sample {
    vec![(Cpu, cost.cpu), (Bytes, cost.bytes as f64)]
}

pub fn connect(bench: &mut BenchRouter, way: Way, runs: usize) -> Vec<Sample> {
    bench.fresh_agent();
    let act = |bench: &BenchRouter| match way {
        Hop => succeeds(bench.hop(&["info"]).run()),
        _ => succeeds(bench.ssh("true").wait()),
    };
    (0..runs).map(|_| of(bench.cost(|| drop(act(bench))))).collect()
}

/// Measures with connections that are kept.
pub fn kept(bench: &mut BenchRouter, measure: impl FnOnce(&mut BenchRouter) -> Vec<Sample>) -> Vec<Sample> {
    bench.keeps_connections = true;
    let samples = measure(bench);
    bench.keeps_connections = false;
    bench.disconnect();
    samples
}

/// The router has nothing of it.
pub fn first(bench: &mut BenchRouter, way: Way, runs: usize, name: &'static str) -> Vec<Sample> {
    let source = Source::of(name);
    let one = |_| {
        prepare(bench, way);
        arrive(bench, way, &source)
    };
    (0..runs).map(one).collect()
}

/// The router has another program of the same Go.
pub fn other(bench: &mut BenchRouter, way: Way, runs: usize) -> Vec<Sample> {
    let (hello, server) = (Source::of("hello"), Source::of("server"));
    let one = |_| {
        prepare(bench, way);
        arrive(bench, way, &hello);
        arrive(bench, way, &server)
    };
    (0..runs).map(one).collect()
}

/// The program has run there before.
pub fn again(bench: &mut BenchRouter, way: Way, runs: usize) -> Vec<Sample> {
    let source = Source::of("hello");
    prepare(bench, way);
    arrive(bench, way, &source);
    (0..runs).map(|_| arrive(bench, way, &source)).collect()
}

/// Another version of the program has run there before: the example, once more before each run.
pub fn edited(
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

/// Prepares a router that has never received a program.
fn prepare(bench: &mut BenchRouter, way: Way) {
    bench.shell().sh("rm -f /tmp/f");
    match way {
        Hop => bench.fresh_agent(),
        Raw => bench.start_receiver(),
        Ssh | Scp => {}
    }
}

/// Uploads a program and runs it. With `-h`, both examples print their options and exit.
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

pub fn output(bench: &mut BenchRouter, way: Way, runs: usize, fixture: &str) -> Vec<Sample> {
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

pub fn lines(bench: &mut BenchRouter, way: Way, runs: usize) -> Vec<Sample> {
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

pub fn delay(bench: &mut BenchRouter, way: Way, runs: usize) -> Vec<Sample> {
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
pub fn idle(bench: &mut BenchRouter, way: Way, runs: usize) -> Vec<Sample> {
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
pub fn idle_kept(bench: &mut BenchRouter, way: Way, runs: usize) -> Vec<Sample> {
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

pub fn memory(bench: &mut BenchRouter, way: Way, runs: usize) -> Vec<Sample> {
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
