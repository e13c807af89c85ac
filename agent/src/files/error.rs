//! Why input files cannot be unpacked, or there can be no core.

use std::io;
use std::path::Path;

use crate::system::error::IoError;

/// Why input files cannot be unpacked, or there can be no core.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other side broke the rules of the protocol; the text says which.
    #[error("protocol: {0}")]
    Protocol(&'static str),
    /// There will be no core file that could be found.
    #[error("there is no core file to be had on this router: {0}")]
    NoCore(&'static str),
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
