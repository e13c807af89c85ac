//! Why a program cannot run as the requested user.

use std::io;
use std::path::Path;

use crate::system::error::IoError;

/// Why a program cannot run as the requested user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// /etc/passwd has no user with this name.
    #[error("there is no user {0} on this router")]
    NoSuchUser(String),
    /// Only root can run a program as another user.
    #[error("hopd is not root, and so cannot run a program as another user")]
    NotRoot,
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
