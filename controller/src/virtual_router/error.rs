//! Errors of virtual routers.

use std::io;
use std::path::{Path, PathBuf};

use crate::config;
use crate::path_error::PathError;
use crate::program;

/// A failure to start, use or end a virtual router.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say what the fields are")]
pub enum Error {
    #[error(transparent)]
    Io(#[from] PathError),
    #[error("{} cannot be read", .path.display())]
    Malformed { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Program(#[from] program::Error),
    #[error("{0}")]
    Usage(String),
    #[error("there is no {name} in PATH, under which virtual routers run")]
    NoQemu { name: String },
    #[error(
        "programs would run on this machine with your rights and files, because they cannot be isolated: {why}"
    )]
    NoSandbox { why: String },
    #[error("{name} did not start: {why}")]
    VirtualRouter { name: String, why: String },
    #[error("{name} did not come back: {why}")]
    NotBack { name: String, why: String },
    #[error("there is no {name} in PATH")]
    NoProgram { name: String, package: &'static str },
    #[error("there is no {}", .path.display())]
    NoArtifact { path: PathBuf },
    #[error("there is no profile named {name}; there are: {known}")]
    UnknownProfile { name: String, known: String, own: PathBuf },
    #[error("there is no virtual router named {name} with a profile; there are: {known}")]
    UnknownMachine { name: String, known: String },
    #[error("several virtual routers run, and none is named: {known}")]
    SeveralRun { known: String },
    #[error("the monitor of QEMU at {} does not work: {why}", .path.display())]
    Monitor { path: PathBuf, why: String },
}

impl Error {
    /// Puts a path and a verb to an error of the kernel: `.map_err(Error::io("read", &path))`.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io(PathError { action, path: path.to_owned(), source })
    }
}
