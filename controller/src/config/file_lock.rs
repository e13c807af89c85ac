//! Locks on files of this machine (flock(2)), which go with their process however that ends.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Between two looks whether a lock is free: flock(2) can be waited for, but not together with anything else.
pub const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Takes the lock on a file, unless another process holds it. Closing the file releases it.
///
/// # Errors
/// The file cannot be made, or its file system has no locks.
pub fn take(path: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).append(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
