//! Errors of the files that `hop` uploads to a router.

use std::io;
use std::path::{Path, PathBuf};

use hop_proto::limits::MAX_OUTPUT_PATH_BYTES;

use crate::path_error::PathError;

/// A failure to read or pack files.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say what the fields are")]
pub enum Error {
    #[error(transparent)]
    Io(#[from] PathError),
    #[error("{} is a path of more than {MAX_OUTPUT_PATH_BYTES} bytes", .0.display())]
    PathTooLong(PathBuf),
    #[error("more than {most} files and directories, the last one {}", .directory.display())]
    TooManyInputs { directory: PathBuf, most: usize },
}

impl Error {
    /// Puts a path and a verb to an error of the kernel: `.map_err(Error::io("read", &path))`.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io(PathError { action, path: path.to_owned(), source })
    }
}
