//! How a job ended, told three ways: an exit code, lines on standard error, and a status file.
//!
//! What must stay true: the program's exit code is passed on unchanged, and whoever must tell a program's 125 from Hop's
//! reads the status file.

use std::error::Error as _;
use std::fs::File;
use std::path::Path;

use hop_proto::signal;
use serde::Serialize;

use super::artifacts::{CorePlace, Fetched, Problem};
use crate::console::printable::printable_bytes;
use crate::console::say;
use crate::error::{Error, LET_IT_PROMISE_MORE};

/// The exit codes of `hop`, beside the program's own. The numbers are those of docker, timeout(1) and the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    /// 0 to 255: the program's own.
    Program(u8),
    /// 128 + n: signal n ended the program, in the numbering of this machine.
    Signal(u8),
    /// 124: the program ran longer than `--timeout`, or was silent longer than `--idle-timeout`.
    TimedOut,
    /// 125: Hop failed; standard error says why.
    HopFailed,
    /// 126: the program could not be executed.
    NotExecutable,
}

impl From<ExitCode> for i32 {
    fn from(code: ExitCode) -> Self {
        match code {
            ExitCode::Program(code) => code.into(),
            ExitCode::Signal(number) => 128 + i32::from(number),
            ExitCode::TimedOut => 124,
            ExitCode::HopFailed => 125,
            ExitCode::NotExecutable => 126,
        }
    }
}

/// How the program ended, with what is known of its run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The job's name on the router.
    pub job: String,
    /// What ended it.
    pub ending: Ending,
    /// What it used; nothing if it did not run.
    pub usage: Option<Usage>,
    /// Processes that the program had left behind, and that were ended.
    pub orphans: u32,
    /// Another process still held an output open when the program had ended.
    pub output_abandoned: bool,
    /// What became of the files that were asked for.
    pub files: Vec<Fetched>,
    /// Why some of them will never come.
    pub files_lost: Option<FilesLost>,
}

/// Why output files were given up on the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesLost {
    /// The router needed their memory.
    Memory,
    /// The router needed their inodes.
    Inodes,
    /// hopd was stopped.
    AgentStopped,
    /// They were not fetched in time.
    Abandoned,
}

/// What ended a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It called exit.
    Exited(u8),
    /// A signal, by name.
    Signaled {
        /// Name without SIG.
        name: String,
        /// There is a core file on the router.
        core_dumped: bool,
    },
    /// It ran longer than it might.
    TimedOut,
    /// It was silent longer than it might.
    Idle,
    /// The router was about to run out of memory, and it held most of it.
    OutOfMemory {
        /// Bytes that were available.
        available: u64,
        /// Bytes below which a program is ended.
        limit: u64,
        /// Bytes that it held; 0 if the router's kernel was first to end it.
        held: u64,
        /// What was short was not RAM, but what the kernel promises (vm.overcommit_memory is 2).
        of_promises: bool,
    },
    /// The router was about to run out of something else, and it held most of it.
    Exhausted(Exhausted),
    /// hopd was stopped, and ended it.
    AgentStopped,
    /// Its connection broke, and no `hop` came back to it within `--linger`.
    Abandoned,
    /// The router's kernel refused to execute it.
    NotExecuted {
        /// The kernel's words.
        why: String,
    },
    /// Nothing, as far as this `hop` knows: it was left when it ran.
    Detached,
}

/// What a router was about to run out of, and how much of it there was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exhausted {
    /// What it is.
    pub resource: Resource,
    /// How many were left.
    pub available: u64,
    /// Below how many a program is ended.
    pub limit: u64,
    /// How many the program held.
    pub held: u64,
    /// Of inodes: where the file system is mounted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub place: String,
}

/// What else than memory a program can use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Inodes, one for each file.
    Inodes,
    /// Threads, of which each process has at least one.
    Threads,
    /// What this `hop` does not know.
    Other,
}

/// What a program used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Milliseconds from start to end.
    pub wall_ms: u64,
    /// Milliseconds of CPU in the program.
    pub user_ms: u64,
    /// Milliseconds of CPU in the kernel.
    pub system_ms: u64,
    /// Largest resident set.
    pub max_rss_bytes: u64,
    /// Bytes on standard output.
    pub stdout_bytes: u64,
    /// Bytes on standard error.
    pub stderr_bytes: u64,
}

impl Outcome {
    /// That of a job which was left when it ran.
    pub fn detached(job: String) -> Self {
        Self {
            job,
            ending: Ending::Detached,
            usage: None,
            orphans: 0,
            output_abandoned: false,
            files: Vec::new(),
            files_lost: None,
        }
    }

    /// What `hop` exits with.
    pub fn exit_code(&self) -> ExitCode {
        match &self.ending {
            _ if self.has_lost_files() => ExitCode::HopFailed,
            Ending::Exited(code) => ExitCode::Program(*code),
            Ending::Signaled { name, .. } => signal_code(name),
            Ending::TimedOut | Ending::Idle => ExitCode::TimedOut,
            // As docker says it, and as it is: KILL ended it.
            Ending::OutOfMemory { .. } | Ending::Exhausted(_) => signal_code("KILL"),
            Ending::AgentStopped | Ending::Abandoned => ExitCode::HopFailed,
            Ending::NotExecuted { .. } => ExitCode::NotExecutable,
            Ending::Detached => ExitCode::Program(0),
        }
    }

    /// The program ended as it did, and Hop failed after that.
    fn has_lost_files(&self) -> bool {
        let is_its_own = matches!(
            self.ending,
            Ending::Exited(_) | Ending::Signaled { .. } | Ending::TimedOut | Ending::Idle
        );
        is_its_own && self.files_lost.is_some()
    }

    /// The same without what a test may leave behind as it likes: processes that are ended with it, files that it could
    /// have written, and hidden ones that were not asked for by name.
    pub fn without_the_usual(mut self) -> Self {
        (self.orphans, self.output_abandoned) = (0, false);
        self.files.retain(|file| !matches!(file.problem, Some(Problem::NotThere | Problem::Hidden)));
        self
    }

    /// What a person must be told beside the program's own output: nothing, if it ended by itself.
    pub fn tell(&self) {
        match &self.ending {
            Ending::Exited(_) | Ending::Signaled { core_dumped: false, .. } | Ending::Detached => {}
            Ending::Signaled { name, .. } => self.tell_core(name),
            Ending::TimedOut => say!("hop: the program's time was over, and it was ended"),
            Ending::Idle => say!("hop: the program wrote nothing for too long, and it was ended"),
            Ending::OutOfMemory { held: 0, .. } => {
                say!("hop: the router was out of memory, and its kernel ended the program")
            }
            Ending::OutOfMemory { available, limit, held, of_promises } => {
                let which = if *of_promises { " that its kernel promises" } else { "" };
                say!(
                    "hop: the router was running out of memory{which}, and the program was ended: {} were available, {} are the limit, and it held {}",
                    mebibytes(*available),
                    mebibytes(*limit),
                    mebibytes(*held)
                );
                if *of_promises {
                    say!("hint: {LET_IT_PROMISE_MORE}");
                }
            }
            Ending::Exhausted(Exhausted { resource, available, limit, held, place }) => {
                let what = match resource {
                    Resource::Inodes => format!("used up the inodes of {}", place.escape_debug()),
                    Resource::Threads => "used up the router's threads".to_owned(),
                    Resource::Other => "used up something of the router".to_owned(),
                };
                say!(
                    "hop: the program {what} and was killed: {available} were left, {limit} are the limit, and it held {held}"
                );
            }
            Ending::AgentStopped => say!("error: hopd was stopped on the router and ended the program"),
            Ending::Abandoned => say!("error: no hop came back to the program in time, and it was ended"),
            Ending::NotExecuted { why } => say!("error: the router cannot execute the program: {why}"),
        }
        match self.orphans {
            0 => {}
            1 => say!("hop: a process that the program had left running was ended"),
            many => say!("hop: {many} processes that the program had left running were ended"),
        }
        for Fetched { path, problem, .. } in &self.files {
            if let Some(problem) = problem {
                let path = if path.is_empty() { b".".as_slice() } else { path };
                say!("hop: {} was not brought back: {problem}", printable_bytes(path));
            }
        }
        match self.files_lost {
            Some(why) if self.has_lost_files() => say!("error: {}", self.lost_files(why)),
            Some(_) => say!("hop: its output files went with it"),
            None => {}
        }
        if self.output_abandoned {
            say!(
                "hop: a process that the program left behind still held its output; what it writes now is lost"
            );
        }
    }
}

impl Outcome {
    /// It left a core: where is that?
    fn tell_core(&self, signal: &str) {
        let core = self.files.iter().find_map(|file| Some((file.file.as_ref()?, file.core?)));
        let Some((core, is_truncated)) = core else {
            return say!("hop: SIG{signal} ended the program, and its core is not here");
        };
        let (core, program) = (core.display(), CorePlace::program_place(core));
        say!(
            "hop: SIG{signal} ended the program; `gdb-multiarch {} {core}` opens its core",
            program.display()
        );
        if is_truncated {
            say!("hop: the core is truncated, because the router's memory had no room for the rest");
        }
    }

    fn lost_files(&self, why: FilesLost) -> String {
        let how = match &self.ending {
            Ending::Exited(code) => format!("ended with {code}"),
            Ending::Signaled { name, .. } => format!("was ended by SIG{name}"),
            _ => "was ended".to_owned(),
        };
        let why = match why {
            FilesLost::Memory => "the router was running out of memory, and they held most of it",
            FilesLost::Inodes => "the router was running out of inodes, and they held most of them",
            FilesLost::AgentStopped => "hopd was stopped on the router",
            FilesLost::Abandoned => "they were kept no longer",
        };
        format!("the program {how}, and output files of it were lost before they were here: {why}")
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// 128 + n is for this machine's n, as `kill -l` counts. For a signal that this machine does not know, 128 is the code.
fn signal_code(name: &str) -> ExitCode {
    ExitCode::Signal(signal::number(name).and_then(|number| u8::try_from(number).ok()).unwrap_or(0))
}

/// Prints a failure: what, why, what to do; and gives its exit code.
pub fn report(error: &Error) -> ExitCode {
    say!("error: {error}");
    let mut cause = error.source();
    // A source whose text is already in the line above is not worth a line.
    let mut said = error.to_string();
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.contains(&text) {
            say!("caused by: {text}");
            said = text;
        }
        cause = error.source();
    }
    if let Some(hint) = error.hint() {
        say!("hint: {hint}");
    }
    failure_code(error)
}

/// The same in one line.
pub fn report_in_a_line(error: &Error) -> ExitCode {
    match error.hint() {
        Some(hint) => say!("error: {error}; {hint}"),
        None => say!("error: {error}"),
    }
    failure_code(error)
}

fn failure_code(error: &Error) -> ExitCode {
    match error {
        Error::NotRunnable { .. } => ExitCode::NotExecutable,
        Error::Interrupted { signal } => signal_code(signal),
        _ => ExitCode::HopFailed,
    }
}

/// What `--status-file` gets, documented in `docs/specification.md`.
#[derive(Serialize)]
struct Status<'a> {
    outcome: &'static str,
    hop_exit_code: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<&'a Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    orphans: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exhausted: Option<&'a Exhausted>,
    #[serde(skip_serializing_if = "<[Fetched]>::is_empty")]
    output_files: &'a [Fetched],
}

/// Figures of a router that was running out of memory, in bytes.
#[derive(Serialize)]
struct Memory {
    available: u64,
    limit: u64,
    held: u64,
}

impl<'a> Status<'a> {
    fn new(outcome: &'static str, code: ExitCode) -> Self {
        Self {
            outcome,
            hop_exit_code: code.into(),
            exit_code: None,
            signal: None,
            reason: None,
            message: None,
            job: None,
            usage: None,
            orphans: None,
            memory: None,
            exhausted: None,
            output_files: &[],
        }
    }

    fn of(result: &'a Result<Outcome, Error>) -> Self {
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => {
                let kind = if matches!(error, Error::NotRunnable { .. }) { "not_executed" } else { "failed" };
                let mut status = Self::new(kind, failure_code(error));
                status.reason = Some(error.reason());
                status.message = Some(error.to_string());
                return status;
            }
        };
        let kind = match outcome.ending {
            _ if outcome.has_lost_files() => "failed",
            Ending::Exited(_) => "exited",
            Ending::Signaled { .. } => "signaled",
            Ending::TimedOut | Ending::Idle => "timed_out",
            Ending::OutOfMemory { .. } => "out_of_memory",
            Ending::Exhausted(_) => "exhausted",
            Ending::AgentStopped | Ending::Abandoned => "failed",
            Ending::NotExecuted { .. } => "not_executed",
            Ending::Detached => "detached",
        };
        let mut status = Self::new(kind, outcome.exit_code());
        status.job = Some(&outcome.job);
        status.usage = outcome.usage.as_ref();
        status.orphans = outcome.usage.as_ref().map(|_| outcome.orphans);
        status.output_files = &outcome.files;
        match &outcome.ending {
            Ending::Exited(code) => status.exit_code = Some(*code),
            Ending::Signaled { name, .. } => status.signal = Some(name),
            Ending::Detached => {}
            Ending::TimedOut => status.reason = Some("timeout"),
            Ending::Idle => status.reason = Some("idle_timeout"),
            Ending::OutOfMemory { available, limit, held, .. } => {
                status.memory = Some(Memory { available: *available, limit: *limit, held: *held });
            }
            Ending::Exhausted(exhausted) => status.exhausted = Some(exhausted),
            Ending::AgentStopped => status.reason = Some("agent_stopping"),
            Ending::Abandoned => status.reason = Some("abandoned"),
            Ending::NotExecuted { why } => {
                status.reason = Some("not_executed");
                status.message = Some(why.clone());
            }
        }
        if let Some(why) = outcome.files_lost.filter(|_| outcome.has_lost_files()) {
            status.reason = Some("outputs_lost");
            status.message = Some(outcome.lost_files(why));
        }
        status
    }
}

/// The file that `--status-file` names. It is opened before anything else happens, so that a path which cannot be
/// written is a usage error and not the loss of a result.
pub struct StatusFile<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> StatusFile<'a> {
    /// Empties or makes the file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(path: &'a Path) -> Result<Self, Error> {
        Ok(Self { path, file: File::create(path).map_err(Error::io("write", path))? })
    }

    /// Writes the status: one JSON object and a line's end.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(mut self, result: &Result<Outcome, Error>) -> Result<(), Error> {
        let json = serde_json::to_string_pretty(&Status::of(result)).map_err(std::io::Error::from);
        json.and_then(|json| std::io::Write::write_all(&mut self.file, format!("{json}\n").as_bytes()))
            .map_err(Error::io("write", self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(ending: Ending) -> Outcome {
        Outcome { ending, ..Outcome::detached("1-1".into()) }
    }

    #[test]
    fn exit_codes_are_those_of_the_design() {
        let killed = |name: &str| Ending::Signaled { name: name.into(), core_dumped: false };
        for (ending, code) in [
            (Ending::Exited(0), 0),
            (Ending::Exited(125), 125),
            (killed("KILL"), 137),
            (killed("USR1"), 138),
            (killed("SIG99"), 128),
            (Ending::TimedOut, 124),
            (Ending::Idle, 124),
            (Ending::OutOfMemory { available: 0, limit: 1, held: 2, of_promises: false }, 137),
            (Ending::NotExecuted { why: String::new() }, 126),
            (Ending::AgentStopped, 125),
            (Ending::Abandoned, 125),
            (Ending::Detached, 0),
        ] {
            assert_eq!(i32::from(outcome(ending.clone()).exit_code()), code, "{ending:?}");
        }
    }

    #[test]
    fn the_status_tells_a_programs_125_from_hops() {
        let programs = Ok(outcome(Ending::Exited(125)));
        let hops = Err(Error::Usage("no".into()));
        let (programs, hops) = (Status::of(&programs), Status::of(&hops));
        assert_eq!(
            (programs.outcome, programs.hop_exit_code, programs.exit_code),
            ("exited", 125, Some(125))
        );
        assert_eq!((hops.outcome, hops.hop_exit_code, hops.reason), ("failed", 125, Some("usage")));
    }

    #[test]
    fn a_program_whose_files_were_lost_is_hops_failure_and_its_own_code_is_told() {
        let lost = |ending| Outcome { files_lost: Some(FilesLost::AgentStopped), ..outcome(ending) };
        let ended = Ok(lost(Ending::Exited(7)));
        let status = Status::of(&ended);
        assert_eq!((status.outcome, status.hop_exit_code, status.exit_code), ("failed", 125, Some(7)));
        assert_eq!(status.reason, Some("outputs_lost"));
        // How it ended says already that it went with all that it had.
        let memory = lost(Ending::OutOfMemory { available: 0, limit: 1, held: 2, of_promises: false });
        assert_eq!(i32::from(memory.exit_code()), 137);
    }

    #[test]
    fn the_status_of_a_program_that_was_left_names_its_job() {
        let left = Ok(outcome(Ending::Detached));
        let status = Status::of(&left);
        assert_eq!((status.outcome, status.job, status.exit_code), ("detached", Some("1-1"), None));
    }
}
