//! Why a blob does not come into the store, or out of it.

use std::io;
use std::path::{Path, PathBuf};

use crate::system::error as system;
use crate::system::error::IoError;

/// Why a blob does not come into the store, or out of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system or the quota has no space for a blob.
    #[error("the program needs {needed} bytes and {} has {available} left", .directory.display())]
    NoSpace {
        /// Bytes asked for.
        needed: u64,
        /// Bytes that are left.
        available: u64,
        /// The store's directory.
        directory: PathBuf,
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
    /// A blob is not what its name says.
    #[error("the program arrived with another digest than announced")]
    DigestMismatch,
    /// The other side broke the rules of the protocol; the text says which.
    #[error("protocol: {0}")]
    Protocol(&'static str),
    /// A decoder could not be made: the router has no memory for it.
    #[error("the router cannot start a program now: {0}")]
    NotStarted(#[source] io::Error),
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
