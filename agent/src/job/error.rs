//! Why a job does not begin or does not go on. What a program does wrong is never among it: that is an outcome.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::files::error as files;
use crate::process::error as process;
use crate::store::error as store;
use crate::system::error as system;
use crate::system::error::IoError;

/// Why a job does not begin or does not go on. What a program does wrong is never among it: that is an outcome.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Messages that are on their way take all memory that there is for them.
    #[error(
        "a message of {needed} bytes has no room, {available} bytes are left for messages on their way; try again"
    )]
    NoReceiveMemory {
        /// Bytes of the message.
        needed: u64,
        /// Bytes that this connection could have.
        available: u64,
    },
    /// All places for jobs are taken.
    #[error("{limit} jobs run already, and that is the limit")]
    TooManyJobs {
        /// How many may run at once.
        limit: u32,
    },
    /// Nothing can be executed in the agent's directory.
    #[error("{} is mounted noexec", .0.display())]
    NotExecutable(PathBuf),
    /// The kernel gives no random numbers.
    #[error("the kernel gives no random numbers for the id of a job")]
    NoRandom,
    /// The controller stopped sending blobs that a job needs.
    #[error("the upload made no progress for {} s", .after.as_secs())]
    UploadStalled {
        /// How long nothing came.
        after: Duration,
    },
    /// The id that the controller chose names another job.
    #[error("there is a job {0} already")]
    JobExists(String),
    /// The other side broke the rules of the protocol; the text says which.
    #[error("protocol: {0}")]
    Protocol(&'static str),
    /// The program could not be started because the agent or the router has nothing left of what it needs.
    #[error("the router cannot start a program now: {0}")]
    NotStarted(#[source] io::Error),
    /// The controller's key was taken off the list since it connected.
    #[error("this controller is not authorized any more")]
    NotAuthorized,
    /// There is no such job, or there is none any more.
    #[error("there is no job {0} here: it has ended, or the agent was started since")]
    NoSuchJob(String),
    /// The job belongs to another controller.
    #[error("job {0} is another controller's")]
    NotYours(String),
    /// The router needed the memory of its output.
    #[error(
        "the job has ended ({ending}), and the last {bytes} bytes of its output were given up before they were fetched: the \
         router needed their memory"
    )]
    OutputLost {
        /// How many bytes.
        bytes: u64,
        /// How the job ended.
        ending: String,
    },
    /// The job has a newer connection.
    #[error("another connection has the job now")]
    TakenOver,
    /// The agent takes no new job.
    #[error("the agent is stopping")]
    Stopping,
    /// The connection broke, so there is nobody to tell.
    #[error("the controller is gone")]
    Gone,
    /// The store does not take a blob, or give it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Files of the job cannot be made or found.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// Its user cannot be had.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The router has no memory, or does not answer.
    #[error(transparent)]
    System(#[from] system::Error),
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl Error {
    /// Puts a path and a verb to an error of the kernel: `.map_err(Error::io("create", &path))`.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| IoError { action, path: path.to_owned(), source }.into()
    }
}
