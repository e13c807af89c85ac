//! Connections that outlive a command: a keeper, which is a `hop` in the background, holds one for the commands that come
//! next, as ssh's ControlMaster does. To whoever comes to it, a keeper is the agent.
//!
//! What must stay true: a keeper only makes things faster. Whatever is wrong with one, the command has a connection of its
//! own, and what is wrong with the router is said as if there were no keepers; nobody comes to a keeper but the user whose
//! it is, with the key and for the router that it was started for; and a router has one keeper of a controller at most.

mod place;
mod process;

use std::fs::{self, File};
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
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::net::UnixStream;
use tokio::time::{self, Instant};
use tonic::body::Body;

use crate::connection::{self, Connection};
use crate::error::Error;
use crate::home::{Home, make_private};
use crate::inventory::Router;
use crate::outcome::say;

use self::place::Place;
pub use self::process::{Orders, run};

/// The variable that says how long connections are kept, where the command line does not.
const VARIABLE: &str = "HOP_KEEP_CONNECTION";

/// Longest time for which a connection is kept without use: a day. Who wants more works on another day.
pub const LONGEST: Duration = Duration::from_secs(86_400);

/// How long a keeper that is there already may take to answer for the agent. Its connection may lead into a network that
/// this machine has left, where a new one leads to the router.
const ANSWER: Duration = Duration::from_secs(3);

/// How long another `hop` may take from its lock to its socket, and a keeper from its last word to its end; and how often
/// to look, for nothing tells of either.
const CHANGE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(5);

/// How long a keeper that was told to end may take, if nobody uses it.
const END: Duration = Duration::from_secs(5);

/// What a keeper is told to do by a request to this path. To everything else it is the agent.
const END_PATH: &str = "/hop.keeper/End";

/// The header of its answer: how many commands use it still.
const USERS: &str = "hop-users";

/// Whether a command uses a kept connection, and leaves one.
#[derive(Clone, Debug)]
pub struct Keeping {
    directory: PathBuf,
    wish: Wish,
    verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// Use one if it is there.
    Use,
    /// Have one, and leave it for so long.
    Leave(Duration),
    /// Neither.
    Refrain,
}

impl Keeping {
    /// What the command line says, or else the environment.
    ///
    /// # Errors
    /// The variable is no duration.
    pub fn new(home: &Home, option: Option<Duration>) -> Result<Self, Error> {
        let variable = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
        let from_environment = || {
            let text = variable?;
            Some(duration(&text).map_err(|why| Error::Usage(format!("{VARIABLE}={text}: {why}"))))
        };
        let wish = match option.map(Ok).or_else(from_environment).transpose()? {
            None => Wish::Use,
            Some(Duration::ZERO) => Wish::Refrain,
            Some(lasting) => Wish::Leave(lasting),
        };
        Ok(Self { directory: home.runtime().to_owned(), wish, verbose: false })
    }

    /// The same, and says what it waits for if `verbose`.
    #[must_use]
    pub fn verbose(self, verbose: bool) -> Self {
        Self { verbose, ..self }
    }

    /// As [`Connection::open`], by way of a keeper if that is wanted and possible.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn open(
        &self,
        router: &Router,
        identity: &Identity,
        patience: Duration,
    ) -> Result<(Connection, GetInfoResponse), Error> {
        let opening = async {
            match self.by_keeper(router, identity, patience).await {
                Some(kept) => Ok(kept),
                None => {
                    let waiting = || {
                        if self.verbose {
                            say!(
                                "hop: {}: nobody listens there now; waiting in case its agent is being started again",
                                router.name
                            );
                        }
                    };
                    let attempt = async || Connection::open_at_leisure(router, identity).await;
                    connection::outlasting_restart(router, patience, waiting, attempt).await
                }
            }
        };
        connection::within(patience, router, opening).await
    }

    /// The agent as a keeper gives it. What is wrong on that way, nobody needs to know: it is wrong, or it is not, on the
    /// straight one.
    async fn by_keeper(
        &self,
        router: &Router,
        identity: &Identity,
        patience: Duration,
    ) -> Option<(Connection, GetInfoResponse)> {
        let place = Place::of(&self.directory, router, identity.fingerprint());
        let lasting = match self.wish {
            Wish::Refrain => return None,
            Wish::Use => {
                let stream = place.dial().await?;
                return time::timeout(ANSWER, ask(router, identity, stream)).await.ok()?;
            }
            Wish::Leave(lasting) => lasting,
        };
        let found = place.dial().await;
        let was_there = found.is_some();
        if let Some(stream) = found
            && let Ok(Some(kept)) = time::timeout(ANSWER, ask(router, identity, stream)).await
        {
            return Some(kept);
        }
        let until = Instant::now() + CHANGE;
        loop {
            match start(&place, router, lasting, patience) {
                // It connects first, and may take as long as we may.
                Ok(true) => return ask(router, identity, place.dial().await?).await,
                // Another `hop` starts one, or one is about to end.
                Ok(false) if !was_there && Instant::now() < until => time::sleep(LOOK).await,
                // It has no place for us, or does not answer.
                Ok(false) => return None,
                Err(error) => {
                    let cause =
                        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    say!("hop: the connection to {} is not kept: {error}: {cause}", router.name);
                    return None;
                }
            }
            if let Some(stream) = place.dial().await {
                return ask(router, identity, stream).await;
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
    if duration > LONGEST { Err("it is at most a day".to_owned()) } else { Ok(duration) }
}

/// The first question to the agent, by way of a keeper.
async fn ask(
    router: &Router,
    identity: &Identity,
    stream: UnixStream,
) -> Option<(Connection, GetInfoResponse)> {
    let mut connection = Connection::over(router, identity, stream, Default::default()).await.ok()?;
    let info = connection.info().await.ok()?;
    Some((connection, info))
}

/// Starts a keeper; false if there is one, or another `hop` is about to start one.
///
/// The socket is made here, so that it is there for whoever comes next before the keeper is, and the lock goes over to the
/// keeper with it, which has it until it ends. A socket that is there without the lock is nobody's.
fn start(place: &Place, router: &Router, lasting: Duration, patience: Duration) -> Result<bool, Error> {
    make_private(place.directory())?;
    place.check_directory()?;
    let (path, socket) = (place.lock(), place.socket());
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(false),
        locked => locked.map_err(|error| Error::io("lock", &path)(error.into()))?,
    }
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
        .args(["keep-connection", &router.name, &words(lasting), &words(patience)])
        // It has no terminal to ask for a password, and shall not open a window for it: this `hop` asks, if it must.
        .env("SSH_ASKPASS_REQUIRE", "never")
        .stdin(OwnedFd::from(listener))
        .stdout(lock)
        .stderr(Stdio::null())
        .spawn()
        .map_err(Error::io("start", &hop))?;
    Ok(true)
}

/// What became of a keeper that was told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// There was none.
    None,
    /// It has ended.
    Ended,
    /// It ends when so many commands have.
    After(usize),
}

/// Tells the keeper of a router to end, and waits for that if nobody uses it.
///
/// # Errors
/// It does not hear, or does not end.
pub async fn end(home: &Home, router: &Router) -> Result<End, Error> {
    let place = Place::of(home.runtime(), router, home.identity()?.fingerprint());
    let Some(stream) = place.dial().await else { return Ok(End::None) };
    let socket = place.socket();
    let deaf = |why: &str| Error::io("end what listens on", &socket)(io::Error::other(why.to_owned()));
    let users = match time::timeout(END, tell(stream)).await {
        Ok(Some(users)) => users,
        // It ended just now, by itself.
        Ok(None) if place.dial().await.is_none() => 0,
        _ => return Err(deaf("it does not answer")),
    };
    if users > 0 {
        return Ok(End::After(users));
    }
    let until = Instant::now() + END;
    while !place.is_free().map_err(Error::io("lock", &place.lock()))? {
        if Instant::now() > until {
            return Err(deaf("it goes on"));
        }
        time::sleep(LOOK).await;
    }
    Ok(End::Ended)
}

/// Tells it, and gives how many commands use it still.
async fn tell(stream: UnixStream) -> Option<usize> {
    let (mut sender, connection) = connection::http2().handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let uri =
        Uri::builder().scheme("https").authority("hop.invalid").path_and_query(END_PATH).build().ok()?;
    let request = Request::builder().method(Method::POST).uri(uri).body(Body::empty()).ok()?;
    let response = sender.send_request(request).await.ok()?;
    response.headers().get(USERS)?.to_str().ok()?.parse().ok()
}
