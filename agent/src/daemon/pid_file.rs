//! The file that names the process to signal: `--pid-file`.
//!
//! **Invariants:** while its process lives, nobody else writes to the file, because it is locked; and the process
//! removes it when it exits in order. After kill -9 or a power failure, a stale file remains, whose PID another process
//! may have by now. So a reader without flock(1), which includes the shell of every router, checks /proc/PID/cmdline
//! first.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Errors of writing a pid file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process that wrote it lives.
    #[error("another hopd has the pid file {}", .0.display())]
    Taken(PathBuf),
    /// The file cannot be written.
    #[error("cannot write the pid file {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
}

/// A pid file with the PID of this process, removed when dropped.
pub struct PidFile {
    path: PathBuf,
    /// Open and locked; the kernel unlocks it however the process exits. Closed on execve, so that no child inherits
    /// the lock.
    _lock: File,
}

impl PidFile {
    /// Writes the PID of this process to `path`. Takes over a stale file.
    ///
    /// # Errors
    /// [`Error::Taken`] if the process that wrote the file lives.
    pub fn write(path: &Path) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::Io(path.to_owned(), error);
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                // Anybody can write to /tmp; and the open must not wait for the reader of a pipe.
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(path)
                .map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(Error::Taken(path.to_owned())),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // The process that had the file removed it between the open and the lock.
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
        // Still locked. Fails if somebody has removed the file already, and then nothing is left to do.
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
