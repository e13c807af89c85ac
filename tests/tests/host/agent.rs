//! `hopd` as a router starts it: its key, its supervisor, its log, its pid file, the store that survives a reboot.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use hop::config::home::Home;
use hop::config::inventory::{Entry, Inventory, Router};
use hop_tests::{Hop, Process, Ran, Target, dist, fixture, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// A directory with what an agent needs, and a home that is authorized.
pub struct Bench(TempDir);

impl Bench {
    pub fn new() -> Self {
        // /tmp may be a tmpfs, where no disk cache can be.
        let bench = Self(TempDir::new_in("/var/tmp").unwrap());
        let own = Home::at(&bench.path("home")).identity().unwrap().fingerprint();
        fs::write(bench.path("authorized"), format!("{own} test\n")).unwrap();
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
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

    pub fn start(&self, words: &[&str]) -> Agent {
        Agent::start(&mut self.command(None, words))
    }

    pub fn start_in_namespace(&self, script: &str, words: &[&str]) -> Agent {
        Agent::start(&mut self.command(Some(script), words))
    }

    /// `hop exec` of `program` on that agent.
    pub fn exec(&self, agent: &mut Agent, program: &Path) -> Ran {
        self.enrol(agent);
        Hop::at(&self.path("home")).args(["exec", "-r", "router"]).arg(program).run()
    }

    pub fn info(&self, agent: &mut Agent) -> Value {
        self.enrol(agent);
        let ran = Hop::at(&self.path("home")).args(["info", "-r", "router", "--json"]).run();
        assert_eq!(ran.code, 0, "{}", ran.stderr());
        serde_json::from_slice(&ran.stdout).unwrap()
    }

    fn enrol(&self, agent: &mut Agent) {
        let entry = Entry {
            address: agent.address().to_owned(),
            fingerprint: agent.announced["fingerprint"].as_str().unwrap().parse().unwrap(),
            goarch: Target::Host.goarch().into(),
            enrolment: None,
            process: None,
        };
        let inventory = Inventory::new(&Home::at(&self.path("home")));
        inventory.put(&Router { name: "router".into(), entry }).unwrap();
    }
}

/// A process that was started: the agent, or its supervisor.
pub struct Agent {
    pub process: Child,
    stdout: BufReader<ChildStdout>,
    announced: Value,
}

impl Agent {
    /// Starts it and waits until it serves.
    pub fn start(command: &mut Command) -> Self {
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

    pub fn stop(self) {
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

#[test]
fn fingerprint_makes_the_key_once() {
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
fn killed_agent_is_started_again() {
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
    let expected = "supervisor: the agent exited (signal: 9 (SIGKILL)); restarting it in 1 s\n";
    assert!(log.contains(expected), "{log}");
    let ran = bench.exec(&mut supervisor, &fixture(Target::Host, "both-outputs"));
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("out\n", "err\n", 7));

    supervisor.stop();
    assert!(!bench.path("pid").exists() && !bench.path("ram").exists(), "nothing is left");
}

#[test]
fn panic_logs_message_and_location() {
    let bench = Bench::new();
    let is_last_word = |line: &str| {
        let place = line.strip_prefix("error: panicked at agent/src/daemon/serve.rs:");
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
    assert!(ended.starts_with("supervisor: the agent exited (signal: 6 (SIGABRT)"), "{log}");
    // The agent that panicked could not remove its files; the one that comes next does.
    supervisor.signal(Signal::TERM);
}

#[test]
fn stopped_agent_stays_stopped() {
    let bench = Bench::new();
    let supervisor = bench.start(&["--supervise"]);
    kill_process(pid(supervisor.agent()), Signal::TERM).unwrap();
    assert_eq!(supervisor.wait().code(), Some(0));
}

#[test]
fn agent_exits_with_its_supervisor() {
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
fn failing_agent_is_restarted() {
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
        let said = format!("supervisor: the agent exited (exit status: 1); restarting it in {wait} s");
        assert_eq!(stderr.next().unwrap(), said);
    }
    kill_process(pid(supervisor.id()), Signal::INT).unwrap();
    assert_eq!(supervisor.wait().unwrap().code(), Some(0));
    assert!(!bench.path("pid").exists());
}

#[test]
fn log_file_has_the_last_error() {
    let bench = Bench::new();
    bench.start(&["--log", "nowhere/log"]).stop();
    fs::create_dir(bench.path("ram")).unwrap();
    fs::set_permissions(bench.path("ram"), fs::Permissions::from_mode(0o755)).unwrap();
    let output = bench.command(None, &["--log", "log"]).output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(1), Vec::new()));
    assert!(bench.read("log").starts_with("error: "), "{}", bench.read("log"));
}

#[test]
fn log_file_stays_below_64_kib() {
    let bench = Bench::new();
    let mut agent = bench.start(&["--log", "log"]);
    let program = fixture(Target::Host, "both-outputs");
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
