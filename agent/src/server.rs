//! Starts the agent, and ends it in order: its directory, its key, its jobs, and its [`Acceptor`].
//!
//! **Invariants:** one agent a directory, and the directory its own; whatever way an agent ended, the next one removes what
//! that one left.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use hop_proto::identity::{self, Fingerprint, Identity};
use hop_proto::tls::{self, Authorized};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::acceptor::Acceptor;
use crate::cgroup::Cgroups;
use crate::child;
use crate::cipher;
use crate::core_file;
use crate::family::{self, Family};
use crate::job;
use crate::jobs::Jobs;
use crate::memory;
use crate::options::Options;
use crate::pid_file::{self, PidFile};
use crate::shelf::Shelf;
use crate::store::Store;
use crate::task;
use crate::tree;

/// The agent's own nice value: it must come to its turn also when a program has started a thousand processes, because who else
/// would end them? It uses the CPU when a program is sent or writes, and hardly at all otherwise.
const NICE: i32 = -10;

/// What keeps the agent from serving.
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
    /// The agent has no key.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// The pid file is another agent's, or cannot be written.
    #[error(transparent)]
    PidFile(#[from] pid_file::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// The address is taken or not ours.
    #[error("cannot listen on {0}")]
    Listen(std::net::SocketAddr, #[source] io::Error),
    /// The runtime does not work, or the kernel does not tell the address.
    #[error("cannot start")]
    Start(#[from] io::Error),
}

/// Serves until SIGTERM or SIGINT, then ends all jobs and removes all files.
///
/// # Errors
/// The agent could not start. Once it serves, nothing makes it stop but a signal.
pub fn run(options: Options) -> Result<(), Error> {
    let mut served = Ok(());
    task::run(pin!(async { served = serve(options).await }))?;
    served
}

/// The agent's key. It is made if there is none, and so is the directory around it, for nobody else to look into.
///
/// # Errors
/// The key cannot be read, or not be made.
pub fn identity(key: &Path) -> Result<Identity, identity::Error> {
    if let Some(parent) = key.parent().filter(|parent| !parent.exists()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|error| identity::Error::Write(key.to_owned(), error))?;
    }
    Identity::load_or_create(key)
}

async fn serve(options: Options) -> Result<(), Error> {
    let directory = Directory::take(options.directory)?;
    let pid_file = options.pid_file.as_deref().map(PidFile::write).transpose()?;
    let identity = identity(&options.key)?;
    let authorized = Arc::new(AuthorizedFile(options.authorized));
    let config = tls::server_config(&identity, authorized.clone(), cipher::CIPHER_SUITE)?;
    let store = Store::new(directory.subdirectory("blobs")?, options.quota);
    let shelf = options.shelf.map(Shelf::new);
    let cgroups = Cgroups::find(&directory.lock.metadata()?);
    directory.end_former_jobs(cgroups.as_ref());
    tree::retry(&directory.path);
    core_file::remove_former(&directory.path.join("jobs"));
    let family = Family::adopt(cgroups);
    memory::be_spared();
    child::set_nice(NICE);
    let jobs = Arc::new(Jobs::new(store, shelf, family, directory.subdirectory("jobs")?, options.launcher));
    let listener =
        TcpListener::bind(options.listen).await.map_err(|error| Error::Listen(options.listen, error))?;
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let [terminate, interrupt, hangup] = &mut ends;
    announce(&listener, identity.fingerprint())?;

    let acceptor = Arc::new(Acceptor::new(config, authorized, jobs.clone()));
    tokio::select! {
        () = acceptor.accept(listener) => {}
        () = received(terminate) => {}
        () = received(interrupt) => {}
        () = received(hangup) => {}
    }
    tracing::info!("stopping");
    jobs.stop().await;
    acceptor.close().await;
    // It may be in there.
    drop(pid_file);
    directory.remove()
}

/// Waits for a signal; for ever, if it cannot be listened to.
async fn received(signal: &mut io::Result<Signal>) {
    match signal {
        Ok(signal) => _ = signal.recv().await,
        Err(_) => std::future::pending().await,
    }
}

/// The one line on standard output, for whoever started the agent: that it serves, where, and as whom.
fn announce(listener: &TcpListener, fingerprint: Fingerprint) -> Result<(), Error> {
    let address = listener.local_addr()?;
    let mut stdout = io::stdout().lock();
    // Whoever started the agent may be gone when a supervisor starts it again, and that is no reason not to serve.
    let _ = writeln!(stdout, "{{\"address\":\"{address}\",\"fingerprint\":\"{fingerprint}\"}}")
        .and_then(|()| stdout.flush());
    tracing::info!(%address, %fingerprint, version = env!("CARGO_PKG_VERSION"), "listening");
    Ok(())
}

/// The agent's directory, which no other agent uses at the same time.
struct Directory {
    path: PathBuf,
    /// Open and locked as long as this agent lives; the kernel unlocks it however the agent ends.
    lock: File,
}

impl Directory {
    fn take(path: PathBuf) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::Directory(path.clone(), error);
        match DirBuilder::new().recursive(true).mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        // Programs of other users pass it, if there are any. /tmp is everybody's, and what is in here is executed: somebody else's directory, or a link, is not taken.
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let lock =
            File::from(rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| failed(error.into()))?);
        let metadata = lock.metadata().map_err(failed)?;
        if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o066 != 0 {
            return Err(Error::DirectoryOpen(path));
        }
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::DirectoryTaken(path)),
            Err(error) => return Err(failed(error.into())),
        }
        Ok(Self { path, lock })
    }

    /// Ends what is left of the jobs of an agent that was killed.
    fn end_former_jobs(&self, cgroups: Option<&Cgroups>) {
        let mark =
            [job::JOB_DIRECTORY.as_bytes(), b"=", self.path.join("jobs/").as_os_str().as_bytes()].concat();
        let ended = cgroups.map_or(0, Cgroups::end_former) + family::end_marked(&mark);
        if ended > 0 {
            tracing::warn!(processes = ended, "ended what an agent before this one had left running");
        }
    }

    /// A directory in this one, empty. What cannot be removed of an agent before this one keeps nobody from starting.
    fn subdirectory(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        let failed = |error: io::Error| Error::Directory(path.clone(), error);
        tree::clear(&path).map_err(failed)?;
        DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(path)
    }

    /// Removes what the agent made. The directory itself stays if others put something into it, if something in it cannot be
    /// removed, or if it is a mount point.
    fn remove(self) -> Result<(), Error> {
        for name in ["blobs", "jobs"] {
            let path = self.path.join(name);
            if let Err(error) = tree::remove(&path) {
                tracing::error!(path = %path.display(), %error, "cannot remove all of a directory");
            }
        }
        tree::retry(&self.path);
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

/// The controllers that may come in: a file with a fingerprint a line, read at each handshake and call, so that an edit counts
/// at once. No file means nobody.
#[derive(Debug)]
pub struct AuthorizedFile(PathBuf);

impl Authorized for AuthorizedFile {
    fn is_authorized(&self, fingerprint: &Fingerprint) -> bool {
        match read_authorized(&self.0) {
            Ok(known) => known.contains(fingerprint),
            Err(error) => {
                tracing::warn!(path = %self.0.display(), %error, "cannot read who is authorized");
                false
            }
        }
    }
}

impl AuthorizedFile {
    /// What the list calls a key, for the log; nothing if it is not there or has no name.
    pub fn name(&self, fingerprint: &Fingerprint) -> Option<String> {
        let text = fs::read_to_string(&self.0).ok()?;
        let is_key =
            |line: &&str| line.split_whitespace().next().is_some_and(|word| word.parse() == Ok(*fingerprint));
        let line = text.lines().find(is_key)?;
        line.trim().split_once(char::is_whitespace).map(|(_, name)| name.trim().to_owned())
    }
}

fn read_authorized(path: &Path) -> io::Result<Vec<Fingerprint>> {
    let text = fs::read_to_string(path)?;
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_authorized_file_is_read_line_by_line_and_edits_count_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("authorized");
        let (one, two) = (format!("SHA256:{}", "1".repeat(64)), format!("SHA256:{}", "2".repeat(64)));
        let file = AuthorizedFile(path.clone());
        let knows = |text: &str| file.is_authorized(&text.parse().unwrap());
        assert!(!knows(&one), "no file, nobody");
        fs::write(&path, format!("# my desk\n{one} me@desk\nnonsense\n")).unwrap();
        assert!(knows(&one) && !knows(&two));
        fs::write(&path, format!("{two}\n")).unwrap();
        assert!(!knows(&one) && knows(&two));
    }

    #[test]
    fn two_agents_do_not_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hop");
        let first = Directory::take(path.clone()).unwrap();
        assert!(matches!(Directory::take(path.clone()), Err(Error::DirectoryTaken(_))));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        first.subdirectory("blobs").unwrap();
        first.subdirectory("jobs").unwrap();
        fs::write(path.join("blobs/upload-1"), "left by an agent that is gone").unwrap();
        assert_eq!(fs::read_dir(first.subdirectory("blobs").unwrap()).unwrap().count(), 0);
        first.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_others_can_enter_or_point_elsewhere_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (open, link) = (dir.path().join("open"), dir.path().join("link"));
        DirBuilder::new().mode(0o755).create(&open).unwrap();
        assert!(matches!(Directory::take(open.clone()), Err(Error::DirectoryOpen(_))));
        assert_eq!(fs::metadata(&open).unwrap().mode() & 0o777, 0o755, "and it stays as it is");
        std::os::unix::fs::symlink(&open, &link).unwrap();
        assert!(matches!(Directory::take(link), Err(Error::Directory(..))));
    }
}
