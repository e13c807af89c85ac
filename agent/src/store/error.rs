//! Errors of adding a blob to the store, or of getting one out of it.

use std::io;
use std::path::{Path, PathBuf};

use hop_formats::size::Size;

use crate::system::error as system;
use crate::system::error::IoError;

/// Errors of adding a blob to the store, or of getting one out of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system or the quota has no space for a blob.
    #[error("the program needs {} and {} has {} left", Size(*.needed), .directory.display(), Size(*.available))]
    NoSpace {
        /// Bytes needed.
        needed: u64,
        /// Bytes available.
        available: u64,
        /// The store's directory.
        directory: PathBuf,
    },
    /// The file system cannot hold this many more files.
    #[error("the job needs {needed} inodes and {} has {available} to spare", .directory.display())]
    NoInodes {
        /// Inodes needed.
        needed: u64,
        /// Inodes available beyond the reserve.
        available: u64,
        /// The store's directory.
        directory: PathBuf,
    },
    /// The content of a blob does not have the announced digest.
    #[error("the program arrived with another digest than announced")]
    DigestMismatch,
    /// The other side broke the rules of the protocol; the text says which.
    #[error("protocol: {0}")]
    Protocol(&'static str),
    /// The router has no memory for a decoder.
    #[error("the router cannot start a program now: {0}")]
    NotStarted(#[source] io::Error),
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
