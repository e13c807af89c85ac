//! Why the router has nothing to give, or does not answer.

use std::io;
use std::path::{Path, PathBuf};

/// Why the router has nothing to give, or does not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The router has not enough memory for a blob.
    #[error("the program needs {needed} bytes and the router has {available} bytes of memory to spare")]
    NoMemory {
        /// Bytes asked for.
        needed: u64,
        /// Bytes that may be given, the reserve taken off.
        available: u64,
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

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", .path.display())]
pub struct IoError {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// The kernel's error.
    pub source: io::Error,
}
