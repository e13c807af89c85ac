//! Accepts connections: reads the ClientHello, completes the TLS handshake, and serves the calls of an authorized
//! controller.
//!
//! **Invariants:** the agent never stops accepting while it serves. [`ConnectionLimits`] bounds the resources of all
//! peers that have not proved an authorized key, and each of them holds its share for [`HANDSHAKE_TIMEOUT`],
//! [`REJECT_DRAIN_TIMEOUT`] and [`REJECT_BACKOFF`] at most. A controller beyond the limit of connections holds its share
//! for [`REFUSAL_TIMEOUT`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hop_proto::identity::Fingerprint;
use hop_proto::tls::Authorized;
use rustls::server::{Accepted, AcceptedAlert};
use rustls::{CertificateError, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::access::authorized_keys::AuthorizedKeys;
use crate::access::refusal_log::{self, RefusalLog};
use crate::job;
use crate::job::job_log::Controller;
use crate::job::registry::JobRegistry;
use crate::service::ConnectionService;
use crate::service::error::Error;
use crate::service::receive_budget::{ConnectionBudget, ReceiveBudget};
use crate::system::runtime;
use crate::transport::connection_limits::{ConnectionLimits, PendingPeer};
use crate::transport::http2::{self, Windows};
use crate::transport::listener::Listener;
use crate::transport::revocation::Revocation;

/// Time for a whole ClientHello, which a controller sends in its first packet with data.
const CLIENT_HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for the whole TLS handshake, including the wait for its turn. A 400 MHz MIPS takes 0.02 s for it; the rest is
/// for the link.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a ClientHello. That of a controller has 250, that of a browser 2,000.
const MAX_CLIENT_HELLO_BYTES: usize = 4096;

/// Time for a controller beyond the limit of connections to make its first call and read why it was refused: as long as its
/// handshake, because this happens when many come at once.
const REFUSAL_TIMEOUT: Duration = HANDSHAKE_TIMEOUT;

/// Bytes that the agent still reads from a refused peer, and the time that this peer has to read why it was refused.
const REJECT_DRAIN_BYTES: usize = 64 * 1024;
const REJECT_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a failed handshake keeps occupying its slot, so that strangers cannot keep the CPU busy.
pub const REJECT_BACKOFF: Duration = Duration::from_secs(1);

/// How long to wait when the kernel has no file descriptor or memory for a connection.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Windows for a controller beyond the limit of connections: enough for its first call, which the agent answers with
/// the reason.
const REFUSED_WINDOWS: Windows = Windows { stream: 16 * 1024, connection: 16 * 1024 };

/// How long a stopping agent waits for its last responses to be sent.
const SHUTDOWN_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Calls at a time on one connection: one for each possible job, and some `GetInfo` in addition.
const MAX_CALLS: u32 = 16;

/// Bytes that a controller may send ahead on one call, and on all calls of a connection. 128 KiB keep a link with a
/// delay of 20 ms busy at 6 MB/s, which is faster than a router's CPU processes them.
const WINDOWS: Windows = Windows { stream: 128 * 1024, connection: 256 * 1024 };

/// Accepts peers, and gives authorized ones access to the jobs.
pub struct Acceptor {
    tls: Arc<ServerConfig>,
    authorized: Arc<AuthorizedKeys>,
    jobs: Arc<JobRegistry>,
    revocation: Arc<Revocation>,
    /// The listening address, to show to users.
    place: Arc<str>,
    limits: Arc<ConnectionLimits>,
    budget: Arc<ReceiveBudget>,
    refusals: Arc<RefusalLog>,
    /// Cancelled to close all connections as soon as their pending responses are sent.
    closing: CancellationToken,
}

/// A peer that the agent refuses.
struct Refused {
    why: String,
    /// The connection, if the agent can still send on it.
    connection: Option<TcpStream>,
    /// The peer has got as far as the handshake, which takes CPU time.
    is_costly: bool,
}

impl Acceptor {
    /// Gives `authorized` controllers access to `jobs` over TLS with the configuration `tls`, until `revocation`
    /// revokes it. `place` describes the listening address in `GetInfo`.
    pub fn new(
        tls: ServerConfig,
        authorized: Arc<AuthorizedKeys>,
        jobs: Arc<JobRegistry>,
        revocation: Arc<Revocation>,
        place: String,
    ) -> Self {
        let refusals = Arc::<RefusalLog>::default();
        Self {
            tls: Arc::new(tls),
            authorized,
            jobs,
            revocation,
            place: place.into(),
            limits: Arc::new(ConnectionLimits::new(refusals.clone())),
            budget: Arc::default(),
            refusals,
            closing: CancellationToken::new(),
        }
    }

    /// Accepts connections forever.
    pub async fn accept(self: &Arc<Self>, mut listener: Listener) {
        let mut told: Option<Instant> = None;
        loop {
            match listener.accept().await {
                Ok((connection, address)) => {
                    let acceptor = self.clone();
                    self.limits.admit(address, |place| {
                        let serve = acceptor.serve(connection, address, place);
                        Some(runtime::spawn(serve).abort_handle())
                    });
                    // Lets the task read what the peer has sent already, before the next peer can displace it.
                    tokio::task::yield_now().await;
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    if told.is_none_or(|told| told.elapsed() >= refusal_log::INTERVAL) {
                        tracing::warn!(%error, "cannot accept; this is logged once a minute");
                        told = Some(Instant::now());
                    }
                    self.limits.shed();
                    tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
                }
            }
        }
    }

    /// Closes all connections when their pending responses are sent, or after [`SHUTDOWN_DRAIN_TIMEOUT`].
    pub async fn close(&self) {
        self.closing.cancel();
        // On a timeout, a peer that reads too slowly does not get the rest.
        let _ = timeout(SHUTDOWN_DRAIN_TIMEOUT, self.limits.disconnected()).await;
    }

    async fn serve(self: Arc<Self>, mut connection: TcpStream, address: SocketAddr, place: PendingPeer) {
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        let refused = match timeout(CLIENT_HELLO_TIMEOUT, client_hello(&mut connection)).await {
            Ok(Ok(accepted)) => {
                let start = StartHandshake::from_parts(accepted, connection);
                // Boxed, so that a silent peer does not take the memory of a served connection.
                match Box::pin(self.handshake(start, deadline, &place)).await {
                    Ok((connection, key)) => {
                        return Box::pin(self.serve_calls(connection, key, address, place)).await;
                    }
                    Err(refused) => refused,
                }
            }
            Ok(Err(why)) => Refused { why, connection: Some(connection), is_costly: false },
            Err(_) => Refused {
                why: "its ClientHello took too long".to_owned(),
                connection: None,
                is_costly: false,
            },
        };
        self.refusals.record(address, &refused.why);
        let backoff = if refused.is_costly { REJECT_BACKOFF } else { Duration::ZERO };
        tokio::join!(tokio::time::sleep(backoff), async {
            if let Some(connection) = refused.connection {
                drain_rejected(connection).await;
            }
        });
    }

    /// Completes the TLS handshake, when its turn has come.
    async fn handshake(
        &self,
        start: StartHandshake<TcpStream>,
        deadline: Instant,
        place: &PendingPeer,
    ) -> Result<(TlsStream<TcpStream>, Fingerprint), Refused> {
        let too_long = || Refused {
            why: "its TLS handshake took too long".to_owned(),
            connection: None,
            is_costly: true,
        };
        timeout_at(deadline, place.handshake_turn()).await.map_err(|_| too_long())?;
        let handshake = start.into_stream(self.tls.clone()).into_fallible();
        let shaken = timeout_at(deadline, handshake).await.map_err(|_| too_long())?;
        let connection = shaken.map_err(|(error, connection)| Refused {
            why: why_refused(&error).unwrap_or_else(|| error.to_string()),
            connection: Some(connection),
            is_costly: true,
        })?;
        let key = connection.get_ref().1.peer_certificates().and_then(|keys| keys.first());
        let Some(key) = key.map(|key| Fingerprint::of(key)) else {
            return Err(Refused { why: NO_KEY.to_owned(), connection: None, is_costly: true });
        };
        Ok((connection, key))
    }

    /// Serves the calls of a controller, or answers them with the reason for its refusal.
    async fn serve_calls(
        &self,
        connection: TlsStream<TcpStream>,
        key: Fingerprint,
        address: SocketAddr,
        place: PendingPeer,
    ) {
        // A program's output is small, and its reader waits for it. Without this option, the socket is only slower.
        let _ = connection.get_ref().0.set_nodelay(true);
        let (connected, why_not) = match self.limits.connect(key) {
            Ok(connected) => (Some((connected, drop(place))), None),
            Err(error) => (None, Some(error)),
        };
        let refusal = why_not.map(|why| Error::from(why).to_string());
        let windows = if why_not.is_none() { WINDOWS } else { REFUSED_WINDOWS };
        let authorized = self.authorized.clone();
        let admission = Arc::new(move || match (why_not, authorized.is_authorized(&key)) {
            (_, false) => Err(job::error::Error::NotAuthorized.into()),
            (Some(why), true) => Err(why.into()),
            (None, true) => Ok(()),
        });
        let budget = Arc::new(ConnectionBudget::new(self.budget.clone()));
        let controller = Controller { key, name: self.authorized.name(&key), address };
        let service = ConnectionService::new(
            self.jobs.clone(),
            self.authorized.clone(),
            self.place.clone(),
            controller,
            admission,
            budget,
        );
        let served = http2::serve(connection, service, windows, MAX_CALLS, self.closing.clone());
        if let Some(why) = refusal {
            self.refusals.record(address, &why);
            // The controller disconnects when it has got the reason; otherwise the timeout closes the connection.
            let _ = timeout(REFUSAL_TIMEOUT, served).await;
        } else {
            tokio::select! {
                served = served => {
                    if let Err(error) = served {
                        tracing::warn!(peer = %address, %error, "connection ended");
                    }
                }
                () = self.revocation.of(key) => {
                    tracing::info!(peer = %address, %key, "connection closed: its key was removed from the list");
                }
            }
        }
        drop(connected);
    }
}

/// True if the connection broke before the agent accepted it (accept(2)), which is not an error of the router.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
}

/// Reads a ClientHello of at most [`MAX_CLIENT_HELLO_BYTES`].
///
/// # Errors
/// Why it is not valid, of which the peer has got an alert.
async fn client_hello(connection: &mut TcpStream) -> Result<Accepted, String> {
    // Allocates nothing for a peer that sends nothing.
    connection.readable().await.map_err(|error| error.to_string())?;
    let mut acceptor = rustls::server::Acceptor::default();
    let (mut piece, mut left) = ([0; 512], MAX_CLIENT_HELLO_BYTES);
    while left > 0 {
        let limit = left.min(piece.len());
        let count = connection.read(&mut piece[..limit]).await.map_err(|error| error.to_string())?;
        if count == 0 {
            return Err("it disconnected before it had sent a whole ClientHello".to_owned());
        }
        left -= count;
        let mut said = &piece[..count];
        while !said.is_empty() {
            acceptor.read_tls(&mut said).map_err(|error| error.to_string())?;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(accepted),
            Ok(None) => {}
            Err((error, alert)) => {
                send_alert(connection, alert).await;
                return Err(of_tls(&error).unwrap_or_else(|| NOT_TLS.to_owned()));
            }
        }
    }
    Err("its ClientHello is longer than 4 KiB".to_owned())
}

/// Sends an alert. It has a few bytes, which fit into the send buffer of a new socket.
async fn send_alert(connection: &mut TcpStream, mut alert: AcceptedAlert) {
    let mut said = Vec::new();
    if alert.write_all(&mut said).is_ok() {
        // Fails if the peer is gone.
        let _ = connection.write_all(&said).await;
    }
}

const NO_KEY: &str = "the peer shows no key";
const NOT_TLS: &str = "the peer does not speak TLS";

/// Describes why the handshake failed, for errors that the library formats with `{:?}`, which writes nothing on a
/// router.
fn why_refused(error: &io::Error) -> Option<String> {
    of_tls(error.get_ref()?.downcast_ref()?)
}

fn of_tls(error: &rustls::Error) -> Option<String> {
    let why = match error {
        rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
            "the peer's key is not authorized"
        }
        rustls::Error::InvalidCertificate(_) => "the peer does not have the key that it shows",
        rustls::Error::NoCertificatesPresented => NO_KEY,
        rustls::Error::PeerIncompatible(_) => {
            "the peer does not speak TLS 1.3 with X25519, ChaCha20-Poly1305 and raw public keys of Ed25519"
        }
        rustls::Error::AlertReceived(alert) => {
            return Some(format!("the peer ends the handshake with alert {}", u8::from(*alert)));
        }
        rustls::Error::InvalidMessage(_)
        | rustls::Error::InappropriateMessage { .. }
        | rustls::Error::InappropriateHandshakeMessage { .. }
        | rustls::Error::PeerMisbehaved(_) => NOT_TLS,
        _ => return None,
    };
    Some(why.to_owned())
}

/// Lets a refused peer read the alert. Closing a socket with unread data resets the connection, and the reset overtakes
/// the alert (RFC 1122, section 4.2.2.13); so the agent first reads what the peer has already sent, within bounds.
async fn drain_rejected(mut connection: TcpStream) {
    let draining = async {
        connection.shutdown().await?;
        let (mut sent, mut left) = ([0; 1024], REJECT_DRAIN_BYTES);
        while left > 0 {
            match connection.read(&mut sent).await? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        io::Result::Ok(())
    };
    // Even if this fails, the peer is refused.
    let _ = timeout(REJECT_DRAIN_TIMEOUT, draining).await;
}
