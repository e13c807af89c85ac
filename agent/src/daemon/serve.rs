//! Starts the agent, and shuts it down in order: its directory, its key, its jobs, and its [`Acceptor`].
//!
//! **Invariants:** each agent has a directory of its own; and however an agent exits, the next one removes everything
//! that it left.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use hop_proto::identity::Fingerprint;
use hop_proto::tls::{self, CurrentIdentity};
use rustix::fs::{Mode, OFlags};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::access::authorized_keys::AuthorizedKeys;
use crate::access::key_file::{self, KeyFile};
use crate::cli::options::Options;
use crate::daemon::pid_file::{self, PidFile};
use crate::files::core_dump;
use crate::job::environment::JOB_DIRECTORY;
use crate::job::registry::JobRegistry;
use crate::job::workspace::JOBS;
use crate::process::cgroup::Cgroups;
use crate::process::child;
use crate::process::reaper::{self, ProcessReaper};
use crate::store::blobs::Store;
use crate::store::disk_cache::DiskCache;
use crate::system::fs_remove;
use crate::system::memory;
use crate::system::runtime;
use crate::transport::acceptor::Acceptor;
use crate::transport::listener::Listener;
use crate::transport::revocation::Revocation;

/// The agent's own nice value. The agent must get CPU time even if a program has started a thousand processes, because
/// nobody else would kill them. It uses the CPU while a program is uploaded or writes, and hardly at all otherwise.
const NICE: i32 = -10;

/// Errors that keep the agent from serving.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The agent's directory cannot be used.
    #[error("cannot use the directory {}", .0.display())]
    Directory(PathBuf, #[source] io::Error),
    /// Two agents would remove each other's files.
    #[error("another hopd uses {}; give this one another --dir", .0.display())]
    DirectoryTaken(PathBuf),
    /// Others could put programs into the agent's directory.
    #[error(
        "{} must belong to the user that hopd runs as, and nobody else may look into it (mode 0700 or 0711)", .0.display()
    )]
    DirectoryOpen(PathBuf),
    /// The agent's key cannot be used.
    #[error(transparent)]
    Key(#[from] key_file::Error),
    /// Another agent holds the pid file, or it cannot be written.
    #[error(transparent)]
    PidFile(#[from] pid_file::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// The address is in use, or not one of the router's.
    #[error("cannot listen on {0}")]
    Listen(std::net::SocketAddr, #[source] io::Error),
    /// The runtime does not work, or the kernel does not report the address.
    #[error("cannot start")]
    Start(#[from] io::Error),
}

/// Serves until SIGTERM or SIGINT, then kills all jobs and removes all files.
///
/// # Errors
/// The agent could not start. Once it serves, only a signal stops it.
pub fn run(options: Options) -> Result<(), Error> {
    let mut served = Ok(());
    runtime::run(pin!(async { served = serve(options).await }))?;
    served
}

async fn serve(options: Options) -> Result<(), Error> {
    let directory = Directory::take(options.directory)?;
    let pid_file = options.pid_file.as_deref().map(PidFile::write).transpose()?;
    let key = Arc::new(KeyFile::open(options.key)?);
    let fingerprint = key.current().fingerprint();
    let authorized = Arc::new(AuthorizedKeys::new(options.authorized));
    let config = tls::server_config_with(key, authorized.clone(), hop_cipher::CIPHER_SUITE)?;
    let store = Store::new(directory.subdirectory("blobs")?, options.quota);
    let disk_cache = options.disk_cache.map(DiskCache::new);
    let cgroups = Cgroups::find(&directory.lock.metadata()?);
    directory.kill_stale_jobs(cgroups.as_ref());
    fs_remove::retry(&directory.path);
    core_dump::remove_former(&directory.path.join(JOBS));
    let reaper = ProcessReaper::become_subreaper(cgroups);
    memory::be_spared();
    child::set_nice(NICE);
    let jobs = Arc::new(JobRegistry::new(
        store,
        disk_cache,
        reaper,
        directory.subdirectory(JOBS)?,
        options.launcher,
    ));
    let listener = Listener::bind(options.listen, options.interface.as_deref());
    let listener = listener.await.map_err(|error| Error::Listen(options.listen, error))?;
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let [terminate, interrupt, hangup] = &mut ends;
    announce(&listener, fingerprint)?;
    assert!(!options.panics, "--panic was given");

    let revocation = Revocation::start(authorized.clone(), jobs.clone());
    let acceptor = Arc::new(Acceptor::new(config, authorized, jobs.clone(), revocation, listener.describe()));
    tokio::select! {
        () = acceptor.accept(listener) => {}
        () = received(terminate) => {}
        () = received(interrupt) => {}
        () = received(hangup) => {}
    }
    tracing::info!("stopping");
    jobs.stop().await;
    acceptor.close().await;
    // The pid file may be in the directory.
    drop(pid_file);
    directory.remove()
}

/// Waits for a signal; forever if the agent cannot listen for it.
async fn received(signal: &mut io::Result<Signal>) {
    match signal {
        Ok(signal) => _ = signal.recv().await,
        Err(_) => std::future::pending().await,
    }
}

/// Tells the process that started the agent, in one line on standard output, that it serves, where, and with which key.
fn announce(listener: &Listener, fingerprint: Fingerprint) -> Result<(), Error> {
    let address = listener.local_addr();
    let mut stdout = io::stdout().lock();
    // When a supervisor restarts the agent, the process that first started it may be gone. That is no reason not to
    // serve.
    let _ = writeln!(stdout, "{{\"address\":\"{address}\",\"fingerprint\":\"{fingerprint}\"}}")
        .and_then(|()| stdout.flush());
    let place = listener.describe();
    tracing::info!(%address, %place, %fingerprint, version = %env!("CARGO_PKG_VERSION"), "listening");
    Ok(())
}

/// The agent's directory, which no other agent uses at the same time.
struct Directory {
    path: PathBuf,
    /// Open and locked as long as this agent lives; the kernel unlocks it however the agent exits.
    lock: File,
}

impl Directory {
    fn take(path: PathBuf) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::Directory(path.clone(), error);
        match DirBuilder::new().recursive(true).mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        // Programs of other users pass through this directory, if there are any. Anybody can write to /tmp, and the
        // agent executes files in here: so it accepts neither somebody else's directory nor a link.
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let lock =
            File::from(rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| failed(error.into()))?);
        let metadata = lock.metadata().map_err(failed)?;
        if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o066 != 0 {
            return Err(Error::DirectoryOpen(path));
        }
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::DirectoryTaken(path)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        Ok(Self { path, lock })
    }

    /// Kills everything that the jobs of a killed agent have left running.
    fn kill_stale_jobs(&self, cgroups: Option<&Cgroups>) {
        let mark =
            [JOB_DIRECTORY.as_bytes(), b"=", self.path.join(JOBS).join("").as_os_str().as_bytes()].concat();
        let ended = cgroups.map_or(0, Cgroups::kill_stale) + reaper::kill_stale(&mark);
        if ended > 0 {
            tracing::warn!(processes = ended, "killed processes that an earlier agent had left");
        }
    }

    /// Creates an empty directory in this one. Files of an earlier agent that cannot be removed do not keep this one
    /// from starting.
    fn subdirectory(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        let failed = |error: io::Error| Error::Directory(path.clone(), error);
        fs_remove::clear(&path).map_err(failed)?;
        DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(path)
    }

    /// Removes the files of the agent. The directory itself stays if others have put something into it, if something in
    /// it cannot be removed, or if it is a mount point.
    fn remove(self) -> Result<(), Error> {
        for name in ["blobs", JOBS] {
            let path = self.path.join(name);
            if let Err(error) = fs_remove::remove(&path) {
                tracing::error!(path = %path.display(), %error, "cannot remove a directory completely");
            }
        }
        fs_remove::retry(&self.path);
        match fs::remove_dir(&self.path) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy
                ) =>
            {
                Err(Error::Directory(self.path, error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn two_agents_do_not_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hop");
        let first = Directory::take(path.clone()).unwrap();
        assert!(matches!(Directory::take(path.clone()), Err(Error::DirectoryTaken(_))));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        first.subdirectory("blobs").unwrap();
        first.subdirectory(JOBS).unwrap();
        fs::write(path.join("blobs/upload-1"), "left by an agent that is gone").unwrap();
        assert_eq!(fs::read_dir(first.subdirectory("blobs").unwrap()).unwrap().count(), 0);
        first.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn open_or_linked_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (open, link) = (dir.path().join("open"), dir.path().join("link"));
        DirBuilder::new().mode(0o755).create(&open).unwrap();
        assert!(matches!(Directory::take(open.clone()), Err(Error::DirectoryOpen(_))));
        assert_eq!(fs::metadata(&open).unwrap().mode() & 0o777, 0o755, "and it stays as it is");
        std::os::unix::fs::symlink(&open, &link).unwrap();
        assert!(matches!(Directory::take(link), Err(Error::Directory(..))));
    }
}
