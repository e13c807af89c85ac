//! How a job ended, and what its run used.

use serde::Serialize;

use super::artifacts::{Fetched, Problem};

/// How a program ended, and what its run used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The job's name on the router.
    pub job: String,
    /// Why it ended.
    pub ending: Ending,
    /// Its resource usage; nothing if it did not run.
    pub usage: Option<Usage>,
    /// How many processes the program left behind, which the agent killed.
    pub orphans: u32,
    /// Another process still held an output open when the program had ended.
    pub output_abandoned: bool,
    /// The results of the requested artifacts.
    pub files: Vec<Fetched>,
    /// Why the agent has discarded some of them.
    pub files_lost: Option<FilesLost>,
    /// The user needs all of them: if one is missing, Hop has failed.
    pub requires_files: bool,
}

/// Why the agent has discarded artifacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesLost {
    /// The router needed their memory.
    Memory,
    /// The router needed their inodes.
    Inodes,
    /// hopd was stopped.
    AgentStopped,
    /// No client fetched them in time.
    Abandoned,
}

/// Why a program ended.
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
    /// It ran longer than its time limit.
    TimedOut,
    /// It wrote no output for longer than its idle limit.
    Idle,
    /// The router was about to run out of memory, and it held most of it.
    OutOfMemory {
        /// Bytes that were available.
        available: u64,
        /// Bytes below which the agent kills a program.
        limit: u64,
        /// Bytes that it held; 0 if the router's kernel killed it first.
        held: u64,
        /// It was not RAM that was short, but memory below the kernel's commit limit (vm.overcommit_memory is 2).
        of_promises: bool,
    },
    /// The router was about to run out of something else, and it held most of it.
    Exhausted(Exhausted),
    /// hopd was stopped, and killed it.
    AgentStopped,
    /// Its connection broke, and no `hop` reconnected within `--reconnect-timeout`.
    Abandoned,
    /// The router's kernel refused to execute it.
    NotExecuted {
        /// The kernel's error message.
        why: String,
    },
    /// It was still running when this `hop` detached from it.
    Detached,
}

/// A resource that a router was about to run out of, and how much of it was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exhausted {
    /// The resource.
    pub resource: Resource,
    /// How many were left.
    pub available: u64,
    /// Below how many the agent kills a program.
    pub limit: u64,
    /// How many the program held.
    pub held: u64,
    /// Of inodes: where the file system is mounted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub place: String,
}

/// A resource other than memory that a program can exhaust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Inodes, one for each file.
    Inodes,
    /// Threads, of which each process has at least one.
    Threads,
    /// A resource that this `hop` does not know.
    Other,
}

/// The resources that a program used.
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
    /// The outcome of a job that this `hop` detached from.
    pub fn detached(job: String) -> Self {
        Self {
            job,
            ending: Ending::Detached,
            usage: None,
            orphans: 0,
            output_abandoned: false,
            files: Vec::new(),
            files_lost: None,
            requires_files: false,
        }
    }

    /// The program ended by itself or by a time limit, so it could leave what was asked for.
    pub fn could_leave_files(&self) -> bool {
        matches!(self.ending, Ending::Exited(_) | Ending::Signaled { .. } | Ending::TimedOut | Ending::Idle)
    }

    /// The program ended as it did, and does not have the files that the user needs.
    pub fn lacks_required_files(&self) -> bool {
        let is_missing = |file: &Fetched| file.problem.is_some();
        self.requires_files
            && self.could_leave_files()
            && (self.files_lost.is_some() || self.files.iter().any(is_missing))
    }

    /// The outcome without what `go test` users need not know: killed leftover processes, artifacts that do not exist, and
    /// hidden files that were not requested by name.
    pub fn without_the_usual(mut self) -> Self {
        (self.orphans, self.output_abandoned) = (0, false);
        let is_usual = |problem| matches!(problem, Some(Problem::NotThere | Problem::Hidden));
        self.files.retain(|file| self.requires_files || !is_usual(file.problem));
        self
    }
}
