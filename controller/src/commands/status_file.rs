//! The file that `--status-file` names: how a job ended, as JSON, so that a script can tell a program's 125 from Hop's.

use std::fs::File;
use std::path::Path;

use serde::Serialize;

use super::{Error, failure, report};
use crate::console::exit_code::ExitCode;
use crate::session::artifacts::Fetched;
use crate::session::outcome::{Ending, Exhausted, Outcome, Usage};

/// The content of the file, documented in `docs/specification.md`.
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

/// Memory of a router that was running out of it, in bytes.
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
                let kind = if failure::exit_code(error) == ExitCode::NotExecutable {
                    "not_executed"
                } else {
                    "failed"
                };
                let mut status = Self::new(kind, failure::exit_code(error));
                status.reason = Some(failure::reason(error));
                status.message = Some(error.to_string());
                return status;
            }
        };
        let kind = match outcome.ending {
            _ if outcome.lacks_required_files() => "failed",
            Ending::Exited(_) => "exited",
            Ending::Signaled { .. } => "signaled",
            Ending::TimedOut | Ending::Idle => "timed_out",
            Ending::OutOfMemory { .. } => "out_of_memory",
            Ending::Exhausted(_) => "exhausted",
            Ending::AgentStopped | Ending::Abandoned => "failed",
            Ending::NotExecuted { .. } => "not_executed",
            Ending::Detached => "detached",
        };
        let mut status = Self::new(kind, report::exit_code(outcome));
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
        if outcome.lacks_required_files() {
            if outcome.files_lost.is_some() {
                status.reason = Some("outputs_lost");
            } else {
                status.reason = Some("artifact_missing");
            }
            status.message = Some(report::missing_files(outcome));
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
    use crate::session::artifacts::Problem;
    use crate::session::outcome::FilesLost;

    fn outcome(ending: Ending) -> Outcome {
        Outcome { ending, ..Outcome::detached("1-1".into()) }
    }

    #[test]
    fn status_file_tells_125_apart() {
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
    fn required_artifacts_hide_the_exit_code() {
        let lost = |ending| Outcome { files_lost: Some(FilesLost::AgentStopped), ..outcome(ending) };
        let fetched = Fetched { path: b"x".into(), file: None, bytes: None, problem: None, core: None };
        let missing = Fetched { problem: Some(Problem::NotThere), ..fetched.clone() };
        let left = |file| Outcome { files: vec![file], ..outcome(Ending::Exited(7)) };
        for (ended, reason) in [
            (lost(Ending::Exited(7)), Some("outputs_lost")),
            (left(missing), Some("artifact_missing")),
            (left(fetched), None),
        ] {
            let optional = Ok(ended.clone());
            let status = Status::of(&optional);
            assert_eq!((status.outcome, status.hop_exit_code, status.reason), ("exited", 7, None));
            let required = Ok(Outcome { requires_files: true, ..ended });
            let status = Status::of(&required);
            let (kind, code) = if reason.is_some() { ("failed", 125) } else { ("exited", 7) };
            assert_eq!((status.outcome, status.hop_exit_code, status.exit_code), (kind, code, Some(7)));
            assert_eq!(status.reason, reason);
        }
        // How it ended says already that it went with all that it had.
        let memory = lost(Ending::OutOfMemory { available: 0, limit: 1, held: 2, of_promises: false });
        assert_eq!(i32::from(report::exit_code(&memory)), 137);
    }

    #[test]
    fn status_of_detached_names_job() {
        let left = Ok(outcome(Ending::Detached));
        let status = Status::of(&left);
        assert_eq!((status.outcome, status.job, status.exit_code), ("detached", Some("1-1"), None));
    }
}
