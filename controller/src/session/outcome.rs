//! How a job ended, with what is known of its run.

use serde::Serialize;

use super::artifacts::{Fetched, Problem};

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
    /// Its connection broke, and no `hop` came back to it within `--reconnect-timeout`.
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
        }
    }

    /// The program ended as it did, and Hop failed after that.
    pub fn has_lost_files(&self) -> bool {
        let is_its_own = matches!(
            self.ending,
            Ending::Exited(_) | Ending::Signaled { .. } | Ending::TimedOut | Ending::Idle
        );
        is_its_own && self.files_lost.is_some()
    }

    /// The outcome without what `go test` users need not know: killed leftover processes, artifacts that do not exist, and
    /// hidden files that were not requested by name.
    pub fn without_the_usual(mut self) -> Self {
        (self.orphans, self.output_abandoned) = (0, false);
        self.files.retain(|file| !matches!(file.problem, Some(Problem::NotThere | Problem::Hidden)));
        self
    }
}
