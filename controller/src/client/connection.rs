//! A connection to an agent: TCP, TLS with the pinned key, HTTP/2, and the first request.
//!
//! **Invariants:** nothing is sent to a router before it has proved its key; an error names the real cause, for which the connection
//! keeps its own last error beside the call that it broke.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hop_proto::identity::{Fingerprint, Identity};
use hop_proto::limits::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAX_REPLY_BYTES};
use hop_proto::tls;
use hop_proto::v1::agent_service_client::AgentServiceClient;
use hop_proto::v1::{GetInfoRequest, GetInfoResponse};
use http::Uri;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{AlertDescription, CertificateError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;

use super::Error;
use super::failure;
use super::observed::Observed;
use super::transport::Transport;
use crate::config::enrolment::{EnrolmentRecord, Persistence};
use crate::config::inventory::Router;
use crate::console::printable::printable;

/// How long to wait for an agent unless told otherwise: what ssh's users wait before they press Ctrl-C.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that the agent may send ahead: both outputs' windows and the framing around them, so that what the agent may
/// send by [`OutputAck`](hop_proto::v1::OutputAck) never waits for HTTP/2.
pub(crate) const WINDOW: u32 = 2 * 1024 * 1024;

/// How long to wait for the reason why a connection broke, after a call on it failed.
const DIAGNOSIS_TIMEOUT: Duration = Duration::from_secs(1);

/// Time limit for sending the last messages before the connection closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection to an agent that has answered.
pub struct Connection {
    router: String,
    address: String,
    pinned: Fingerprint,
    own: Fingerprint,
    client: AgentServiceClient<Channel>,
    connection: JoinHandle<hyper::Result<()>>,
    refusal: Refusal,
    is_kept: bool,
}

/// How many milliseconds to wait before another attempt when a connection was closed in its handshake: an agent to which too many want
/// drops some of them at random, and the next attempt has another chance.
const DROPPED_BACKOFF_MS: [u64; 4] = [100, 200, 400, 800];

/// The error of TLS when it broke.
type Refusal = Arc<OnceLock<rustls::Error>>;

impl Connection {
    /// Connects and asks for [`GetInfoResponse`], all within `timeout`.
    ///
    /// # Errors
    /// Everything that can be wrong between here and an agent that knows this controller.
    pub async fn open(
        router: &Router,
        identity: &Identity,
        timeout: Duration,
    ) -> Result<(Self, GetInfoResponse), Error> {
        within(timeout, router, Self::open_without_timeout(router, identity)).await
    }

    /// Connects and asks for [`GetInfoResponse`], without a time limit.
    ///
    /// # Errors
    /// Everything that [`Connection::open`] reports, but [`Error::NoAnswer`].
    pub(crate) async fn open_without_timeout(
        router: &Router,
        identity: &Identity,
    ) -> Result<(Self, GetInfoResponse), Error> {
        let (stream, refusal) = secure(router, identity).await?;
        let mut connection = Self::over(router, identity, stream, refusal).await?;
        let info = connection.info().await?;
        Ok((connection, info))
    }

    /// Speaks to an agent whose router has proved its key: to this process, or to the one whose stream this is.
    ///
    /// # Errors
    /// The peer does not speak HTTP/2, or closed the connection.
    pub(crate) async fn over(
        router: &Router,
        identity: &Identity,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        refusal: Refusal,
    ) -> Result<Self, Error> {
        let address = router.entry.address.clone();
        let (sender, connection) = http2()
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Error::NotAnAgent { address: address.clone(), source: error.into() })?;
        let client =
            AgentServiceClient::with_origin(Channel(sender), Uri::from_static("https://hop.invalid"))
                .max_decoding_message_size(MAX_REPLY_BYTES);
        Ok(Self {
            router: router.name.clone(),
            address,
            pinned: router.entry.fingerprint,
            own: identity.fingerprint(),
            client,
            connection: tokio::spawn(connection),
            refusal,
            is_kept: false,
        })
    }

    /// The same, of a connection that another process keeps.
    pub(crate) fn kept(self) -> Self {
        Self { is_kept: true, ..self }
    }

    /// True if another process keeps the connection, which stays up while this one does nothing.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Calls `GetInfo`.
    ///
    /// # Errors
    /// The call failed: [`Connection::explain`] tells why.
    pub async fn info(&mut self) -> Result<GetInfoResponse, Error> {
        match self.client.get_info(GetInfoRequest {}).await {
            Ok(reply) => Ok(reply.into_inner()),
            Err(status) => Err(self.explain(status).await),
        }
    }

    /// The router's name, for messages.
    pub fn router(&self) -> &str {
        &self.router
    }

    /// The calls of the agent.
    pub fn client(&mut self) -> &mut AgentServiceClient<Channel> {
        &mut self.client
    }

    /// The cause of a failed call: the agent's own refusal, or the error that broke the connection under it.
    pub async fn explain(&mut self, status: Status) -> Error {
        let router = self.router.clone();
        if let Some(failure) = failure::of(&status) {
            let message = printable(status.message()).into_owned();
            return Error::Refused { router, reason: failure.reason(), message };
        }
        if let Some(what) = broken_rule(&status) {
            return Error::Protocol { router, what };
        }
        if status.code() == tonic::Code::Unimplemented {
            return Error::Incompatible { router };
        }
        match tokio::time::timeout(DIAGNOSIS_TIMEOUT, &mut self.connection).await {
            Ok(Ok(Err(error))) => match self.refusal.get() {
                Some(rustls::Error::AlertReceived(AlertDescription::AccessDenied)) => {
                    Error::NotAuthorized { router, own: self.own }
                }
                Some(refusal) => {
                    Error::NotAnAgent { address: self.address.clone(), source: refusal.clone().into() }
                }
                None => Error::Lost { router, source: Some(error.into()) },
            },
            _ => Error::Lost { router, source: Some(status.into()) },
        }
    }

    /// Lets what was sent leave, and ends the connection. Calls on it must be over, or they hold it open.
    pub async fn close(self) {
        drop(self.client);
        // One that has ended has been looked at by `explain`, and may not be looked at again.
        if !self.connection.is_finished() {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.connection).await;
        }
    }

    /// Where it was reached.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The key that the router has proved.
    pub fn fingerprint(&self) -> Fingerprint {
        self.pinned
    }
}

/// Text by which tonic reports a message that it could not read; tonic has no other sign for that.
fn broken_rule(status: &Status) -> Option<&'static str> {
    match status.code() {
        tonic::Code::OutOfRange => Some("a message that is longer than any may be"),
        tonic::Code::Internal if status.message().starts_with("failed to decode Protobuf message") => {
            Some("a message that is none")
        }
        _ => None,
    }
}

/// HTTP/2 settings of a connection to an agent.
pub(crate) fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    builder
}

/// Does something that ends in time, or is [`Error::NoAnswer`].
pub(crate) async fn within<T>(
    time: Duration,
    router: &Router,
    opening: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(time, opening).await.unwrap_or_else(|_| {
        Err(Error::NoAnswer {
            router: router.name.clone(),
            address: router.entry.address.clone(),
            after: time,
        })
    })
}

/// How long an installed agent may take that is started again: procd waits 5 s, a supervisor 1 s, and then it must listen.
const RESTART_TIMEOUT: Duration = Duration::from_secs(8);

/// Between two attempts meanwhile.
const RESTART_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Does it again, for [`RESTART_TIMEOUT`] and no longer than `connect_timeout`, while nobody listens on a router whose firmware starts
/// an agent that has ended. `waiting` is called once if that is so.
///
/// # Errors
/// The last attempt's.
pub(crate) async fn outlasting_restart<T>(
    router: &Router,
    connect_timeout: Duration,
    waiting: impl FnOnce(),
    mut attempt: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let deadline = Instant::now() + connect_timeout.min(RESTART_TIMEOUT);
    let mut waiting = Some(waiting);
    loop {
        match attempt().await {
            Err(error)
                if may_be_restarting(router, &error) && Instant::now() + RESTART_POLL_INTERVAL < deadline =>
            {
                if let Some(waiting) = waiting.take() {
                    waiting();
                }
                tokio::time::sleep(RESTART_POLL_INTERVAL).await;
            }
            result => return result,
        }
    }
}

/// True if the router answered that nobody listens, and an agent is installed there. Over ssh each attempt would be a login,
/// and perhaps a question to the user.
fn may_be_restarting(router: &Router, error: &Error) -> bool {
    let is_installed = router
        .entry
        .enrolment
        .as_ref()
        .is_some_and(|enrolment| enrolment.persistence == Persistence::Install && !enrolment.via_ssh);
    let is_refused =
        |source: &io::Error| source.kind() == io::ErrorKind::ConnectionRefused || is_nobody(source);
    is_installed && matches!(error, Error::Unreachable { source, .. } if is_refused(source))
}

/// Connects, and has the router prove its key.
///
/// # Errors
/// Nobody answers, or not this router.
pub(crate) async fn secure(
    router: &Router,
    identity: &Identity,
) -> Result<(impl AsyncRead + AsyncWrite + Unpin + Send + 'static + use<>, Refusal), Error> {
    let address = &router.entry.address;
    let unreachable = |source| {
        let (router, address, enrolment) = (router.name.clone(), address.clone(), &router.entry.enrolment);
        match enrolment {
            Some(EnrolmentRecord { persistence: Persistence::UntilReboot, .. }) => {
                Error::AgentGone { router, address, source }
            }
            _ => Error::Unreachable { router, address, source },
        }
    };
    let pinned = router.entry.fingerprint;
    let config = tls::client_config(identity, router.entry.pinned())
        .map_err(|error| Error::NotAnAgent { address: address.clone(), source: error.into() })?;
    let connector = TlsConnector::from(Arc::new(config));
    let mut pauses = DROPPED_BACKOFF_MS.into_iter();
    let stream = loop {
        let (stream, last_words) = Transport::open(&router.entry).await.map_err(unreachable)?;
        // Another login by ssh is nothing that is tried again unasked.
        let is_tcp = matches!(stream, Transport::Tcp(_));
        let error = match connector.connect(tls::server_name(), stream).await {
            Ok(stream) => break stream,
            Err(error) => error,
        };
        if is_wrong_key(&error) {
            return Err(Error::WrongKey { router: router.name.clone(), address: address.clone(), pinned });
        }
        if is_tcp
            && is_nobody(&error)
            && let Some(pause) = pauses.next()
        {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            continue;
        }
        // ssh may have said why nothing came.
        return Err(match last_words.get().await {
            Some(said) => unreachable(io::Error::other(said)),
            None if is_nobody(&error) => unreachable(error),
            None => Error::NotAnAgent { address: address.clone(), source: error.into() },
        });
    };
    // TLS 1.3 lets a client believe that it is in before the server has looked at its key (RFC 8446, section 4.4.2.4), so a
    // refusal comes out of the first read; and h2 makes text of it.
    let refusal = Refusal::default();
    let told = refusal.clone();
    let remember = move |read: &io::Result<()>| {
        if let Some(refusal) = read.as_ref().err().and_then(tls_error) {
            // The first one is the reason; what follows is its consequence.
            let _ = told.set(refusal.clone());
        }
    };
    Ok((Observed::new(stream, remember), refusal))
}

/// True if the connection was closed without a word: a forwarded port behind which nobody listens.
fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn is_wrong_key(error: &io::Error) -> bool {
    let wrong = rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
    tls_error(error).is_some_and(|error| *error == wrong)
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// hyper's connection as the generated client wants it.
#[derive(Clone)]
pub struct Channel(SendRequest<Body>);

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::enrolment::Destination;
    use crate::config::inventory::Entry;

    fn router(persistence: Persistence, via_ssh: bool) -> Router {
        let ssh = Destination { host: "root@desk".into(), port: None, identity: None, options: Vec::new() };
        let enrolment = EnrolmentRecord {
            persistence,
            program: None,
            port: 4670,
            via_ssh,
            agent_address: None,
            cache_dir: None,
            listen_interface: None,
            next_fingerprint: None,
            asked: None,
            ssh,
        };
        let fingerprint = format!("SHA256:{}", "1".repeat(64)).parse().unwrap();
        let (address, goarch) = ("desk:4670".into(), "mips".into());
        let entry = Entry { address, fingerprint, goarch, enrolment: Some(enrolment), process: None };
        Router { name: "desk".into(), entry }
    }

    fn unreachable(kind: io::ErrorKind) -> Error {
        Error::Unreachable { router: "desk".into(), address: "desk:4670".into(), source: kind.into() }
    }

    /// Seconds until the agent was given up, attempts, and how often it was said that it is waited for.
    async fn tried(router: &Router, connect_timeout: u64, kind: io::ErrorKind) -> (u64, u32, u32) {
        let (start, mut attempts, mut said) = (Instant::now(), 0, 0);
        let attempt = async || {
            attempts += 1;
            Err::<(), _>(unreachable(kind))
        };
        let connect_timeout = Duration::from_secs(connect_timeout);
        outlasting_restart(router, connect_timeout, || said += 1, attempt).await.unwrap_err();
        (start.elapsed().as_secs(), attempts, said)
    }

    #[tokio::test(start_paused = true)]
    async fn installed_agent_may_be_restarting() {
        use io::ErrorKind::{ConnectionRefused, HostUnreachable};
        let installed = router(Persistence::Install, false);
        assert_eq!(tried(&installed, 10, ConnectionRefused).await, (7, 16, 1));
        assert_eq!(tried(&installed, 2, ConnectionRefused).await, (1, 4, 1));
        assert_eq!(tried(&installed, 10, HostUnreachable).await, (0, 1, 0));
        assert_eq!(tried(&router(Persistence::UntilReboot, false), 10, ConnectionRefused).await, (0, 1, 0));
        assert_eq!(tried(&router(Persistence::Install, true), 10, ConnectionRefused).await, (0, 1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn restarted_agent_is_reached() {
        let mut listens = [false, false, true].into_iter();
        let attempt = async || match listens.next() {
            Some(true) => Ok(()),
            _ => Err(unreachable(io::ErrorKind::ConnectionRefused)),
        };
        let router = router(Persistence::Install, false);
        outlasting_restart(&router, Duration::from_secs(10), || {}, attempt).await.unwrap();
        assert_eq!(listens.len(), 0);
    }
}
