//! Errors of the files that Hop keeps on this machine.

use std::io;
use std::path::{Path, PathBuf};

use crate::path_error::PathError;

/// A failure of the configuration.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say what the fields are")]
pub enum Error {
    #[error(transparent)]
    Io(#[from] PathError),
    #[error("{} cannot be read", .path.display())]
    Malformed { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{0}")]
    Identity(#[source] hop_proto::identity::Error),
    #[error("neither HOP_HOME nor HOME is set, so there is no place for keys")]
    NoHome,
    #[error("there is no router named {name}; enrolled: {known}")]
    UnknownRouter { name: String, known: String },
    #[error("no router is enrolled")]
    NoRouter,
    #[error("the default router, {0}, is not enrolled any more")]
    StaleDefault(String),
    #[error("several routers are enrolled, and none is named: {known}")]
    AmbiguousRouter { known: String },
    #[error("{0} is the name of another router")]
    NameTaken(String),
    #[error("{0:?} is no name for a router: letters, digits, '.', '_' and '-', a letter or digit first")]
    InvalidName(String),
}

impl Error {
    /// Puts a path and a verb to an error of the kernel: `.map_err(Error::io("read", &path))`.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io(PathError { action, path: path.to_owned(), source })
    }
}
