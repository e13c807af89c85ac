//! The stage on which Hop is tested: a real agent on this machine's loopback, a real `hop`, Go programs of one behaviour.
//!
//! What must stay true: a test has its own home, its own agent, its own keys and a free port; it waits for events and
//! never for time; it ends only what it started; and what it waits for is bounded by [`PATIENCE`].

#![allow(clippy::unwrap_used, reason = "a harness that cannot go on panics, and says where")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use hop::home::Home;
use hop::inventory::{Entry, Inventory, Router};
use hop_proto::identity::Fingerprint;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for anything. Only a failing test waits this long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Which agent plays, and what its programs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The agent built for this machine, with programs for it.
    Host,
    /// The big-endian agent under qemu-user.
    Mips,
    /// The little-endian agent under qemu-user.
    Mipsle,
}

impl Stage {
    /// GOARCH of its programs.
    pub fn goarch(self) -> &'static str {
        match self {
            Self::Host if cfg!(target_arch = "aarch64") => "arm64",
            Self::Host => "amd64",
            Self::Mips => "mips",
            Self::Mipsle => "mipsle",
        }
    }

    fn agent(self) -> PathBuf {
        dist(match self {
            Self::Host => "hopd-host",
            Self::Mips => "hopd-mips",
            Self::Mipsle => "hopd-mipsel",
        })
    }

    fn qemu(self) -> Option<PathBuf> {
        let name = match self {
            Self::Host => return None,
            Self::Mips => "qemu-mips",
            Self::Mipsle => "qemu-mipsel",
        };
        let path = std::env::var_os("PATH").unwrap();
        let found = std::env::split_paths(&path)
            .flat_map(|dir| [dir.join(format!("{name}-static")), dir.join(name)])
            .find(|file| file.is_file());
        Some(found.unwrap_or_else(|| panic!("{name}-static is not in PATH: run `cargo xtask setup`")))
    }
}

/// The top of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Something that `cargo xtask build` leaves.
pub fn dist(name: &str) -> PathBuf {
    let path = root().join("target/dist").join(name);
    assert!(path.exists(), "{} is not there: run `cargo xtask build`", path.display());
    path
}

/// A Go program of one behaviour, built from `tests/fixtures/NAME` for the stage. Go's own cache makes it cheap.
pub fn fixture(stage: Stage, name: &str) -> PathBuf {
    let output = root().join("target/fixtures").join(stage.goarch()).join(name);
    build_go(&format!("./tests/fixtures/{name}"), stage.goarch(), &[("GOMIPS", "softfloat")], &output);
    output
}

/// Builds a package with plain `go build`.
pub fn build_go(package: &str, goarch: &str, env: &[(&str, &str)], output: &Path) {
    // Built aside and renamed: another test may be running the same program.
    let directory = output.parent().unwrap();
    fs::create_dir_all(directory).unwrap();
    let built = TempDir::new_in(directory).unwrap();
    let program = built.path().join("program");
    let status = Command::new("go")
        .args(["build", "-trimpath", "-ldflags=-s -w", "-o"])
        .arg(&program)
        .arg(package)
        .current_dir(root())
        .env("CGO_ENABLED", "0")
        .env("GOOS", "linux")
        .env("GOARCH", goarch)
        .envs(env.iter().copied())
        .status()
        .expect("go can be run");
    assert!(status.success(), "{package} builds for {goarch}");
    fs::rename(program, output).unwrap();
}

/// How an agent differs from the usual one.
#[derive(Default)]
pub struct Options<'a> {
    /// `--quota`.
    pub quota: Option<u64>,
    /// Mounts a tmpfs with these options on its directory, in a mount namespace of its own.
    pub tmpfs: Option<&'a str>,
    /// Lets nobody in.
    pub unauthorized: bool,
}

/// An agent, and a home in which it is enrolled as `router`.
pub struct VirtualRouter {
    stage: Stage,
    directory: TempDir,
    agent: Child,
    /// Where it listens.
    pub address: String,
    /// Who it is.
    pub fingerprint: Fingerprint,
}

impl VirtualRouter {
    /// Starts the usual agent.
    pub fn start(stage: Stage) -> Self {
        Self::start_with(stage, &Options::default())
    }

    /// Starts an agent with `options`.
    pub fn start_with(stage: Stage, options: &Options<'_>) -> Self {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        let home = Home::at(&path("home"));
        let own = home.identity().unwrap().fingerprint();
        fs::write(
            path("authorized"),
            if options.unauthorized { String::new() } else { format!("{own} test\n") },
        )
        .unwrap();
        if options.tmpfs.is_some() {
            fs::create_dir(path("ram")).unwrap();
        }

        let mut words: Vec<OsString> = Vec::new();
        if let Some(mount) = options.tmpfs {
            let script = format!("mount -t tmpfs -o mode=0700,{mount} none \"$0\" && exec \"$@\"");
            words.extend(["unshare", "-rm", "sh", "-c", &script].map(OsString::from));
            words.push(path("ram").into());
        }
        words.extend(stage.qemu().map(OsString::from));
        words.push(stage.agent().into());
        words.extend(["--listen", "127.0.0.1:0", "--dir"].map(OsString::from));
        words.push(path("ram").into());
        for (flag, name) in [("--key", "key"), ("--authorized", "authorized")] {
            words.extend([flag.into(), path(name).into()]);
        }
        words.extend(stage.qemu().into_iter().flat_map(|qemu| ["--launcher".into(), qemu.into()]));
        words
            .extend(options.quota.into_iter().flat_map(|quota| ["--quota".into(), quota.to_string().into()]));

        let mut agent = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(path("log")).unwrap())
            .spawn()
            .unwrap();
        let line = Lines::of(agent.stdout.take().unwrap()).next();
        let log = || fs::read_to_string(path("log")).unwrap();
        let ready: Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("{words:?} serves; it said {:?}", log()));
        let address = ready["address"].as_str().unwrap().to_owned();
        let fingerprint: Fingerprint = ready["fingerprint"].as_str().unwrap().parse().unwrap();
        let router = Self { stage, directory, agent, address: address.clone(), fingerprint };
        router.enrol("router", &address, fingerprint);
        router
    }

    /// Writes an entry into the inventory of the home.
    pub fn enrol(&self, name: &str, address: &str, fingerprint: Fingerprint) {
        let entry = Entry {
            address: address.into(),
            fingerprint,
            goarch: self.stage.goarch().into(),
            enrolment: None,
            process: None,
        };
        Inventory::new(&self.home()).put(&Router { name: name.into(), entry }).unwrap();
    }

    /// The home in which this router is enrolled.
    pub fn home(&self) -> Home {
        Home::at(&self.directory.path().join("home"))
    }

    /// The entry of this router.
    pub fn entry(&self) -> Router {
        Inventory::new(&self.home()).get("router").unwrap()
    }

    /// `hop` with the home of this router, of which the router is the default.
    pub fn hop(&self) -> Hop {
        Hop::at(&self.directory.path().join("home"))
    }

    /// `hop exec` of a fixture on this router.
    pub fn exec(&self, name: &str) -> Hop {
        self.hop().args(["exec", "-r", "router"]).arg(fixture(self.stage, name))
    }

    /// A new file in this test's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What the agent has in its directory beside the directories themselves, seen through its own eyes.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let ram = self.directory.path().join("ram");
        let seen = format!("/proc/{}/root{}", self.agent.id(), ram.display());
        ["blobs", "jobs"]
            .iter()
            .flat_map(|name| fs::read_dir(Path::new(&seen).join(name)).unwrap())
            .map(|entry| entry.unwrap().path())
            .collect()
    }

    /// The agent serves on: nothing is left, and the next program runs.
    pub fn assert_serves_on(&self) {
        assert_eq!(self.leftovers(), Vec::<PathBuf>::new(), "nothing is left of a job");
        let ran = self.exec("both-outputs").run();
        assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("out\n", "err\n", 7), "the next program runs");
        assert_eq!(self.leftovers(), Vec::<PathBuf>::new(), "nothing is left of the next job");
    }

    /// Asks the agent until it has no job. Each question is an event; there is no sleep.
    pub fn wait_until_idle(&self) {
        let since = Instant::now();
        while self.info()["jobs"] != 0 {
            assert!(since.elapsed() < PATIENCE, "the job ends");
        }
    }

    /// What `hop info --json` says.
    pub fn info(&self) -> Value {
        let ran = self.hop().args(["info", "-r", "router", "--json"]).run();
        assert_eq!(ran.code, 0, "{}", ran.stderr());
        serde_json::from_slice(&ran.stdout).unwrap()
    }

    /// Sends a signal to the agent.
    pub fn signal_agent(&self, signal: Signal) {
        kill_process(pid(self.agent.id()), signal).unwrap();
    }

    /// Waits for the agent's own end and gives its exit code and its log.
    pub fn wait_for_agent(mut self) -> (Option<i32>, String) {
        let status = wait(&mut self.agent);
        (status.code(), fs::read_to_string(self.directory.path().join("log")).unwrap())
    }

    /// The directory that the agent was given as its own.
    pub fn ram(&self) -> PathBuf {
        self.directory.path().join("ram")
    }
}

impl Drop for VirtualRouter {
    fn drop(&mut self) {
        // It may have ended already, which is what both would fail of.
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        if thread::panicking() {
            eprintln!("--- log of the agent\n{}", fs::read_to_string(self.path("log")).unwrap_or_default());
        }
    }
}

/// One call of `hop`, as it is put together.
pub struct Hop {
    command: Command,
    stdin: Option<Vec<u8>>,
}

impl Hop {
    /// `hop` with its home in `home`, at the top of the checkout.
    pub fn at(home: &Path) -> Self {
        let mut command = Command::new(dist("hop"));
        command.current_dir(root()).env("HOP_HOME", home);
        // What a developer may have set, and what changes what is printed.
        for name in ["HOP_ROUTER", "GOFLAGS", "COLUMNS"] {
            command.env_remove(name);
        }
        Self { command, stdin: None }
    }

    /// Adds a word.
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.command.arg(word);
        self
    }

    /// Adds words.
    pub fn args(mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(words);
        self
    }

    /// Sets a variable of `hop` itself.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts it in `directory`.
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Starts it with these signals ignored, as nohup does: names without SIG, a space between them.
    pub fn ignoring(mut self, signals: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("trap '' {signals}; exec \"$0\" \"$@\"")]);
        shell.arg(self.command.get_program()).args(self.command.get_args());
        shell
            .current_dir(root())
            .envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.command = shell;
        self
    }

    /// What it reads; nothing, if not said.
    pub fn stdin(mut self, content: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(content.into());
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> Ran {
        let content = self.stdin.clone().unwrap_or_default();
        let mut running = self.start();
        let mut stdin = running.stdin.take().unwrap();
        // A program need not read what it is given.
        let writer = thread::spawn(move || drop(stdin.write_all(&content)));
        let ran = running.wait();
        writer.join().unwrap();
        ran
    }

    /// Starts it, with pipes on all three streams.
    pub fn start(mut self) -> Running {
        let mut process =
            self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().map(Lines::of);
        let stderr = collect(process.stderr.take().unwrap());
        Running { process, stdin, stdout, stderr }
    }
}

/// A `hop` that runs.
pub struct Running {
    process: Child,
    /// Its standard input.
    pub stdin: Option<ChildStdin>,
    stdout: Option<Lines>,
    stderr: mpsc::Receiver<Vec<u8>>,
}

impl Running {
    /// The next line of its standard output.
    pub fn line(&mut self) -> String {
        self.stdout.as_mut().unwrap().next()
    }

    /// Closes our end of its standard output.
    pub fn close_stdout(&mut self) {
        self.stdout = None;
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(pid(self.process.id()), signal).unwrap();
    }

    /// Waits for its end and does not read what it writes meanwhile.
    pub fn wait_unread(mut self) -> Ran {
        let status = wait(&mut self.process);
        let code = status.code().unwrap_or(-1);
        Ran { stdout: Vec::new(), stderr: Vec::new(), code }
    }

    /// Ends its standard input and waits for its end. What was read of its output is not in the result.
    pub fn wait(mut self) -> Ran {
        self.stdin = None;
        let stdout = self.stdout.take().map(|lines| collect(lines.0));
        let status = wait(&mut self.process);
        use std::os::unix::process::ExitStatusExt;
        let code = status.code().unwrap_or_else(|| -status.signal().unwrap());
        let stdout = stdout.map(|stdout| stdout.recv_timeout(PATIENCE).unwrap()).unwrap_or_default();
        Ran { stdout, stderr: self.stderr.recv_timeout(PATIENCE).unwrap(), code }
    }
}

/// A process that the test did not start itself: a program of the agent.
pub struct Process(std::os::fd::OwnedFd);

impl Process {
    /// The process with this number, which must be alive.
    pub fn open(number: u32) -> Self {
        Self(pidfd_open(pid(number), PidfdFlags::empty()).unwrap())
    }

    /// Waits for its end.
    pub fn wait_until_gone(&self) {
        let limit = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        assert_eq!(
            poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&limit)).unwrap(),
            1,
            "the process ends"
        );
    }
}

/// An output that is read line by line, as far as it is wanted.
struct Lines(BufReader<ChildStdout>);

impl Lines {
    fn of(output: ChildStdout) -> Self {
        Self(BufReader::new(output))
    }

    /// The next line with its end, or nothing at the end. What does not come in time is as if it had never been printed.
    fn next(&mut self) -> String {
        let mut line = String::new();
        let output = self.0.get_ref();
        let mut ready = [PollFd::new(output, PollFlags::IN)];
        let limit = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let is_ready = !self.0.buffer().is_empty() || poll(&mut ready, Some(&limit)).unwrap() > 0;
        assert!(is_ready, "a line comes within {PATIENCE:?}");
        self.0.read_line(&mut line).unwrap();
        line
    }
}

/// How a `hop` ended.
#[derive(Debug)]
pub struct Ran {
    /// Its standard output.
    pub stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Its exit code; negative, the signal that ended `hop` itself.
    pub code: i32,
}

impl Ran {
    /// Its standard output, which must be text.
    pub fn stdout(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// Its standard error, which must be text.
    pub fn stderr(&self) -> &str {
        std::str::from_utf8(&self.stderr).unwrap()
    }

    /// Its standard error, whatever it is.
    pub fn stderr_bytes(&self) -> &[u8] {
        &self.stderr
    }

    /// It failed with `code` and one line that holds `text`, and printed nothing else but causes and hints.
    #[track_caller]
    pub fn assert_fails(&self, code: i32, text: &str) {
        let stderr = self.stderr();
        assert_eq!(self.code, code, "{stderr}");
        assert_eq!(self.stdout(), "", "nothing on standard output");
        let errors: Vec<_> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "one line says why: {stderr}");
        assert!(stderr.contains(text), "{stderr:?} says {text:?}");
        let known = ["error: ", "caused by: ", "hint: "];
        for line in stderr.lines() {
            assert!(
                known.iter().any(|start| line.starts_with(start)),
                "{line:?} is neither error, cause nor hint"
            );
        }
    }
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
}

/// Reads to the end in a thread, so that no pipe is ever full.
fn collect(mut from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut content = Vec::new();
        from.read_to_end(&mut content).unwrap();
        // Fails if the test has ended.
        let _ = send.send(content);
    });
    receive
}

/// Waits for a process, and kills it if it takes longer than anything may.
fn wait(process: &mut Child) -> std::process::ExitStatus {
    let (ended, watch) = mpsc::channel::<()>();
    let watched = pid(process.id());
    let watchdog = thread::spawn(move || {
        // Not reaped before the channel is closed, so the number is still this process's.
        if watch.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("killing a process that does not end");
            let _ = kill_process(watched, Signal::KILL);
        }
    });
    let status = process.wait().unwrap();
    drop(ended);
    watchdog.join().unwrap();
    status
}
