//! A lock that a shell script can take as well: a directory, because on every firmware, creating one either succeeds or
//! reports that it exists. Not every busybox has `flock`.
//!
//! The directory contains a file `owner` with the holder's PID and the id of the boot in which it runs. A process takes
//! over a lock whose owner is gone by creating the directory `takeover` in it, and then writes itself into `owner`.
//! `authorize.sh` does the same in shell.
//!
//! **Invariants:** at most one process holds the lock, even after its former owner was killed or the router lost power.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

/// How long to wait for the holder to release the lock. A script holds it for a second on slow flash memory.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Time between two attempts.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long an owner may take to write its PID.
const ANONYMOUS_LIMIT: Duration = Duration::from_secs(2);

/// Errors of taking the lock.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the lock.
    #[error(
        "{} has been there for {} s: is somebody else changing the list? If not, remove it",
        .0.display(), LOCK_TIMEOUT.as_secs()
    )]
    Held(PathBuf),
    /// The lock cannot be created.
    #[error("cannot lock {}: {source}", .path.display())]
    Io {
        /// The directory that is the lock.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}

/// The lock. Dropping it releases it.
#[derive(Debug)]
pub struct DirectoryLock {
    path: PathBuf,
}

impl DirectoryLock {
    /// Takes the lock of `file`: the directory with the name of the file and `.lock` appended.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn take(file: &Path) -> Result<Self, Error> {
        let mut path = file.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |source| Error::Io { path: path.clone(), source };
        let since = Instant::now();
        // Since when the lock has existed without an owner.
        let mut anonymous: Option<Instant> = None;
        loop {
            match fs::create_dir(&path) {
                Ok(()) => break,
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
                Err(_) if is_abandoned(&path, &mut anonymous) && take_over(&path) => {
                    return Ok(Self { path });
                }
                Err(_) if since.elapsed() > LOCK_TIMEOUT => return Err(Error::Held(path)),
                Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
        let lock = Self { path: path.clone() };
        // A lock that cannot be written to is released again.
        sign(&path).map_err(failed)?;
        Ok(lock)
    }
}

/// Writes this process into the lock as its owner.
fn sign(lock: &Path) -> io::Result<()> {
    fs::write(lock.join("owner"), format!("{} {}\n", std::process::id(), boot_id()))
}

/// True if the process that created the lock is gone. `anonymous`: since when the lock has existed without an owner.
fn is_abandoned(lock: &Path, anonymous: &mut Option<Instant>) -> bool {
    let owner = fs::read_to_string(lock.join("owner")).unwrap_or_default();
    match owner.trim().split_once(' ') {
        Some(_) => {
            *anonymous = None;
            !has_owner(lock)
        }
        // The owner is about to write its PID, or was killed before it could.
        None => anonymous.get_or_insert_with(Instant::now).elapsed() > ANONYMOUS_LIMIT,
    }
}

/// True if the lock has an owner that is running.
fn has_owner(lock: &Path) -> bool {
    let owner = fs::read_to_string(lock.join("owner")).unwrap_or_default();
    let owner = owner.trim().split_once(' ');
    owner.is_some_and(|(pid, boot)| boot == boot_id() && is_running(pid))
}

/// True if the process runs: not if it has exited and its parent, which may be an init that reaps nobody, has not noticed.
fn is_running(pid: &str) -> bool {
    // The state follows the name, which is in parentheses and can contain others (proc_pid_stat(5)).
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X'])))
}

/// Makes this process the owner of the lock, unless another process does the same or has already done it.
fn take_over(lock: &Path) -> bool {
    let takeover = lock.join("takeover");
    if fs::create_dir(&takeover).is_err() {
        return false;
    }
    // The lock may have changed since the check.
    let is_ours = !has_owner(lock) && sign(lock).is_ok();
    let _ = fs::remove_dir(takeover);
    is_ours
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path.join("owner"));
        if let Err(error) = fs::remove_dir(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a lock");
        }
    }
}

/// The id of this boot; empty if the kernel does not tell.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn live_owners_lock_is_awaited() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("list");
        let lock = DirectoryLock::take(&file).await.unwrap();
        assert!(matches!(DirectoryLock::take(&file).await, Err(Error::Held(_))));
        drop(lock);
        drop(DirectoryLock::take(&file).await.unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn dead_owners_lock_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("list");
        let path = dir.path().join("list.lock");
        let mut zombie = std::process::Command::new("true").spawn().unwrap();
        while is_running(&zombie.id().to_string()) {
            std::thread::yield_now();
        }
        // An owner of another boot, one with an impossible PID, one that its parent has not reaped, and one that was killed
        // before it had written its PID.
        let former = [
            format!("{} {}", std::process::id(), "0-0"),
            format!("0 {}", boot_id()),
            format!("{} {}", zombie.id(), boot_id()),
            String::new(),
        ];
        for owner in former {
            fs::create_dir(&path).unwrap();
            if !owner.is_empty() {
                fs::write(path.join("owner"), &owner).unwrap();
            }
            let lock = DirectoryLock::take(&file).await.unwrap();
            let written = fs::read_to_string(path.join("owner")).unwrap();
            assert_eq!(written.trim(), format!("{} {}", std::process::id(), boot_id()), "{owner}");
            drop(lock);
            assert!(!path.exists());
        }
        zombie.wait().unwrap();
    }
}
