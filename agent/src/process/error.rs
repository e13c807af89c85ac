//! Why a program cannot run as the user that was asked for.

use std::io;
use std::path::Path;

use crate::system::error::IoError;

/// Why a program cannot run as the user that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody of this name is in /etc/passwd.
    #[error("there is no user {0} on this router")]
    NoSuchUser(String),
    /// Only root can run a program as somebody else.
    #[error("hopd is not root, and so cannot run a program as another user")]
    NotRoot,
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
