//! How a job ended, told three ways: an exit code, lines on standard error, and a status file.
//!
//! What must stay true: the program's exit code is passed on unchanged, and whoever must tell a program's 125 from Hop's
//! reads the status file.

use std::error::Error as _;
use std::fs::File;
use std::path::Path;

use hop_proto::signal;
use serde::Serialize;

use crate::error::Error;

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
}

/// Prints a line on standard error. Unlike `eprintln!` it does not panic if nobody reads: the exit code still counts.
macro_rules! say {
    ($($text:tt)*) => { _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{}\n", format_args!($($text)*))) };
}
pub(crate) use say;

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
    },
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
        Self { job, ending: Ending::Detached, usage: None, orphans: 0, output_abandoned: false }
    }

    /// What `hop` exits with.
    pub fn exit_code(&self) -> ExitCode {
        match &self.ending {
            Ending::Exited(code) => ExitCode::Program(*code),
            Ending::Signaled { name, .. } => signal_code(name),
            Ending::TimedOut | Ending::Idle => ExitCode::TimedOut,
            // As docker says it, and as it is: KILL ended it.
            Ending::OutOfMemory { .. } => signal_code("KILL"),
            Ending::AgentStopped | Ending::Abandoned => ExitCode::HopFailed,
            Ending::NotExecuted { .. } => ExitCode::NotExecutable,
            Ending::Detached => ExitCode::Program(0),
        }
    }

    /// What a person must be told beside the program's own output: nothing, if it ended by itself.
    pub fn tell(&self) {
        match &self.ending {
            Ending::Exited(_) | Ending::Signaled { core_dumped: false, .. } | Ending::Detached => {}
            Ending::Signaled { name, .. } => {
                say!("hop: SIG{name} ended the program, which left a core file")
            }
            Ending::TimedOut => say!("hop: the program's time was over, and it was ended"),
            Ending::Idle => say!("hop: the program wrote nothing for too long, and it was ended"),
            Ending::OutOfMemory { held: 0, .. } => {
                say!("hop: the router was out of memory, and its kernel ended the program")
            }
            Ending::OutOfMemory { available, limit, held } => say!(
                "hop: the router was running out of memory, and the program was ended: {} were available, {} are the limit, and it held {}",
                mebibytes(*available),
                mebibytes(*limit),
                mebibytes(*held)
            ),
            Ending::AgentStopped => say!("error: hopd was stopped on the router and ended the program"),
            Ending::Abandoned => say!("error: no hop came back to the program in time, and it was ended"),
            Ending::NotExecuted { why } => say!("error: the router cannot execute the program: {why}"),
        }
        match self.orphans {
            0 => {}
            1 => say!("hop: a process that the program had left running was ended"),
            many => say!("hop: {many} processes that the program had left running were ended"),
        }
        if self.output_abandoned {
            say!(
                "hop: a process that the program left behind still held its output; what it writes now is lost"
            );
        }
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
            Ending::Exited(_) => "exited",
            Ending::Signaled { .. } => "signaled",
            Ending::TimedOut | Ending::Idle => "timed_out",
            Ending::OutOfMemory { .. } => "out_of_memory",
            Ending::AgentStopped | Ending::Abandoned => "failed",
            Ending::NotExecuted { .. } => "not_executed",
            Ending::Detached => "detached",
        };
        let mut status = Self::new(kind, outcome.exit_code());
        status.job = Some(&outcome.job);
        status.usage = outcome.usage.as_ref();
        status.orphans = outcome.usage.as_ref().map(|_| outcome.orphans);
        match &outcome.ending {
            Ending::Exited(code) => status.exit_code = Some(*code),
            Ending::Signaled { name, .. } => status.signal = Some(name),
            Ending::Detached => {}
            Ending::TimedOut => status.reason = Some("timeout"),
            Ending::Idle => status.reason = Some("idle_timeout"),
            Ending::OutOfMemory { available, limit, held } => {
                status.memory = Some(Memory { available: *available, limit: *limit, held: *held });
            }
            Ending::AgentStopped => status.reason = Some("agent_stopping"),
            Ending::Abandoned => status.reason = Some("abandoned"),
            Ending::NotExecuted { why } => {
                status.reason = Some("not_executed");
                status.message = Some(why.clone());
            }
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
        Outcome { job: "1-1".into(), ending, usage: None, orphans: 0, output_abandoned: false }
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
            (Ending::OutOfMemory { available: 0, limit: 1, held: 2 }, 137),
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
    fn the_status_of_a_program_that_was_left_names_its_job() {
        let left = Ok(outcome(Ending::Detached));
        let status = Status::of(&left);
        assert_eq!((status.outcome, status.job, status.exit_code), ("detached", Some("1-1"), None));
    }
}
