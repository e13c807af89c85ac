//! Everything that can go wrong in the agent, with the limit, the path or the figures in it.
//!
//! A variant is one thing to say to a controller; [`crate::service::status`] turns each into a gRPC status.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The agent's own failures. What a program does wrong is never among them: that is an outcome.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system or the quota has no room for a blob.
    #[error("the program needs {needed} bytes and {} has {available} left", .directory.display())]
    NoSpace {
        /// Bytes asked for.
        needed: u64,
        /// Bytes that are left.
        available: u64,
        /// The store's directory.
        directory: PathBuf,
    },
    /// The router's memory has no room for a blob.
    #[error("the program needs {needed} bytes and the router has {available} bytes of memory to spare")]
    NoMemory {
        /// Bytes asked for.
        needed: u64,
        /// Bytes that may be given, the reserve taken off.
        available: u64,
    },
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
    /// The file system cannot have so many files more.
    #[error("the job needs {needed} inodes and {} has {available} to spare", .directory.display())]
    NoInodes {
        /// Inodes asked for.
        needed: u64,
        /// Inodes that may be given, the reserve taken off.
        available: u64,
        /// The store's directory.
        directory: PathBuf,
    },
    /// The router's kernel promises no more memory than it has (`vm.overcommit_memory` is 2), and that is promised.
    #[error(
        "the program needs {needed} bytes and the router's kernel promises {available} bytes of memory more, \
         because its vm.overcommit_memory is 2"
    )]
    NoPromise {
        /// Bytes asked for.
        needed: u64,
        /// Bytes that may be given, the reserve taken off.
        available: u64,
    },
    /// All places for jobs are taken.
    #[error("{limit} jobs run already, and that is the limit")]
    TooManyJobs {
        /// How many may run at once.
        limit: u32,
    },
    /// All places for connections are taken.
    #[error("{limit} controllers are connected already, and that is the limit")]
    TooManyConnections {
        /// How many may be connected at once.
        limit: u32,
    },
    /// The connections that are left are for other controllers.
    #[error("this controller has {held} connections, and the last {reserved} of {limit} are for others")]
    TooManyConnectionsOfKey {
        /// How many it has.
        held: u32,
        /// How many are kept for others.
        reserved: u32,
        /// How many there can be at once.
        limit: u32,
    },
    /// Nothing can be executed in the agent's directory.
    #[error("{} is mounted noexec", .0.display())]
    NotExecutable(PathBuf),
    /// A blob is not what its name says.
    #[error("the program arrived with another digest than announced")]
    DigestMismatch,
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
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The program could not be started for want of something that is the agent's or the router's.
    #[error("the router cannot start a program now: {0}")]
    NotStarted(#[source] io::Error),
    /// The controller's key was taken off the list since it connected.
    #[error("this controller is not authorized any more")]
    NotAuthorized,
    /// The list of who may connect cannot be changed.
    #[error(transparent)]
    KeyList(#[from] crate::access::authorized_keys::Error),
    /// Nobody of this name is in /etc/passwd.
    #[error("there is no user {0} on this router")]
    NoSuchUser(String),
    /// Only root can run a program as somebody else.
    #[error("hopd is not root, and so cannot run a program as another user")]
    NotRoot,
    /// There will be no core file that could be found.
    #[error("there is no core file to be had on this router: {0}")]
    NoCore(&'static str),
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
}

impl Error {
    /// Puts a path and a verb to an error of the kernel: `.map_err(Error::io("create", &path))`.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
