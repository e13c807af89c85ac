//! Listens, authenticates, serves, and ends in order.
//!
//! What must stay true: a peer that is not authorized, or for which there is no place, costs at most one of
//! [`MAX_HANDSHAKES`] places, for at most [`HANDSHAKE_LIMIT`], [`PARTING_LIMIT`] and [`PENALTY`].

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hop_proto::identity::Fingerprint;
use hop_proto::tls::{self, Authorized, CurrentIdentity};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustls::CertificateError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::authorized_keys::AuthorizedKeys;
use crate::board::Board;
use crate::cgroup::Cgroups;
use crate::child;
use crate::cipher;
use crate::core_file;
use crate::error;
use crate::family::{self, Family};
use crate::http2::{self, Windows};
use crate::job;
use crate::jobs::Jobs;
use crate::key_file::{self, KeyFile};
use crate::listener::Listener;
use crate::memory;
use crate::options::Options;
use crate::pid_file::{self, PidFile};
use crate::revocation::Revocation;
use crate::service::Service;
use crate::shelf::Shelf;
use crate::store::Store;
use crate::task;
use crate::tree;

/// Connections of authorized controllers at a time. Each costs up to 400 kB while it carries data, its HTTP/2 windows
/// and the buffers of TLS; and for each of its calls, what its messages are decoded from, one of at most 2 MiB, and some 100 kB of
/// answers that its controller does not take.
const MAX_CONNECTIONS: u32 = 16;

/// Peers that are not authorized yet at a time, apart from those that are: strangers take nothing from a controller that
/// is in. One costs 40 kB, the buffers of TLS.
const MAX_HANDSHAKES: usize = 8;

/// Time for TLS. A 400 MHz MIPS needs 0.02 s of its own for it; the rest is for the link.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// The agent's own nice value: it must come to its turn also when a program has started a thousand processes, because who else
/// would end them? It uses the CPU when a program is sent or writes, and hardly at all otherwise.
const NICE: i32 = -10;

/// How much of a refused peer is still read, and for how long it or a controller that finds no place is spoken to.
const PARTING_BYTES: usize = 64 * 1024;
const PARTING_LIMIT: Duration = Duration::from_secs(2);

/// How long a refused peer's place stays taken after it: eight strangers a second cost such a CPU a sixth of its time at most.
const PENALTY: Duration = Duration::from_secs(1);

/// What a controller that finds no place may send ahead: its first question, which is answered by why there is no place.
const REFUSED_WINDOWS: Windows = Windows { stream: 16 * 1024, connection: 16 * 1024 };

/// How long an agent that stops waits until its last words are sent.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);

/// Calls at a time on one connection: as many as there can be jobs, and some `Info` beside them.
const MAX_CALLS: u32 = 16;

/// Bytes that a controller may send ahead on one call, and on all calls of a connection. 128 KiB keep a link with 20 ms
/// of delay busy at 6 MB/s, faster than such a CPU takes them.
const WINDOWS: Windows = Windows { stream: 128 * 1024, connection: 256 * 1024 };

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
    Key(#[from] key_file::Error),
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

async fn serve(options: Options) -> Result<(), Error> {
    let directory = Directory::take(options.directory)?;
    let pid_file = options.pid_file.as_deref().map(PidFile::write).transpose()?;
    let key = Arc::new(KeyFile::open(options.key)?);
    let fingerprint = key.current().fingerprint();
    let authorized = Arc::new(AuthorizedKeys::new(options.authorized));
    let config = tls::server_config_with(key, authorized.clone(), cipher::CIPHER_SUITE)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let store = Store::new(directory.subdirectory("blobs")?, options.quota);
    let shelf = options.shelf.map(Shelf::new);
    let cgroups = Cgroups::find(&directory.lock.metadata()?);
    directory.end_former_jobs(cgroups.as_ref());
    core_file::remove_former(&directory.path.join("jobs"));
    let family = Family::adopt(cgroups);
    memory::be_spared();
    child::set_nice(NICE);
    let jobs = Arc::new(Jobs::new(store, shelf, family, directory.subdirectory("jobs")?, options.launcher));
    let listener = Listener::bind(options.listen, options.interface.as_deref());
    let listener = listener.await.map_err(|error| Error::Listen(options.listen, error))?;
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let [terminate, interrupt, hangup] = &mut ends;
    announce(&listener, fingerprint)?;

    let revocation = Revocation::start(authorized.clone(), jobs.clone());
    let (closing, seats, place) = (Arc::default(), Seats::default(), listener.describe().into());
    let doors = Arc::new(Doors { acceptor, authorized, jobs, revocation, place, closing, seats });
    tokio::select! {
        () = doors.accept(listener) => {}
        () = received(terminate) => {}
        () = received(interrupt) => {}
        () = received(hangup) => {}
    }
    tracing::info!("stopping");
    doors.jobs.stop().await;
    doors.close().await;
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
fn announce(listener: &Listener, fingerprint: Fingerprint) -> Result<(), Error> {
    let address = listener.local_addr();
    let mut stdout = io::stdout().lock();
    // Whoever started the agent may be gone when a supervisor starts it again, and that is no reason not to serve.
    let _ = writeln!(stdout, "{{\"address\":\"{address}\",\"fingerprint\":\"{fingerprint}\"}}")
        .and_then(|()| stdout.flush());
    let place = listener.describe();
    tracing::info!(%address, place, %fingerprint, version = env!("CARGO_PKG_VERSION"), "listening");
    Ok(())
}

type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

/// Where peers come in, and what they get to.
struct Doors {
    acceptor: TlsAcceptor,
    authorized: Arc<AuthorizedKeys>,
    jobs: Arc<Jobs>,
    revocation: Arc<Revocation>,
    /// Where it listens, for people.
    place: Arc<str>,
    /// True when connections shall end as soon as what is under way is sent.
    closing: Arc<Board<bool>>,
    seats: Seats,
}

struct Seats {
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl Default for Seats {
    fn default() -> Self {
        Self {
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS as usize)),
        }
    }
}

impl Doors {
    async fn accept(self: &Arc<Self>, mut listener: Listener) {
        loop {
            // Further peers wait in the kernel's backlog, where they cost the agent nothing.
            let Ok(handshake) = self.seats.handshakes.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((connection, peer)) => {
                    let doors = self.clone();
                    task::spawn(async move {
                        if let Err(error) = doors.serve(connection, handshake).await {
                            tracing::warn!(%peer, %error, "connection ended");
                        }
                    });
                }
                // Out of file descriptors or memory: some connection must end first.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve(
        self: Arc<Self>,
        connection: TcpStream,
        handshake: OwnedSemaphorePermit,
    ) -> Result<(), ConnectionError> {
        // Output of a program is small and wanted now.
        connection.set_nodelay(true)?;
        let connection = self.authenticate(connection).await?;
        let peer = connection.get_ref().1.peer_certificates().and_then(|keys| keys.first());
        let peer = Fingerprint::of(peer.ok_or("the controller has no key")?);
        let seat = self.seats.connections.clone().try_acquire_owned().ok();
        let (has_seat, authorized) = (seat.is_some(), self.authorized.clone());
        let no_seat = || error::Error::TooManyConnections { limit: MAX_CONNECTIONS };
        let admission = Arc::new(move || match authorized.is_authorized(&peer) {
            _ if !has_seat => Err(no_seat()),
            true => Ok(()),
            false => Err(error::Error::NotAuthorized),
        });
        let service =
            Service::new(self.jobs.clone(), self.authorized.clone(), self.place.clone(), peer, admission);
        let windows = if has_seat { WINDOWS } else { REFUSED_WINDOWS };
        let served = http2::serve(connection, service, windows, MAX_CALLS, self.closing.clone());
        let Some(_seat) = seat else {
            // It goes when it has heard why; if it does not, it is closed.
            let _ = tokio::time::timeout(PARTING_LIMIT, served).await;
            return Err(no_seat().into());
        };
        drop(handshake);
        tokio::select! {
            served = served => Ok(served?),
            () = self.revocation.of(peer) => Err("its key was taken off the list of who may connect".into()),
        }
    }

    async fn authenticate(&self, connection: TcpStream) -> Result<TlsStream<TcpStream>, ConnectionError> {
        let handshake = self.acceptor.accept(connection).into_fallible();
        match tokio::time::timeout(HANDSHAKE_LIMIT, handshake).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err((error, connection))) => {
                part(connection).await;
                tokio::time::sleep(PENALTY).await;
                Err(why_refused(&error).map_or_else(|| error.into(), Into::into))
            }
            Err(_) => Err("the TLS handshake took too long".into()),
        }
    }

    /// Ends all connections when what is under way on them is sent, or after [`FAREWELL_LIMIT`].
    async fn close(&self) {
        self.closing.change(|closing| *closing = true);
        let all = self.seats.connections.acquire_many(MAX_CONNECTIONS);
        // A peer that does not read in time does not get the rest.
        let _ = tokio::time::timeout(FAREWELL_LIMIT, all).await;
    }
}

/// Why there is no TLS with a peer, where the library would say it by `{:?}`, which writes nothing on a router.
fn why_refused(error: &io::Error) -> Option<String> {
    let why = match error.get_ref()?.downcast_ref()? {
        rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
            "the peer's key is not authorized"
        }
        rustls::Error::InvalidCertificate(_) => "the peer does not have the key that it shows",
        rustls::Error::NoCertificatesPresented => "the peer shows no key",
        rustls::Error::PeerIncompatible(_) => {
            "the peer does not speak TLS 1.3 with X25519, ChaCha20-Poly1305 and raw public keys of Ed25519"
        }
        rustls::Error::AlertReceived(alert) => {
            return Some(format!("the peer ends the handshake with alert {}", u8::from(*alert)));
        }
        rustls::Error::InvalidMessage(_)
        | rustls::Error::InappropriateMessage { .. }
        | rustls::Error::InappropriateHandshakeMessage { .. }
        | rustls::Error::PeerMisbehaved(_) => "what the peer says is not TLS",
        _ => return None,
    };
    Some(why.to_owned())
}

/// Lets a refused peer read why. To close a socket that has unread data resets it, and a reset overtakes the alert
/// (RFC 1122, section 4.2.2.13); so what the peer had already sent is read first, within bounds.
async fn part(mut connection: TcpStream) {
    let parting = async {
        connection.shutdown().await?;
        let (mut sent, mut left) = ([0; 1024], PARTING_BYTES);
        while left > 0 {
            match connection.read(&mut sent).await? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        io::Result::Ok(())
    };
    // Whatever goes wrong here, the peer is refused all the same.
    let _ = tokio::time::timeout(PARTING_LIMIT, parting).await;
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

    /// A directory in this one, empty.
    fn subdirectory(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        let failed = |error: io::Error| Error::Directory(path.clone(), error);
        tree::remove(&path).map_err(failed)?;
        DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(path)
    }

    /// Removes what the agent made. The directory itself stays if others put something into it, or if it is a mount
    /// point.
    fn remove(self) -> Result<(), Error> {
        for name in ["blobs", "jobs"] {
            let path = self.path.join(name);
            tree::remove(&path).map_err(|error| Error::Directory(path, error))?;
        }
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
