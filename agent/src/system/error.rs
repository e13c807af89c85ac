//! Errors of the router: it lacks memory, or a file operation failed.

use std::io;
use std::path::{Path, PathBuf};

use hop_formats::size::Size;

/// Errors of the router: it lacks memory, or a file operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The router has too little memory for a blob.
    #[error("the program needs {} and the router has {} of memory to spare", Size(*.needed), Size(*.available))]
    NoMemory {
        /// Bytes needed.
        needed: u64,
        /// Bytes available beyond the reserve.
        available: u64,
    },
    /// The router's kernel has a commit limit (`vm.overcommit_memory` is 2), which leaves too little for a blob.
    #[error(
        "the program needs {} and the router's kernel promises {} of memory more, \
         because its vm.overcommit_memory is 2",
        Size(*.needed),
        Size(*.available)
    )]
    NoPromise {
        /// Bytes needed.
        needed: u64,
        /// Bytes available beyond the reserve.
        available: u64,
    },
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

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", .path.display())]
pub struct IoError {
    /// The action that failed, as a verb.
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The kernel's error.
    pub source: io::Error,
}
