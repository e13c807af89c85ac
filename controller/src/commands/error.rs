//! Errors of commands: the failures of all folders, and a few of its own.

use std::io;
use std::path::Path;

use crate::path_error::PathError;
use crate::{client, config, enrolment, golang, program, session, transfer, virtual_router};

/// A failure of Hop itself, or a program that cannot be executed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say what the fields are")]
pub enum Error {
    #[error(transparent)]
    Io(#[from] PathError),
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Transfer(#[from] transfer::Error),
    #[error(transparent)]
    Program(#[from] program::Error),
    #[error(transparent)]
    Session(#[from] session::Error),
    #[error(transparent)]
    Golang(#[from] golang::Error),
    #[error(transparent)]
    Enrolment(#[from] enrolment::Error),
    #[error(transparent)]
    VirtualRouter(#[from] virtual_router::Error),
    #[error("{0}")]
    Usage(String),
    #[error("the agent of {router} does not support {what}")]
    Lacks { router: String, what: &'static str },
    #[error("there is no job {job} on {router}")]
    NoSuchJob { job: String, router: String },
    #[error("this controller has no job on {router}")]
    NoJobs { router: String },
    #[error("this controller has several jobs on {router}, and none is named: {known}")]
    SeveralJobs { router: String, known: String },
    #[error("{job} may be several jobs on {router}: {known}")]
    AmbiguousJob { job: String, router: String, known: String },
    #[error("the job {job} on {router} is another controller's")]
    NotYours { job: String, router: String },
    #[error("the key rotation is not finished: not on {routers}; {state}")]
    Unfinished { routers: String, state: String },
    #[error("interrupted by SIG{signal}")]
    Interrupted { signal: &'static str },
}

impl Error {
    /// Puts a path and a verb to an error of the kernel: `.map_err(Error::io("read", &path))`.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io(PathError { action, path: path.to_owned(), source })
    }

    /// True if another source may build, so that it is worth to wait for one.
    pub fn is_of_source(&self) -> bool {
        use golang::Error::{NeedsC, NoPackages, NotBuilt, NotMain, SeveralPackages};
        matches!(
            self,
            Self::Golang(
                NeedsC { .. } | NoPackages { .. } | NotBuilt { .. } | NotMain { .. } | SeveralPackages { .. }
            )
        )
    }

    /// True if the router would have the capacity without the jobs that run there now.
    pub fn is_lack_of_capacity(&self) -> bool {
        match self {
            Self::Client(error) | Self::Session(session::Error::Client(error)) => error.is_lack_of_capacity(),
            _ => false,
        }
    }
}
