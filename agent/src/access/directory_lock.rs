//! A lock that a shell script can take as well: a directory, because making one either succeeds or tells that it is there,
//! on every firmware. Not every busybox has `flock`.
//!
//! In it is a file `owner` with the number of the process that holds it and the boot in which that runs. A lock whose
//! owner is gone is taken over where it is: who makes the directory `takeover` in it may write itself into `owner`.
//! `authorize.sh` does the same in its words.
//!
//! **Invariants:** at most one process holds the lock, also when its former owner was killed or the power was lost.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

/// How long to wait until its holder releases it. A script holds it for a second on a slow flash.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two attempts.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long an owner may take to write its number.
const ANONYMOUS_LIMIT: Duration = Duration::from_secs(2);

/// Why the lock is not ours.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody holds it.
    #[error(
        "{} has been there for {} s: is somebody else changing the list? If not, remove it",
        .0.display(), LOCK_TIMEOUT.as_secs()
    )]
    Held(PathBuf),
    /// It cannot be made.
    #[error("cannot lock {}: {source}", .path.display())]
    Io {
        /// The directory that is the lock.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The lock, which is free again when this is dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    path: PathBuf,
}

impl DirectoryLock {
    /// Takes the lock of `file`: the directory beside it with `.lock` behind its name.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn take(file: &Path) -> Result<Self, Error> {
        let mut path = file.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |source| Error::Io { path: path.clone(), source };
        let since = Instant::now();
        // Since when it has been there without a word of whose it is.
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
        // One that cannot be written to is given back.
        sign(&path).map_err(failed)?;
        Ok(lock)
    }
}

/// Writes who holds the lock.
fn sign(lock: &Path) -> io::Result<()> {
    fs::write(lock.join("owner"), format!("{} {}\n", std::process::id(), boot_id()))
}

/// True if the process that made the lock is gone. `anonymous` is since when it has been there without a word of whose it is.
fn is_abandoned(lock: &Path, anonymous: &mut Option<Instant>) -> bool {
    let owner = fs::read_to_string(lock.join("owner")).unwrap_or_default();
    match owner.trim().split_once(' ') {
        Some(_) => {
            *anonymous = None;
            !has_owner(lock)
        }
        // It is about to write its number, or was killed before it could.
        None => anonymous.get_or_insert_with(Instant::now).elapsed() > ANONYMOUS_LIMIT,
    }
}

/// True if somebody holds the lock who has said so and is there.
fn has_owner(lock: &Path) -> bool {
    let owner = fs::read_to_string(lock.join("owner")).unwrap_or_default();
    let owner = owner.trim().split_once(' ');
    owner.is_some_and(|(pid, boot)| boot == boot_id() && Path::new("/proc").join(pid).exists())
}

/// Makes the lock ours unless somebody else does the same or has already done it.
fn take_over(lock: &Path) -> bool {
    let takeover = lock.join("takeover");
    if fs::create_dir(&takeover).is_err() {
        return false;
    }
    // The lock that is there now need not be the one that was looked at.
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

/// Tells this boot from every other; nothing where the kernel does not say.
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
        // Of another boot, of a process that cannot be, of one that was killed before it had written its number.
        let former = [format!("{} {}", std::process::id(), "0-0"), format!("0 {}", boot_id()), String::new()];
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
    }
}
