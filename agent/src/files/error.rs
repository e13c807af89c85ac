//! Errors of unpacking input files and of finding a core file.

use std::io;
use std::path::Path;

use crate::system::error::IoError;

/// Errors of unpacking input files and of finding a core file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other side broke the rules of the protocol; the text says which.
    #[error("protocol: {0}")]
    Protocol(&'static str),
    /// The kernel writes no core file, or the agent could not find it.
    #[error("core files are not available on this router: {0}")]
    NoCore(&'static str),
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
