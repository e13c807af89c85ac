//! An error of the kernel, with the file and the operation that failed.

use std::io;
use std::path::PathBuf;

/// The kernel refused something for a file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", .path.display())]
pub struct PathError {
    /// The operation: a verb, with a preposition if it needs one.
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}
