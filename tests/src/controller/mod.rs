//! `hop`, as a user calls it: its words, its streams, how it ended.

pub(crate) mod terminal;

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use rustix::process::{Signal, kill_process};

use crate::process::{Lines, collect, pid, wait, with_default_signals};
use crate::{TIMEOUT, Terminal, dist, root};

/// One call of `hop`, as it is put together.
pub struct Hop {
    command: Command,
    stdin: Option<Vec<u8>>,
}

impl Hop {
    /// `hop` with its home in `home`, at the top of the checkout.
    pub fn at(home: &Path) -> Self {
        Self::of(&dist("hop"), home)
    }

    /// Another build of `hop`, in the same way.
    pub fn of(hop: &Path, home: &Path) -> Self {
        let mut command = Command::new(hop);
        command.current_dir(root()).env("HOP_HOME", home);
        // What a developer may have set, and what changes what is printed.
        for name in [
            "HOP_ROUTER",
            "HOP_KEEP_CONNECTION",
            "GOFLAGS",
            "COLUMNS",
            "NO_COLOR",
            "CLICOLOR",
            "CLICOLOR_FORCE",
        ] {
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

    /// Lets it find the programs in `directory` before any other.
    pub fn first_in_path(self, directory: &Path) -> Self {
        let path = std::env::var_os("PATH").unwrap();
        let places = [directory.to_owned()].into_iter().chain(std::env::split_paths(&path));
        let path = std::env::join_paths(places).unwrap();
        self.env("PATH", path)
    }

    /// The same, before it has a word.
    pub fn again(&self) -> Self {
        let value =
            |wanted| self.command.get_envs().find(|(name, _)| *name == wanted).and_then(|(_, value)| value);
        let hop = Self::at(value("HOP_HOME").unwrap().as_ref());
        match value("HOP_KEEP_CONNECTION") {
            Some(time) => hop.env("HOP_KEEP_CONNECTION", time),
            None => hop,
        }
    }

    /// Starts it in `directory`.
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Starts it with these signals ignored, as nohup does: names without SIG, a space between them.
    pub fn ignoring(self, signals: &str) -> Self {
        self.in_shell(&format!("trap '' {signals}; exec \"$@\""))
    }

    /// Starts a shell with this script instead, in which `"$@"` is the call.
    pub fn in_shell(mut self, script: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]);
        shell.arg(self.command.get_program()).args(self.command.get_args());
        shell
            .current_dir(root())
            .envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.command = shell;
        self
    }

    /// Starts it with these streams, which may be in whatever mode.
    pub fn spawn(mut self, [stdin, stdout, stderr]: [Stdio; 3]) -> Child {
        self.command.stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap()
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
        Running::start(&mut self.command)
    }

    /// Starts it in a terminal with so many rows and columns.
    pub fn start_in_terminal(mut self, size: [u16; 2]) -> Terminal {
        Terminal::start(&mut self.command, size)
    }
}

/// A `hop` that runs, or an `ssh`.
pub struct Running {
    process: Child,
    /// Its standard input.
    pub stdin: Option<ChildStdin>,
    stdout: Option<Lines>,
    stderr: mpsc::Receiver<Vec<u8>>,
}

impl Running {
    /// Starts a command, with pipes on all three streams.
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = with_default_signals(command).spawn().unwrap();
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().map(Lines::of);
        let stderr = collect(process.stderr.take().unwrap());
        Self { process, stdin, stdout, stderr }
    }

    /// Gives it all that it will read.
    pub(crate) fn write(mut self, content: &[u8]) -> Self {
        self.stdin.take().unwrap().write_all(content).unwrap();
        self
    }

    /// The process alone; what it prints from now on is for nobody.
    pub(crate) fn into_process(self) -> Child {
        self.process
    }

    /// The next line of its standard output.
    pub fn line(&mut self) -> String {
        self.stdout.as_mut().unwrap().next()
    }

    /// Fills the buffer with what comes next on its standard output, and reads no more than that.
    pub fn read(&mut self, buffer: &mut [u8]) {
        self.stdout.as_mut().unwrap().fill(buffer);
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
        let stdout = stdout.map(|stdout| stdout.recv_timeout(TIMEOUT).unwrap()).unwrap_or_default();
        Ran { stdout, stderr: self.stderr.recv_timeout(TIMEOUT).unwrap(), code }
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

    /// The same, after it has said what it does.
    #[track_caller]
    pub fn assert_fails_after_progress(&self, code: i32, text: &str) {
        let said: String = self
            .stderr()
            .lines()
            .filter(|line| !line.starts_with("hop: "))
            .flat_map(|line| [line, "\n"])
            .collect();
        Self { stdout: self.stdout.clone(), stderr: said.into_bytes(), code: self.code }
            .assert_fails(code, text);
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
