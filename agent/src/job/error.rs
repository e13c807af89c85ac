//! Errors that keep a job from starting or going on. A failure of the program itself is an outcome, not an error.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hop_formats::size::Size;

use crate::files::error as files;
use crate::process::error as process;
use crate::store::error as store;
use crate::system::error as system;
use crate::system::error::IoError;

/// Errors that keep a job from starting or going on. A failure of the program itself is an outcome, not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Incomplete messages have used up the memory that the agent reserves for them.
    #[error(
        "a message of {} does not fit into the receive buffers, where {} are free; try again",
        Size(*.needed),
        Size(*.available)
    )]
    NoReceiveMemory {
        /// Bytes of the message.
        needed: u64,
        /// Bytes that this connection could still use.
        available: u64,
    },
    /// The agent runs as many jobs as it may.
    #[error("{limit} jobs run already, and that is the limit")]
    TooManyJobs {
        /// How many may run at once.
        limit: u32,
    },
    /// The kernel executes nothing in the agent's directory.
    #[error("{} is mounted noexec", .0.display())]
    NotExecutable(PathBuf),
    /// The kernel provides no random numbers.
    #[error("the kernel gives no random numbers for the id of a job")]
    NoRandom,
    /// The controller stopped sending blobs that a job needs.
    #[error("the upload made no progress for {} s", .after.as_secs())]
    UploadStalled {
        /// How long the agent waited for the next bytes.
        after: Duration,
    },
    /// The id that the controller chose already names another job.
    #[error("there is a job {0} already")]
    JobExists(String),
    /// The controller violated a rule of the protocol, which the text names.
    #[error("protocol: {0}")]
    Protocol(&'static str),
    /// The agent could not start the program, because it or the router has run out of a resource.
    #[error("the router cannot start a program now: {0}")]
    NotStarted(#[source] io::Error),
    /// The controller's key has been removed from the list since it connected.
    #[error("this controller is not authorized any more")]
    NotAuthorized,
    /// The job does not exist, or has ended.
    #[error("there is no job {0} here: it has ended, or the agent was started since")]
    NoSuchJob(String),
    /// The job belongs to another controller.
    #[error("job {0} is another controller's")]
    NotYours(String),
    /// The router needed the memory of the job's output.
    #[error(
        "the job has ended ({ending}), and the last {bytes} bytes of its output were discarded before a controller fetched them: the \
         router needed their memory"
    )]
    OutputLost {
        /// Bytes of output that the agent discarded.
        bytes: u64,
        /// How the job ended.
        ending: String,
    },
    /// A newer connection has taken the job over.
    #[error("another connection has the job now")]
    TakenOver,
    /// The agent is stopping, and admits no new job.
    #[error("the agent is stopping")]
    Stopping,
    /// The controller has disconnected, so nobody receives this error.
    #[error("the controller is gone")]
    Gone,
    /// The store cannot add or return a blob.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The agent cannot create or find files of the job.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// The program cannot run as the requested user.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The router has too little memory, or a query of the system failed.
    #[error(transparent)]
    System(#[from] system::Error),
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl Error {
    /// Adds a path and a verb to an error of the kernel: `.map_err(Error::io("create", &path))`.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| IoError { action, path: path.to_owned(), source }.into()
    }
}
