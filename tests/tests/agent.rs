//! `hopd` as a router starts it: its key, its supervisor, its log, its pid file, the store that survives a reboot.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use hop::home::Home;
use hop::inventory::{Entry, Inventory, Router};
use hop_tests::{Hop, Process, Ran, Stage, dist, fixture, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// A directory with what an agent needs, and a home that is authorized.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        // /tmp may be a tmpfs, where no persistent store can be.
        let bench = Self(TempDir::new_in("/var/tmp").unwrap());
        let own = Home::at(&bench.path("home")).identity().unwrap().fingerprint();
        fs::write(bench.path("authorized"), format!("{own} test\n")).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The agent's command line, after `script` if there is one, which ends in a call of `"$@"`.
    fn command(&self, script: Option<&str>, words: &[&str]) -> Command {
        let mut command = Command::new(script.map_or(dist("hopd-host"), |_| "unshare".into()));
        if let Some(script) = script {
            command.args(["-rm", "sh", "-ec", script, "sh"]).arg(dist("hopd-host"));
        }
        command.args(["--listen", "127.0.0.1:0"]).current_dir(self.0.path());
        for (option, name) in [("--dir", "ram"), ("--key", "key"), ("--authorized", "authorized")] {
            command.arg(option).arg(self.path(name));
        }
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, words: &[&str]) -> Agent {
        Agent::start(&mut self.command(None, words))
    }

    fn start_in_namespace(&self, script: &str, words: &[&str]) -> Agent {
        Agent::start(&mut self.command(Some(script), words))
    }

    /// `hop exec` of `program` on that agent.
    fn exec(&self, agent: &mut Agent, program: &Path) -> Ran {
        self.enrol(agent);
        Hop::at(&self.path("home")).args(["exec", "-r", "router"]).arg(program).run()
    }

    fn info(&self, agent: &mut Agent) -> Value {
        self.enrol(agent);
        let ran = Hop::at(&self.path("home")).args(["info", "-r", "router", "--json"]).run();
        assert_eq!(ran.code, 0, "{}", ran.stderr());
        serde_json::from_slice(&ran.stdout).unwrap()
    }

    fn enrol(&self, agent: &mut Agent) {
        let entry = Entry {
            address: agent.address().to_owned(),
            fingerprint: agent.announced["fingerprint"].as_str().unwrap().parse().unwrap(),
            goarch: Stage::Host.goarch().into(),
            enrolment: None,
            process: None,
        };
        let inventory = Inventory::new(&Home::at(&self.path("home")));
        inventory.put(&Router { name: "router".into(), entry }).unwrap();
    }
}

/// A process that was started: the agent, or its supervisor.
struct Agent {
    process: Child,
    stdout: BufReader<ChildStdout>,
    announced: Value,
}

impl Agent {
    /// Starts it and waits until it serves.
    fn start(command: &mut Command) -> Self {
        let mut process = command.spawn().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let mut agent = Self { process, stdout, announced: Value::Null };
        agent.wait_until_it_serves();
        agent
    }

    /// Waits for the line with which an agent says that it serves.
    fn wait_until_it_serves(&mut self) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        self.announced = serde_json::from_str(&line).unwrap_or_else(|_| {
            let mut why = String::new();
            std::io::Read::read_to_string(self.process.stderr.as_mut().unwrap(), &mut why).unwrap();
            panic!("it serves; it said {why:?}")
        });
    }

    fn address(&self) -> &str {
        self.announced["address"].as_str().unwrap()
    }

    /// The agent that this supervisor runs.
    fn agent(&self) -> u32 {
        let children = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let id: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            (stat(id)?[1] == self.process.id().to_string()).then_some(id)
        });
        children.last().expect("a supervisor has an agent")
    }

    fn signal(&self, signal: Signal) {
        kill_process(pid(self.process.id()), signal).unwrap();
    }

    fn wait(mut self) -> ExitStatus {
        let handle = Process::open(self.process.id());
        handle.wait_until_gone();
        self.process.wait().unwrap()
    }

    fn stop(self) {
        self.signal(Signal::TERM);
        assert_eq!(self.wait().code(), Some(0));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already, which is what both would fail of. An agent goes with its supervisor.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id.try_into().unwrap()).unwrap()
}

/// What follows the name in /proc/ID/stat: state, parent, group, session (proc(5)).
fn stat(id: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// Asks until it is so; each question is a look at something that changes by itself.
#[track_caller]
#[test]
fn a_fingerprint_is_printed_alone_and_the_key_is_made_once() {
    let bench = Bench::new();
    let key = bench.path("etc/hopd/key");
    let print = || {
        let output =
            Command::new(dist("hopd-host")).arg("--fingerprint").arg("--key").arg(&key).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let first = print();
    assert!(first.starts_with("SHA256:") && first.len() == 72 && first.ends_with('\n'), "{first:?}");
    assert_eq!(print(), first);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&key), mode(key.parent().unwrap())), (0o600, 0o700));
    let agent = bench.start(&["--key", key.to_str().unwrap()]);
    assert_eq!(agent.announced["fingerprint"], first.trim_end(), "the agent has that key");
    let output =
        Command::new(dist("hopd-host")).args(["--fingerprint", "--key", "/proc/key"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.starts_with(b"error: cannot write the key /proc/key: "), "{output:?}");
}

#[test]
fn a_supervised_agent_that_is_killed_comes_back_and_runs_programs() {
    let bench = Bench::new();
    let mut supervisor = bench.start(&["--supervise", "--log", "log", "--pid-file", "pid"]);
    let (own, agent) = (supervisor.process.id(), supervisor.agent());
    assert_eq!(bench.read("pid"), format!("{own}\n"));
    assert_eq!(stat(own).unwrap()[3], own.to_string(), "it has a session of its own");
    let words = fs::read_to_string(format!("/proc/{agent}/cmdline")).unwrap();
    assert!(
        words.contains("--log\0log\0") && !words.contains("--supervise") && !words.contains("pid"),
        "{words}"
    );

    kill_process(pid(agent), Signal::KILL).unwrap();
    supervisor.wait_until_it_serves();
    assert_ne!(supervisor.agent(), agent);
    let log = bench.read("log");
    let expected = "supervisor: the agent ended (signal: 9 (SIGKILL)); starting it again in 1 s\n";
    assert!(log.contains(expected), "{log}");
    let ran = bench.exec(&mut supervisor, &fixture(Stage::Host, "both-outputs"));
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("out\n", "err\n", 7));

    supervisor.stop();
    assert!(!bench.path("pid").exists() && !bench.path("ram").exists(), "nothing is left");
}

#[test]
fn panic_says_why_and_where() {
    let bench = Bench::new();
    let is_last_word = |line: &str| {
        let place = line.strip_prefix("error: panicked at agent/src/server.rs:");
        let place = place.and_then(|rest| rest.strip_suffix(": --panic was given"));
        place.is_some_and(|place| place.split(':').all(|number| number.parse::<u32>().is_ok()))
    };
    let output = bench.command(None, &["--panic"]).output().unwrap();
    assert_eq!(output.status.signal(), Some(Signal::ABORT.as_raw()));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.lines().last().is_some_and(is_last_word), "{said}");

    let mut supervisor = bench.start(&["--supervise", "--panic", "--log", "log"]);
    // It is started again.
    supervisor.wait_until_it_serves();
    let log = bench.read("log");
    let mut lines = log.lines().skip_while(|line| !is_last_word(line)).skip(1);
    let ended = lines.next().unwrap_or_default();
    assert!(ended.starts_with("supervisor: the agent ended (signal: 6 (SIGABRT)"), "{log}");
    // The agent that panicked could not remove its files; the one that comes next does.
    supervisor.signal(Signal::TERM);
}

#[test]
fn an_agent_that_is_told_to_stop_is_not_started_again() {
    let bench = Bench::new();
    let supervisor = bench.start(&["--supervise"]);
    kill_process(pid(supervisor.agent()), Signal::TERM).unwrap();
    assert_eq!(supervisor.wait().code(), Some(0));
}

#[test]
fn an_agent_whose_supervisor_is_killed_ends_in_order_and_its_pid_file_is_taken_over() {
    let bench = Bench::new();
    let words = ["--supervise", "--pid-file", "pid"];
    let supervisor = bench.start(&words);
    let second = bench.command(None, &words).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(String::from_utf8(second.stderr).unwrap(), "error: another hopd has the pid file pid\n");

    let agent = Process::open(supervisor.agent());
    supervisor.signal(Signal::KILL);
    agent.wait_until_gone();
    assert!(!bench.path("ram").exists(), "the agent cleaned up");
    assert_eq!(supervisor.wait().signal(), Some(9));
    assert!(bench.path("pid").exists(), "it is stale");
    let supervisor = bench.start(&words);
    assert_eq!(bench.read("pid"), format!("{}\n", supervisor.process.id()));
    supervisor.stop();
}

#[test]
fn an_agent_that_cannot_start_is_tried_again_and_its_supervisor_can_be_stopped() {
    let bench = Bench::new();
    fs::create_dir(bench.path("ram")).unwrap();
    fs::set_permissions(bench.path("ram"), fs::Permissions::from_mode(0o755)).unwrap();
    // As a shell starts what it puts into the background: with INT ignored.
    let inner = bench.command(None, &["--supervise", "--pid-file", "pid"]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' INT; exec \"$0\" \"$@\""]).arg(inner.get_program()).args(inner.get_args());
    let mut supervisor = command
        .current_dir(bench.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(supervisor.stderr.take().unwrap()).lines().map(Result::unwrap);
    for wait in [1, 2] {
        assert!(stderr.next().unwrap().contains("must belong to the user that hopd runs as"));
        let said = format!("supervisor: the agent ended (exit status: 1); starting it again in {wait} s");
        assert_eq!(stderr.next().unwrap(), said);
    }
    kill_process(pid(supervisor.id()), Signal::INT).unwrap();
    assert_eq!(supervisor.wait().unwrap().code(), Some(0));
    assert!(!bench.path("pid").exists());
}

#[test]
fn a_log_file_takes_the_last_words_too_and_one_that_cannot_be_written_stops_nobody() {
    let bench = Bench::new();
    bench.start(&["--log", "nowhere/log"]).stop();
    fs::create_dir(bench.path("ram")).unwrap();
    fs::set_permissions(bench.path("ram"), fs::Permissions::from_mode(0o755)).unwrap();
    let output = bench.command(None, &["--log", "log"]).output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(1), Vec::new()));
    assert!(bench.read("log").starts_with("error: "), "{}", bench.read("log"));
}

#[test]
fn a_log_file_never_takes_more_than_64_kib() {
    let bench = Bench::new();
    let mut agent = bench.start(&["--log", "log"]);
    let program = fixture(Stage::Host, "both-outputs");
    let size = |name: &str| fs::metadata(bench.path(name)).map_or(0, |metadata| metadata.len());
    for round in 0..2 {
        wait_until("jobs fill the log", || {
            assert_eq!(bench.exec(&mut agent, &program).code, 7);
            assert!(size("log") <= 32 << 10 && size("log.old") <= 32 << 10);
            size("log.old") > 30 << 10 && size("log") > 30 << 10
        });
        let stderr = fs::read_link(format!("/proc/{}/fd/2", agent.process.id())).unwrap();
        assert_eq!(stderr, bench.path("log"), "round {round}");
        fs::remove_file(bench.path("log.old")).unwrap();
    }
    agent.stop();
    assert!(bench.read("log").ends_with("stopping\n"));
}

/// A path on this machine, seen from where the agent with this number sees it.
fn seen(agent: u32, path: &Path) -> PathBuf {
    format!("/proc/{agent}/root{}", path.display()).into()
}

/// The blobs on a shelf, as the agent sees it.
fn kept(agent: u32, shelf: &Path) -> BTreeSet<String> {
    fs::read_dir(seen(agent, shelf))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_program_is_kept_across_a_reboot() {
    let bench = Bench::new();
    let shelf = bench.path("shelf");
    fs::create_dir(&shelf).unwrap();
    let program = fixture(Stage::Host, "both-outputs");
    let words = ["--store", shelf.to_str().unwrap(), "--log", "log"];
    for life in 0..3 {
        let mut agent = bench.start(&words);
        let ran = bench.exec(&mut agent, &program);
        assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("out\n", "err\n", 7));
        let taken = bench.read("log").matches("a program comes from the persistent store").count();
        assert_eq!(taken, life);
        wait_until("the program is kept", || {
            let names = kept(agent.process.id(), &shelf);
            names.len() == 1 && names.iter().all(|name| name.len() == 64)
        });
        agent.stop();
        assert!(!bench.path("ram").exists());
    }
}

#[test]
fn a_store_that_is_not_there_is_done_without_and_said_once() {
    let bench = Bench::new();
    let shelf = bench.path("shelf");
    let mut agent = bench.start(&["--store", shelf.to_str().unwrap(), "--log", "log"]);
    for _ in 0..2 {
        assert_eq!(bench.exec(&mut agent, &fixture(Stage::Host, "both-outputs")).code, 7);
    }
    assert_eq!(bench.read("log").matches("no persistent store for now").count(), 1);
    fs::create_dir(&shelf).unwrap();
    assert_eq!(bench.exec(&mut agent, &fixture(Stage::Host, "both-outputs")).code, 7);
    assert!(bench.read("log").contains("the persistent store is back"));
    agent.stop();
}

#[test]
fn an_eighth_of_the_persistent_store_stays_free_and_the_least_recently_used_goes_first() {
    let bench = Bench::new();
    let shelf = bench.path("shelf");
    fs::create_dir(&shelf).unwrap();
    let content = fs::read(fixture(Stage::Host, "both-outputs")).unwrap();
    // Room for four, of which a half must stay free. A tmpfs is no shelf, but an overlay on one has its size.
    let script = format!(
        "mkdir medium; mount -t tmpfs -o size={} none medium; mkdir medium/lower medium/upper medium/work
        mount -t overlay -o lowerdir=medium/lower,upperdir=medium/upper,workdir=medium/work none shelf
        exec \"$@\"",
        content.len() * 4
    );
    let mut agent = bench.start_in_namespace(&script, &["--store", shelf.to_str().unwrap(), "--log", "log"]);
    let number = agent.process.id();
    let mut exec = |program: u8| {
        let path = bench.path(&format!("program-{program}"));
        fs::write(&path, [&content[..], &[program]].concat()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(bench.exec(&mut agent, &path).code, 7);
    };
    let run = |exec: &mut dyn FnMut(u8), program: u8| {
        let before = kept(number, &shelf);
        exec(program);
        let new = || kept(number, &shelf).difference(&before).cloned().collect::<Vec<_>>();
        wait_until("the program is kept", || new().iter().any(|name| name.len() == 64));
        new().remove(0)
    };
    let names = [1, 2, 3].map(|program| run(&mut exec, program));
    let used = || seen(number, &shelf).join(&names[0]).metadata().unwrap().modified().unwrap();
    let before = used();
    exec(1);
    wait_until("the first is used again", || used() > before);
    let last = run(&mut exec, 4);
    let expected = BTreeSet::from([names[0].clone(), names[2].clone(), last]);
    assert_eq!(kept(number, &shelf), expected, "the second went, and no other");
    agent.stop();
}

/// An agent on a ramfs, of a router whose kernel says this of its memory.
fn start_on_ramfs(bench: &Bench, free: u64, promisable: Option<u64>) -> Agent {
    // As Linux 3.10: no MemAvailable. Of 30 MiB of cache, 20 are files in the ramfs, and of the other 10 half can be dropped.
    let meminfo = format!(
        "MemTotal: 60000 kB\nMemFree: {} kB\nBuffers: 0 kB\nCached: 30720 kB\nActive(file): 2048 kB\n\
         Inactive(file): 8192 kB\nUnevictable: 20480 kB\nCommitLimit: {} kB\nCommitted_AS: 6000 kB\n",
        free >> 10,
        (promisable.unwrap_or(0) >> 10) + 6000
    );
    let overcommit = if promisable.is_some() { "2\n" } else { "0\n" };
    let files = [
        ("meminfo", meminfo.as_str()),
        ("vm/min_free_kbytes", "4096\n"),
        ("vm/overcommit_memory", overcommit),
    ];
    for directory in ["ram", "vm"] {
        fs::create_dir_all(bench.path(directory)).unwrap();
    }
    for (name, text) in files {
        fs::write(bench.path(name), text).unwrap();
    }
    let script = "mount -t ramfs -o mode=0700 none ram; mount --bind meminfo /proc/meminfo; for file in vm/*; do \
        mount --bind $file /proc/sys/$file; done; exec \"$@\"";
    bench.start_in_namespace(script, &[])
}

/// A program that has so many bytes.
fn program_of(bench: &Bench, bytes: u64) -> PathBuf {
    let large = bench.path("large");
    fs::copy(fixture(Stage::Host, "both-outputs"), &large).unwrap();
    fs::OpenOptions::new().append(true).open(&large).unwrap().set_len(bytes).unwrap();
    large
}

#[test]
fn on_a_ramfs_the_memory_alone_decides_also_before_linux_3_14() {
    let bench = Bench::new();
    let program = fixture(Stage::Host, "both-outputs");
    for (free, fits) in [(48 << 20, true), (9 << 20, false)] {
        let mut agent = start_on_ramfs(&bench, free, None);
        let info = bench.info(&mut agent);
        assert_eq!(
            info["memory_available"],
            free + (5 << 20) - (4 << 20),
            "down to the kernel's lowest watermark"
        );
        assert_eq!(info["store_free"], free + (1 << 20) - (8 << 20), "8 MiB stay free");
        if fits {
            let ran = bench.exec(&mut agent, &program);
            assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("out\n", "err\n", 7));
        } else {
            bench
                .exec(&mut agent, &program_of(&bench, 3 << 20))
                .assert_fails(125, "bytes of memory to spare");
        }
        agent.stop();
    }
}

#[test]
fn strict_overcommit_bounds_what_programs_get() {
    let bench = Bench::new();
    let mut agent = start_on_ramfs(&bench, 48 << 20, Some(20 << 20));
    let info = bench.info(&mut agent);
    // Less an arena of Go's.
    assert_eq!(info["memory_available"], 16 << 20);
    assert_eq!(info["memory_bound_by_promises"], true);
    let ran = bench.exec(&mut agent, &fixture(Stage::Host, "environment"));
    let limit = format!("GOMEMLIMIT={}", 8 << 20);
    assert!(ran.stdout().split('\0').any(|variable| variable == limit), "{}", ran.stdout());
    let ran = bench.exec(&mut agent, &program_of(&bench, 9 << 20));
    ran.assert_fails(125, &format!("the router's kernel promises {} bytes of memory more", 8 << 20));
    assert!(ran.stderr().contains("hint: on DD-WRT: nvram set vm.overcommit_memory=0"), "{}", ran.stderr());
    agent.stop();
}
