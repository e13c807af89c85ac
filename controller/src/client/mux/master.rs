//! A connection master: the process that holds one connection to a router and shares it with commands.
//!
//! It speaks HTTP/2 on a socket and forwards each call unchanged: headers, bodies and trailers in both directions, and
//! resets; it decodes no message.
//!
//! **Invariants:** the master reads a piece of a body from one side only when the other side can take it, so that a
//! slow reader slows its own program and no other; when a command exits, the master resets its calls at once; when the
//! connection breaks, the master closes the connection of every command, and exits.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hop_proto::limits::{KEEPALIVE_INTERVAL, KEEPALIVE_LEISURE, KEEPALIVE_TIMEOUT};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::server::conn::http2 as server;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::process::setsid;
use rustix::stdio::{dup2_stdin, dup2_stdout};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tonic::body::Body;

use crate::client::Error;
use crate::client::connection::{self, WINDOW};
use crate::client::observed::Observed;
use crate::config::home::Home;
use crate::config::inventory::Inventory;

use super::control_socket::{ControlSocket, is_ours};
use super::{STOP_PATH, USERS};

/// Arguments of a master, from the command line by which another `hop` starts it.
#[derive(Debug)]
pub struct MuxArgs {
    /// The router to connect to.
    pub router: String,
    /// How long to keep an unused connection.
    pub persist: Duration,
    /// Time limit for connecting.
    pub connect_timeout: Duration,
}

/// Commands at a time, and calls at a time of one: together as many as an agent takes on one connection, so that none
/// waits for the end of another. Eight commands run as many jobs as an agent does; a ninth opens its own connection.
const MAX_COMMANDS: usize = 8;
const MAX_CALLS: u32 = 2;

/// Receive window of the connection to the agent: the windows of all calls together, so that a command that does not
/// read its call does not block the calls of others.
const CONNECTION_WINDOW: u32 = MAX_COMMANDS as u32 * MAX_CALLS * WINDOW;

/// Receive windows of one call and of all calls of a command, the same as an agent's; and bytes of a call that wait to
/// be written in either direction: four frames.
const STREAM_WINDOW: u32 = 128 * 1024;
const COMMAND_WINDOW: u32 = 256 * 1024;
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// How long an agent may say nothing at all. It asks after us when it has heard nothing for [`KEEPALIVE_INTERVAL`] and
/// [`KEEPALIVE_LEISURE`], so that we need not ask while no call needs an answer in time; one that is late is not dead.
const SILENCE_TIMEOUT: Duration =
    KEEPALIVE_INTERVAL.saturating_add(KEEPALIVE_LEISURE).saturating_add(KEEPALIVE_TIMEOUT.saturating_mul(2));

/// How long commands may take to learn that the connection broke.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Descriptors that a master inherits from the `hop` that starts it: the socket, the lock, and /dev/null.
const INHERITED_DESCRIPTORS: RawFd = 3;

/// Holds a connection until no command has used it for the given time, it breaks, or the master is stopped.
///
/// # Errors
/// The connection cannot be established. This process reports that to nobody: the `hop` that started it connects by
/// itself, and reports the error.
pub fn run(args: &MuxArgs) -> Result<(), Error> {
    let (listener, lock) = detach().map_err(Error::io("leave", "the terminal".as_ref()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start", "the connection master".as_ref()))?;
    runtime.block_on(keep(args, listener, lock))
}

/// Detaches from the `hop` that started this process: leaves its session, and closes its streams and the descriptors
/// that were inherited by accident. Returns the socket and the lock, which were inherited on purpose.
fn detach() -> io::Result<(std::os::unix::net::UnixListener, OwnedFd)> {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        open.extend(entry?.file_name().to_string_lossy().parse::<RawFd>());
    }
    // The directory itself is closed by now.
    let is_open = |number: &RawFd| fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok();
    for number in open.into_iter().filter(|number| *number >= INHERITED_DESCRIPTORS && is_open(number)) {
        // SAFETY: it is open, and nothing in this process has opened a file so far, so it was inherited and nobody has it.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
    let listener = io::stdin().as_fd().try_clone_to_owned()?.into();
    let lock = io::stdout().as_fd().try_clone_to_owned()?;
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    setsid()?;
    Ok((listener, lock))
}

async fn keep(
    args: &MuxArgs,
    listener: std::os::unix::net::UnixListener,
    lock: OwnedFd,
) -> Result<(), Error> {
    let home = Home::from_environment()?;
    let (router, identity) = (Inventory::new(&home).get(&args.router)?, home.identity()?);
    let socket = ControlSocket::of(home.runtime(), &router, identity.fingerprint()).socket();
    // It was enrolled again in the meantime, or the key is another one.
    let address = listener.local_addr().map_err(Error::io("listen on", &socket))?;
    if address.as_pathname() != Some(&socket) {
        return Err(Error::OtherPlace { router: router.name });
    }
    let listener = Listener::new(listener, &socket).map_err(Error::io("listen on", &socket))?;
    let connect_timeout = args.connect_timeout;
    let (stream, _) =
        connection::within(connect_timeout, &router, connection::secure(&router, &identity)).await?;
    // Nothing of what follows is below the directory of the `hop` that came first, which may be unmounted now.
    env::set_current_dir("/").map_err(Error::io("change to", "/".as_ref()))?;
    serve(stream, listener, lock, args.persist)
        .await
        .map_err(|error| Error::NotAnAgent { address: router.entry.address, source: error.into() })
}

/// The socket to which commands connect. Dropping it removes the socket: a command that has connected and was not
/// accepted sees its connection close, and connects to the router itself.
struct Listener {
    listener: UnixListener,
    socket: PathBuf,
    inode: u64,
}

impl Listener {
    fn new(listener: std::os::unix::net::UnixListener, socket: &Path) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        Ok(Self { listener, socket: socket.to_owned(), inode: fs::metadata(socket)?.ino() })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The directory may have been cleared, and another master have started.
        if fs::metadata(&self.socket).is_ok_and(|metadata| metadata.ino() == self.inode) {
            // If it cannot be removed, the next one does it.
            let _ = fs::remove_file(&self.socket);
        }
    }
}

/// Serves commands. While this process holds the lock, it is the only master of its socket.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    listener: Listener,
    lock: OwnedFd,
    persist: Duration,
) -> hyper::Result<()> {
    let heard = LastHeard::default();
    let hears = heard.clone();
    let stream = Observed::new(stream, move |_: &io::Result<()>| hears.now());
    let handshake = connection::http2()
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        // While a call is under way, the link must be alive; else see SILENCE_TIMEOUT.
        .keep_alive_while_idle(false)
        .handshake(TokioIo::new(stream));
    let (agent, connection) = handshake.await?;
    let mut connection = pin!(connection);
    let shared = Arc::new(Shared { agent, users: AtomicUsize::new(0), stop: Notify::new() });
    let closing = watch::Sender::new(false);
    let (mut users, mut unused_since) = (JoinSet::new(), Instant::now());
    let is_stopped = loop {
        tokio::select! {
            _ = &mut connection => break false,
            () = heard.nothing() => break false,
            () = shared.stop.notified() => break true,
            _ = users.join_next(), if !users.is_empty() => unused_since = Instant::now(),
            () = time::sleep_until(unused_since + persist), if users.is_empty() => break false,
            accepted = listener.listener.accept() => {
                let Ok((stream, _)) = accepted else { break false };
                if users.len() < MAX_COMMANDS && is_ours(&stream) {
                    users.spawn(serve_command(stream, shared.clone(), closing.subscribe()));
                }
            }
        }
    };
    drop(listener);
    if is_stopped && users.len() > 1 {
        // Connected commands may finish; the next command may start another master meanwhile.
        drop(lock);
        tokio::select! {
            _ = &mut connection => {}
            () = heard.nothing() => {}
            () = async { while users.join_next().await.is_some() {} } => {}
        }
    }
    closing.send_replace(true);
    let _ = time::timeout(CLOSE_TIMEOUT, async { while users.join_next().await.is_some() {} }).await;
    Ok(())
}

/// The state that all commands share.
struct Shared {
    agent: SendRequest<Body>,
    /// How many commands are connected.
    users: AtomicUsize,
    /// A command has asked the master to stop.
    stop: Notify,
}

/// Forwards the calls of one command, until it disconnects or the master closes.
async fn serve_command(stream: UnixStream, shared: Arc<Shared>, mut closing: watch::Receiver<bool>) {
    shared.users.fetch_add(1, Relaxed);
    let forwarding = shared.clone();
    let service = service_fn(move |request| forward(forwarding.clone(), request));
    let connection = server::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_CALLS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(COMMAND_WINDOW)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        // The agent's answers are passed on as they are.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = &mut connection => {}
        _ = async { closing.wait_for(|closing| *closing).await.is_ok() } => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
    shared.users.fetch_sub(1, Relaxed);
}

/// Forwards one call to the agent.
async fn forward(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    if request.uri().path() == STOP_PATH {
        let others = shared.users.load(Relaxed).saturating_sub(1);
        // The response still arrives: the master lets the calls of connected commands finish, the caller's included.
        shared.stop.notify_one();
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert(USERS, others.into());
        return Ok(response);
    }
    let mut agent = shared.agent.clone();
    agent.ready().await?;
    Ok(agent.send_request(request.map(Body::new)).await?.map(Body::new))
}

/// When the agent last sent something.
#[derive(Clone)]
struct LastHeard(Arc<Mutex<Instant>>);

impl Default for LastHeard {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl LastHeard {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until the agent has been silent for [`SILENCE_TIMEOUT`]. Cancel safe.
    async fn nothing(&self) {
        loop {
            let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + SILENCE_TIMEOUT;
            if until <= Instant::now() {
                return;
            }
            time::sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;
    use std::net::Shutdown;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http::StatusCode;
    use hyper::body::Body as _;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silent_agent_times_out() {
        let (heard, start) = (LastHeard::default(), Instant::now());
        let talking = async {
            for _ in 0..3 {
                time::sleep(KEEPALIVE_INTERVAL + KEEPALIVE_LEISURE).await;
                heard.now();
            }
            std::future::pending().await
        };
        tokio::select! {
            () = heard.nothing() => {}
            () = talking => {}
        }
        assert_eq!(start.elapsed().as_secs(), 60 + 30);
    }

    /// The part of a call that an agent of the tests sees.
    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        Call(String),
        Reset,
    }

    /// An agent which answers each call with its path, and says when one is broken off.
    fn agent(seen: mpsc::UnboundedSender<Seen>) -> tokio::io::DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let service = service_fn(move |request: Request<Incoming>| {
            let seen = seen.clone();
            async move {
                let path = request.uri().path().to_owned();
                seen.send(Seen::Call(path.clone())).unwrap();
                let mut body = request.into_body();
                tokio::spawn(async move {
                    let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context));
                    // Nothing is ever sent.
                    if let Some(Err(_)) = frame.await {
                        seen.send(Seen::Reset).unwrap();
                    }
                });
                let answer = Response::builder().status(StatusCode::IM_A_TEAPOT).header("path", path);
                Ok::<_, Infallible>(answer.body(Body::new(Open)).unwrap())
            }
        });
        tokio::spawn(
            server::Builder::new(TokioExecutor::new())
                .auto_date_header(false)
                .serve_connection(TokioIo::new(theirs), service),
        );
        ours
    }

    /// A body that does not end.
    struct Open;

    impl hyper::body::Body for Open {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn calls_are_forwarded_and_reset() {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let listener = Listener::new(listener, &socket).unwrap();
        let lock = File::create(home.path().join("lock")).unwrap().into();
        let (seen, mut saw) = mpsc::unbounded_channel();
        let serving = tokio::spawn(serve(agent(seen), listener, lock, Duration::from_secs(60)));

        let command = async || {
            let stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
            let process = stream.try_clone().unwrap();
            stream.set_nonblocking(true).unwrap();
            let stream = TokioIo::new(UnixStream::from_std(stream).unwrap());
            let (sender, connection) = connection::http2().handshake(stream).await.unwrap();
            tokio::spawn(connection);
            (sender, process)
        };
        let request =
            |path: &str| Request::post(format!("https://hop.invalid{path}")).body(Body::new(Open)).unwrap();
        let (mut first, first_process) = command().await;
        let (mut second, second_process) = command().await;
        let answers =
            [first.send_request(request("/first")).await, second.send_request(request("/second")).await];
        for (answer, path) in answers.iter().zip(["/first", "/second"]) {
            let answer = answer.as_ref().unwrap();
            assert_eq!(
                (answer.status(), answer.headers()["path"].to_str().unwrap()),
                (StatusCode::IM_A_TEAPOT, path)
            );
            assert!(!answer.headers().contains_key("date"), "nothing is added");
            assert_eq!(saw.recv().await, Some(Seen::Call(path.into())));
        }
        // As when its process is killed: the socket closes.
        first_process.shutdown(Shutdown::Both).unwrap();
        assert_eq!(saw.recv().await, Some(Seen::Reset));
        // The other one does not notice.
        let end = Request::post(format!("https://hop.invalid{STOP_PATH}")).body(Body::empty()).unwrap();
        let answer = second.send_request(end).await.unwrap();
        assert_eq!(answer.headers()[USERS], "0");
        second_process.shutdown(Shutdown::Both).unwrap();
        assert_eq!(saw.recv().await, Some(Seen::Reset));
        serving.await.unwrap().unwrap();
        assert!(!socket.exists());
    }
}
