//! Listens, authenticates, serves, and ends in order.
//!
//! Slim on purpose: hyper's HTTP/2 server under the generated service. tonic's own transport brings a router, HTTP/1 and
//! a second set of limits, 300 kB that no router needs. What must stay true: a peer that is not authorized costs at most
//! one connection slot, for at most [`HANDSHAKE_LIMIT`].

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hop_proto::identity::{self, Fingerprint, Identity};
use hop_proto::tls::{self, Authorized};
use hop_proto::v1::agent_server::AgentServer;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::fs::{FlockOperation, flock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use crate::job::Jobs;
use crate::options::Options;
use crate::service::{self, Service};
use crate::store::Store;

/// Connections at a time, those in their handshake included. A connection costs up to 400 kB: its HTTP/2 windows and
/// the buffers of TLS.
const MAX_CONNECTIONS: usize = 16;

/// Time for TLS. A 400 MHz MIPS needs 0.02 s of its own for it; the rest is for the link.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// How much of a refused peer is still read, and for how long.
const PARTING_BYTES: u64 = 64 * 1024;
const PARTING_LIMIT: Duration = Duration::from_secs(2);

/// Calls at a time on one connection: as many as there can be jobs, and some `Info` beside them.
const MAX_STREAMS: u32 = 16;

/// Bytes that a controller may send ahead on one call, and on all calls of a connection. 128 KiB keep a link with 20 ms
/// of delay busy at 6 MB/s, faster than such a CPU takes them.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// How long a connection may be silent before it is asked, and how long the answer may take.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);

/// What keeps the agent from serving.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The agent's directory cannot be used.
    #[error("cannot use the directory {}", .0.display())]
    Directory(PathBuf, #[source] io::Error),
    /// Two agents would remove each other's files.
    #[error("another hopd uses {}; give this one another --dir", .0.display())]
    DirectoryTaken(PathBuf),
    /// The store cannot be emptied.
    #[error(transparent)]
    Store(#[from] crate::error::Error),
    /// The agent has no key.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// The address is taken or not ours.
    #[error("cannot listen on {0}")]
    Listen(std::net::SocketAddr, #[source] io::Error),
    /// The runtime, a signal handler or standard output does not work.
    #[error("cannot start")]
    Start(#[from] io::Error),
}

/// Serves until SIGTERM or SIGINT, then ends all jobs and removes all files.
///
/// # Errors
/// The agent could not start. Once it serves, nothing makes it stop but a signal.
pub fn run(options: Options) -> Result<(), Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(options))
}

async fn serve(options: Options) -> Result<(), Error> {
    let directory = Directory::take(options.directory)?;
    let identity = Identity::load_or_create(&options.key)?;
    let authorized = Arc::new(AuthorizedFile(options.authorized));
    let acceptor = TlsAcceptor::from(Arc::new(tls::server_config(&identity, authorized)?));
    let store = Store::open(directory.subdirectory("blobs")?, options.quota)?;
    let jobs = Arc::new(Jobs::new(store, directory.subdirectory("jobs")?, options.launcher));
    let listener =
        TcpListener::bind(options.listen).await.map_err(|error| Error::Listen(options.listen, error))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    announce(&listener, identity.fingerprint())?;

    let service = service::new(jobs.clone());
    tokio::select! {
        () = accept(listener, acceptor, service) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    jobs.stop().await;
    directory.remove()
}

/// The one line on standard output, for whoever started the agent: that it serves, where, and as whom.
fn announce(listener: &TcpListener, fingerprint: Fingerprint) -> Result<(), Error> {
    let address = listener.local_addr()?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{{\"address\":\"{address}\",\"fingerprint\":\"{fingerprint}\"}}")?;
    stdout.flush()?;
    tracing::info!(%address, %fingerprint, version = env!("CARGO_PKG_VERSION"), "listening");
    Ok(())
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, service: AgentServer<Service>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Further peers wait in the kernel's backlog, where they cost the agent nothing.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((connection, peer)) => {
                let serving = serve_connection(connection, acceptor.clone(), service.clone(), slot);
                tokio::spawn(async move {
                    if let Err(error) = serving.await {
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

type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

async fn serve_connection(
    connection: TcpStream,
    acceptor: TlsAcceptor,
    service: AgentServer<Service>,
    _slot: OwnedSemaphorePermit,
) -> Result<(), ConnectionError> {
    // Output of a program is small and wanted now.
    connection.set_nodelay(true)?;
    let handshake = acceptor.accept(connection).into_fallible();
    let connection = match tokio::time::timeout(HANDSHAKE_LIMIT, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err((error, connection))) => {
            part(connection).await;
            return Err(error.into());
        }
        Err(_) => return Err("the TLS handshake took too long".into()),
    };
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_WINDOW as usize)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .serve_connection(TokioIo::new(connection), TowerToHyperService::new(service))
        .await?;
    Ok(())
}

/// Lets a refused peer read why. To close a socket that has unread data resets it, and a reset overtakes the alert
/// (RFC 1122, section 4.2.2.13); so what the peer had already sent is read first, within bounds.
async fn part(mut connection: TcpStream) {
    let parting = async {
        connection.shutdown().await?;
        tokio::io::copy(&mut connection.take(PARTING_BYTES), &mut tokio::io::sink()).await
    };
    // Whatever goes wrong here, the peer is refused all the same.
    let _ = tokio::time::timeout(PARTING_LIMIT, parting).await;
}

/// The agent's directory, which no other agent uses at the same time.
struct Directory {
    path: PathBuf,
    /// Open and locked as long as this agent lives; the kernel unlocks it however the agent ends.
    _lock: File,
}

impl Directory {
    fn take(path: PathBuf) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::Directory(path.clone(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        // /tmp is everybody's: a directory that was there before must be as closed as one that is made.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        let lock = File::open(&path).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::DirectoryTaken(path)),
            Err(error) => return Err(failed(error.into())),
        }
        Ok(Self { path, _lock: lock })
    }

    /// A directory in this one, empty.
    fn subdirectory(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        let failed = |error: io::Error| Error::Directory(path.clone(), error);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(path)
    }

    /// Removes what the agent made. The directory itself stays if others put something into it, or if it is a mount
    /// point.
    fn remove(self) -> Result<(), Error> {
        for name in ["blobs", "jobs"] {
            let path = self.path.join(name);
            fs::remove_dir_all(&path).map_err(|error| Error::Directory(path, error))?;
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

/// The controllers that may come in: a file with a fingerprint a line, read at each handshake, so that an edit counts
/// at once. No file means nobody.
#[derive(Debug)]
struct AuthorizedFile(PathBuf);

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
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        first.subdirectory("blobs").unwrap();
        first.subdirectory("jobs").unwrap();
        first.remove().unwrap();
        assert!(!path.exists());
    }
}
