//! Errors of a job.

use std::io;
use std::path::{Path, PathBuf};

use hop_formats::size::Size;

use crate::client;
use crate::config;
use crate::path_error::PathError;
use crate::transfer::inputs::named;

/// A failure of Hop while a job is under way; how the program ended is then not known.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say what the fields are")]
pub enum Error {
    #[error(transparent)]
    Io(#[from] PathError),
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error("cannot write {}: {} is a symbolic link", .file.display(), .link.display())]
    LinkInTheWay { file: PathBuf, link: PathBuf },
    #[error("--artifact {request}: {why}")]
    InvalidOutput { request: String, why: &'static str },
    #[error("--artifact can be given {most} times")]
    TooManyOutputs { most: usize },
    #[error("arguments and environment take {bytes} bytes; the limit is 2,097,152")]
    TooManyArguments { bytes: usize },
    #[error("{router} was rebooted before hop had fetched all artifacts; the program's outcome is unknown")]
    RebootedAfter { router: String },
    #[error(
        "the agent of {router} was restarted before hop had fetched all artifacts; the program's outcome is unknown"
    )]
    AgentRestartedAfter { router: String },
    #[error("the job {job} on {router} has artifacts, and no --artifact says where to put them")]
    NoPlace { job: String, router: String },
    #[error("the job {job} on {router} has no complete program yet; the hop that uploads it must finish")]
    Incomplete { job: String, router: String },
    #[error("{router} has no memory for the files of the test: they take {}, and {} are available; the largest: {}", Size(*.bytes), Size(*.available), named(.largest))]
    InputsTooLarge { router: String, bytes: u64, available: u64, largest: Vec<(PathBuf, u64)> },
    #[error("{0}")]
    NoRandom(#[source] hop_proto::identity::Error),
    #[error(
        "hop was stopped for {}, longer than --reconnect-timeout, and the agent of {router} has killed the job",
        humantime::format_duration(std::time::Duration::from_secs(.stopped.as_secs()))
    )]
    StoppedTooLong { router: String, stopped: std::time::Duration },
    #[error("interrupted by SIG{signal}")]
    Interrupted { signal: &'static str },
}

impl Error {
    /// Puts a path and a verb to an error of the kernel: `.map_err(Error::io("read", &path))`.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io(PathError { action, path: path.to_owned(), source })
    }
}
