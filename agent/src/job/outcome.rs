//! How a job ended.

use std::fmt;
use std::time::Duration;

use crate::job::oom_guard::{OutOfMemory, Verdict};
use crate::job::session::stdout::Summary;
use crate::process::child::{Ending, Usage};
use crate::process::reaper::Orphans;
use crate::system::resources::{Exhausted, Resource};

/// How a job ended.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one a job, and nearly always the large one")]
pub enum Outcome {
    /// The program ran.
    Ran(Ran),
    /// The kernel refused to execute it.
    NotExecuted(String),
}

/// How a program that ran ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code or signal.
    pub ending: Ending,
    /// Who ended it.
    pub cause: Cause,
    /// What it used.
    pub usage: Usage,
    /// From its start to its end.
    pub wall: Duration,
    /// Bytes that it read from standard input, if that is known.
    pub stdin: Option<u64>,
    /// What it wrote to standard output.
    pub stdout: Summary,
    /// What it wrote to standard error.
    pub stderr: Summary,
    /// What it had left behind.
    pub orphans: Orphans,
    /// Why its controller did not get the files that it asked for.
    pub files_lost: Option<Cause>,
}

/// Who ended a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It did, or a signal that somebody sent.
    Program,
    /// Its time was over.
    Timeout,
    /// It was silent for too long.
    IdleTimeout,
    /// It held most of the memory when that ran out.
    Memory(OutOfMemory),
    /// It held most of something else that ran out.
    Exhausted(Exhausted),
    /// The agent is stopping.
    AgentStopped,
    /// Its controller was away for too long, or did not want it any more.
    ControllerGone,
}

impl From<Verdict> for Cause {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Memory(shortage) => Self::Memory(shortage),
            Verdict::Exhausted(exhausted) => Self::Exhausted(exhausted),
        }
    }
}

impl fmt::Display for Outcome {
    /// For the log, in a few words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ran = match self {
            Self::Ran(ran) => ran,
            Self::NotExecuted(why) => return write!(f, "not executed: {why}"),
        };
        match &ran.ending {
            Ending::Exited(code) => write!(f, "exited with {code}")?,
            Ending::Signaled { name, .. } => write!(f, "ended by SIG{name}")?,
        }
        f.write_str(match &ran.cause {
            Cause::Program => "",
            Cause::Timeout => ", its time was over",
            Cause::IdleTimeout => ", it was silent for too long",
            Cause::Memory(_) => ", the memory ran out",
            Cause::Exhausted(Exhausted { resource: Resource::Inodes(_), .. }) => ", the inodes ran out",
            Cause::Exhausted(Exhausted { resource: Resource::Threads, .. }) => ", the threads ran out",
            Cause::AgentStopped => ", the agent is stopping",
            Cause::ControllerGone => ", no controller came for it",
        })?;
        match ran.orphans.stuck {
            0 => Ok(()),
            stuck => write!(f, ", {stuck} of its processes do not go"),
        }
    }
}
