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
    /// The kernel refused to execute the program.
    NotExecuted(String),
}

/// How a program that ran ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code or signal.
    pub ending: Ending,
    /// Why it ended.
    pub cause: Cause,
    /// The resources that it used.
    pub usage: Usage,
    /// Wall-clock time from its start to its end.
    pub wall: Duration,
    /// Bytes that it read from standard input, if known.
    pub stdin: Option<u64>,
    /// The result of reading its standard output.
    pub stdout: Summary,
    /// The result of reading its standard error.
    pub stderr: Summary,
    /// Numbers of its orphans.
    pub orphans: Orphans,
    /// Why its controller did not get the artifacts that it requested.
    pub files_lost: Option<Cause>,
}

/// Why a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The program exited, or a signal from somebody else killed it.
    Program,
    /// It exceeded its timeout.
    Timeout,
    /// It wrote nothing for too long.
    IdleTimeout,
    /// It held most of the memory when the router ran out of memory.
    Memory(OutOfMemory),
    /// It held most of another resource that the router ran out of.
    Exhausted(Exhausted),
    /// The agent is stopping.
    AgentStopped,
    /// Its controller was away for too long, or discarded the job.
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
            Ending::Signaled { name, .. } => write!(f, "killed by SIG{name}")?,
        }
        f.write_str(match &ran.cause {
            Cause::Program => "",
            Cause::Timeout => ", timed out",
            Cause::IdleTimeout => ", idle for too long",
            Cause::Memory(_) => ", out of memory",
            Cause::Exhausted(Exhausted { resource: Resource::Inodes(_), .. }) => ", out of inodes",
            Cause::Exhausted(Exhausted { resource: Resource::Threads, .. }) => ", out of threads",
            Cause::AgentStopped => ", the agent is stopping",
            Cause::ControllerGone => ", no controller reconnected",
        })?;
        match ran.orphans.stuck {
            0 => Ok(()),
            stuck => write!(f, ", {stuck} of its processes do not exit"),
        }
    }
}
