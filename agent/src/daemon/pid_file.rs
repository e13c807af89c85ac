//! The file that names the process to signal: `--pid-file`.
//!
//! **Invariants:** while its process lives, nobody else writes to the file, because it is locked; and on an orderly end the
//! file goes. After kill -9 or a loss of power a stale file is left, whose number may be another process's by now. A reader
//! without flock(1), as every router's shell is, therefore looks into /proc/NUMBER/cmdline first.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why there is no pid file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its process lives.
    #[error("another hopd has the pid file {}", .0.display())]
    Taken(PathBuf),
    /// It cannot be written.
    #[error("cannot write the pid file {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
}

/// A pid file with our number in it, removed when dropped.
pub struct PidFile {
    path: PathBuf,
    /// Open and locked; the kernel unlocks it however we end. Closed when a child executes, so the lock is not inherited.
    _lock: File,
}

impl PidFile {
    /// Writes our number to `path`. A stale file is taken over.
    ///
    /// # Errors
    /// [`Error::Taken`] if the process lives that wrote it.
    pub fn write(path: &Path) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::Io(path.to_owned(), error);
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                // /tmp is everybody's; and a pipe that nobody reads is not waited for.
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(path)
                .map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(Error::Taken(path.to_owned())),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // It was removed between open and lock, by the process that had it.
            if file.metadata().map_err(failed)?.nlink() == 0 {
                continue;
            }
            file.set_len(0)
                .and_then(|()| (&file).write_all(format!("{}\n", std::process::id()).as_bytes()))
                .map_err(failed)?;
            return Ok(Self { path: path.to_owned(), _lock: file });
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Still locked. What somebody has removed already is as it should be.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pid_file_is_locked_removed_and_reused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        fs::write(&path, "123456789\n").unwrap();
        let file = PidFile::write(&path).unwrap();
        let own = format!("{}\n", std::process::id());
        assert_eq!(fs::read_to_string(&path).unwrap(), own);
        assert!(matches!(PidFile::write(&path), Err(Error::Taken(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), own);
        drop(file);
        assert!(!path.exists());
        assert!(PidFile::write(&path).is_ok());
    }
}
