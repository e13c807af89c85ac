//! Errors of the files that go with a program.

use std::io;
use std::path::{Path, PathBuf};

use crate::path_error::PathError;
use crate::transfer;

/// A failure to find the files that go with a program.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say what the fields are")]
pub enum Error {
    #[error(transparent)]
    Io(#[from] PathError),
    #[error(transparent)]
    Transfer(#[from] transfer::Error),
    #[error("--input {text}: {why}")]
    InvalidInput { text: String, why: &'static str },
    #[error("--send-certs: this machine has no file of CA certificates in {}", named(.searched))]
    NoCertificates { searched: Vec<PathBuf> },
}

impl Error {
    /// Puts a path and a verb to an error of the kernel: `.map_err(Error::io("read", &path))`.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io(PathError { action, path: path.to_owned(), source })
    }
}

fn named(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
