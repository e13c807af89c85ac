//! Connections that several commands share: a connection master, a `hop` in the background, holds one for the commands that
//! come next, as ssh's ControlMaster does. To a command, the master is the agent.
//!
//! **Invariants:** a master only makes commands faster: whatever is wrong with it, the command opens a connection of its own, and
//! reports what is wrong with the router as if there were no masters. Only the user who started a master can use it, with the same
//! key and for the same router. A controller has at most one master per router.

mod control_socket;
mod master;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use hop_proto::identity::Identity;
use hop_proto::v1::GetInfoResponse;
use http::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::{self, Instant};
use tonic::body::Body;

use crate::client::Error;
use crate::client::connection::{self, Connection};
use crate::config::file_lock;
use crate::config::home::{Home, make_private};
use crate::config::inventory::Router;
use crate::console::progress::Progress;
use crate::console::say;

use self::control_socket::ControlSocket;
pub use self::master::{MuxArgs, run};

/// The variable that says how long connections are kept, where the command line does not.
const VARIABLE: &str = "HOP_KEEP_CONNECTION";

/// Longest time for which a connection is kept without use: a day. Who wants more works on another day.
pub const MAX_PERSIST: Duration = Duration::from_secs(86_400);

/// Time limit for a running master to answer for the agent. Its connection may lead into a network that
/// this machine has left, where a new one leads to the router.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Time limit for another `hop` between its lock and its socket, and for a master between its last word and its exit; and how
/// often to poll, because no event tells of either.
const SOCKET_TIMEOUT: Duration = Duration::from_millis(500);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Time limit for a master that no command uses to exit when it is stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The request path that stops a master. It forwards every other path to the agent.
const STOP_PATH: &str = "/hop.mux/Stop";

/// The header of its answer: how many commands use it still.
const USERS: &str = "hop-users";

/// Whether a command uses a kept connection, and leaves one.
#[derive(Clone, Debug)]
pub struct Mux {
    directory: PathBuf,
    policy: MuxPolicy,
    verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MuxPolicy {
    /// Use one if it is there.
    Reuse,
    /// Have one, and leave it for so long.
    Persist(Duration),
    /// Neither.
    Disabled,
}

impl Mux {
    /// The option on the command line, or else in the environment.
    ///
    /// # Errors
    /// The variable is no duration.
    pub fn new(home: &Home, option: Option<Duration>) -> Result<Self, Error> {
        let variable = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
        let from_environment = || {
            let text = variable?;
            Some(duration(&text).map_err(|why| Error::InvalidKeepConnection { value: text, why }))
        };
        let policy = match option.map(Ok).or_else(from_environment).transpose()? {
            None => MuxPolicy::Reuse,
            Some(Duration::ZERO) => MuxPolicy::Disabled,
            Some(persist) => MuxPolicy::Persist(persist),
        };
        Ok(Self { directory: home.runtime().to_owned(), policy, verbose: false })
    }

    /// True if the command line or the environment says what to do with connections.
    pub fn is_asked_for(option: Option<Duration>) -> bool {
        option.is_some() || std::env::var_os(VARIABLE).is_some_and(|text| !text.is_empty())
    }

    /// Prints what opening a connection waits for, if `verbose`.
    #[must_use]
    pub fn verbose(self, verbose: bool) -> Self {
        Self { verbose, ..self }
    }

    /// Opens a connection like [`Connection::open`], through a master if the policy wants one and there is one. If it takes
    /// long, shows that on a terminal.
    ///
    /// # Errors
    /// The agent cannot be reached, or refuses this controller: see [`Connection::open`].
    pub async fn open(
        &self,
        router: &Router,
        identity: &Identity,
        connect_timeout: Duration,
    ) -> Result<(Connection, GetInfoResponse), Error> {
        // ssh may have a question to the user, which belongs on a line of its own.
        let asks = router.entry.enrolment.as_ref().is_some_and(|enrolment| enrolment.via_ssh);
        let progress = if asks { Progress::none() } else { Progress::default() };
        let what = format!("connecting to {} at {}", router.name, router.entry.address);
        progress.during(what, self.reopen(router, identity, connect_timeout, &progress)).await
    }

    /// Opens a connection like [`Mux::open`]; shows nothing but, in `progress`, that an agent may be restarting.
    ///
    /// # Errors
    /// The agent cannot be reached, or refuses this controller: see [`Connection::open`].
    pub(super) async fn reopen(
        &self,
        router: &Router,
        identity: &Identity,
        connect_timeout: Duration,
        progress: &Progress,
    ) -> Result<(Connection, GetInfoResponse), Error> {
        let opening = async {
            match self.via_master(router, identity, connect_timeout).await {
                Some(kept) => Ok(kept),
                None => {
                    let waiting = || {
                        let name = &router.name;
                        let text =
                            format!("{name}: nothing listens there; waiting in case its agent is restarting");
                        if self.verbose {
                            progress.aside(|| say!("hop: {text}"));
                        }
                        progress.show(text);
                    };
                    let attempt = async || Connection::open_without_timeout(router, identity).await;
                    connection::outlasting_restart(router, connect_timeout, waiting, attempt).await
                }
            }
        };
        connection::within(connect_timeout, router, opening).await
    }

    /// A connection through a master; `None` whatever goes wrong with that, because a direct connection will show whether the
    /// router is at fault.
    async fn via_master(
        &self,
        router: &Router,
        identity: &Identity,
        connect_timeout: Duration,
    ) -> Option<(Connection, GetInfoResponse)> {
        let socket = ControlSocket::of(&self.directory, router, identity.fingerprint());
        let persist = match self.policy {
            MuxPolicy::Disabled => return None,
            MuxPolicy::Reuse => {
                let stream = socket.connect().await?;
                return time::timeout(ANSWER_TIMEOUT, query(router, identity, stream)).await.ok()?;
            }
            MuxPolicy::Persist(persist) => persist,
        };
        let found = socket.connect().await;
        let was_there = found.is_some();
        if let Some(stream) = found
            && let Ok(Some(kept)) = time::timeout(ANSWER_TIMEOUT, query(router, identity, stream)).await
        {
            return Some(kept);
        }
        let until = Instant::now() + SOCKET_TIMEOUT;
        loop {
            match start_master(&socket, router, persist, connect_timeout) {
                // It connects first, and may take as long as we may.
                Ok(true) => return query(router, identity, socket.connect().await?).await,
                // Another `hop` starts one, or one is about to end.
                Ok(false) if !was_there && Instant::now() < until => time::sleep(POLL_INTERVAL).await,
                // It has no place for us, or does not answer.
                Ok(false) => return None,
                Err(error) => {
                    let cause =
                        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    say!("hop: the connection to {} is not kept: {error}: {cause}", router.name);
                    return None;
                }
            }
            if let Some(stream) = socket.connect().await {
                return query(router, identity, stream).await;
            }
        }
    }
}

/// Reads for how long a connection is kept.
///
/// # Errors
/// It is no duration, or too long a one.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration: Duration = text.parse::<humantime::Duration>().map_err(|error| error.to_string())?.into();
    if duration > MAX_PERSIST { Err("it is at most a day".to_owned()) } else { Ok(duration) }
}

/// Asks the agent for its information, through a master.
async fn query(
    router: &Router,
    identity: &Identity,
    stream: UnixStream,
) -> Option<(Connection, GetInfoResponse)> {
    let mut connection = Connection::over(router, identity, stream, Default::default()).await.ok()?;
    let info = connection.info().await.ok()?;
    Some((connection.kept(), info))
}

/// A connection through the master of a router, if one runs and answers. Nothing is started.
pub async fn running(home: &Home, router: &Router, identity: &Identity) -> Option<Connection> {
    let socket = ControlSocket::of(home.runtime(), router, identity.fingerprint());
    let (connection, _) = query(router, identity, socket.connect().await?).await?;
    Some(connection)
}

/// Starts a master; false if one runs, or another `hop` is starting one.
///
/// This process creates the socket, so that the next command finds it before the master is ready, and passes the lock on to the
/// master, which holds it until it exits. A socket whose lock is free is stale.
fn start_master(
    socket: &ControlSocket,
    router: &Router,
    persist: Duration,
    connect_timeout: Duration,
) -> Result<bool, Error> {
    make_private(socket.directory())?;
    socket.check_directory()?;
    let (path, socket) = (socket.lock(), socket.socket());
    let Some(lock) = file_lock::take(&path).map_err(Error::io("lock", &path))? else { return Ok(false) };
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io("remove", &socket)(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&socket).map_err(Error::io("listen on", &socket))?;
    let words = |duration: Duration| humantime::format_duration(duration).to_string();
    let hop = std::env::current_exe().map_err(Error::io("find", "hop".as_ref()))?;
    Command::new(&hop)
        .args(["keep-connection", &router.name, &words(persist), &words(connect_timeout)])
        // It has no terminal to ask for a password, and shall not open a window for it: this `hop` asks, if it must.
        .env("SSH_ASKPASS_REQUIRE", "never")
        .stdin(OwnedFd::from(listener))
        .stdout(lock)
        .stderr(Stdio::null())
        .spawn()
        .map_err(Error::io("start", &hop))?;
    Ok(true)
}

/// The result of stopping a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// There was none.
    None,
    /// It has ended.
    Now,
    /// It ends when so many commands have.
    After(usize),
}

/// Stops the master of a router, and waits for its exit if no command uses it.
///
/// # Errors
/// It does not answer, or does not exit.
pub async fn stop(home: &Home, router: &Router) -> Result<Stopped, Error> {
    let socket = ControlSocket::of(home.runtime(), router, home.identity()?.fingerprint());
    let Some(stream) = socket.connect().await else { return Ok(Stopped::None) };
    let path = socket.socket();
    let failed = |why: &str| Error::io("end what listens on", &path)(io::Error::other(why.to_owned()));
    let users = match time::timeout(STOP_TIMEOUT, request_stop(stream)).await {
        Ok(Some(users)) => users,
        // It ended just now, by itself.
        Ok(None) if socket.connect().await.is_none() => 0,
        _ => return Err(failed("it does not answer")),
    };
    if users > 0 {
        return Ok(Stopped::After(users));
    }
    let until = Instant::now() + STOP_TIMEOUT;
    while !socket.is_unlocked().map_err(Error::io("lock", &socket.lock()))? {
        if Instant::now() > until {
            return Err(failed("it goes on"));
        }
        time::sleep(POLL_INTERVAL).await;
    }
    Ok(Stopped::Now)
}

/// Tells it, and gives how many commands use it still.
async fn request_stop(stream: UnixStream) -> Option<usize> {
    let (mut sender, connection) = connection::http2().handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let uri =
        Uri::builder().scheme("https").authority("hop.invalid").path_and_query(STOP_PATH).build().ok()?;
    let request = Request::builder().method(Method::POST).uri(uri).body(Body::empty()).ok()?;
    let response = sender.send_request(request).await.ok()?;
    response.headers().get(USERS)?.to_str().ok()?.parse().ok()
}
