//! A client that reconnects to the same start of an agent.
//!
//! **Invariants:** after a break, the agent that answers is the one that still has the job; if the router was rebooted or the agent
//! restarted, the caller learns that, and nothing is sent.

use std::time::Duration;

use hop_proto::identity::Identity;
use hop_proto::v1::GetInfoResponse;
use tokio::time::{self, Instant};

use super::Error;
use super::capabilities::{ATTACH, Capabilities, LOG, PACK, SIGNALS};
use super::connection::Connection;
use super::mux::Mux;
use crate::config::inventory::Router;
use crate::console::progress::Progress;

/// Time before the first attempt to connect again, which doubles after each.
const INITIAL_BACKOFF: Duration = Duration::from_millis(250);

/// Longest time between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(4);

/// A connection to an agent that can be restored when it breaks.
pub struct ReconnectingClient {
    router: Router,
    identity: Identity,
    mux: Mux,
    connect_timeout: Duration,
    connection: Connection,
    agent: Agent,
    capabilities: Capabilities,
}

/// One start of an agent.
#[derive(Debug, PartialEq, Eq)]
struct Agent {
    boot_id: String,
    instance: u64,
}

impl From<&GetInfoResponse> for Agent {
    fn from(info: &GetInfoResponse) -> Self {
        Self { boot_id: info.boot_id.clone(), instance: info.agent_instance_id }
    }
}

impl ReconnectingClient {
    /// Connects; each attempt may take `connect_timeout`.
    ///
    /// # Errors
    /// The agent cannot be reached, or refuses this controller: see [`Connection::open`].
    pub async fn open(
        router: Router,
        identity: Identity,
        mux: Mux,
        connect_timeout: Duration,
    ) -> Result<(Self, GetInfoResponse), Error> {
        let (connection, info) = mux.open(&router, &identity, connect_timeout).await?;
        let agent = Agent::from(&info);
        let capabilities = Capabilities::from(&info);
        let client = Self { router, identity, mux, connect_timeout, connection, agent, capabilities };
        Ok((client, info))
    }

    /// Connects again to the same agent, until the time is over.
    ///
    /// # Errors
    /// Another agent answers, or the last attempt failed, or one in a way that no further one would mend.
    pub async fn restore(&mut self, backoff: &mut Backoff) -> Result<(), Error> {
        let (router, identity, mux, connect_timeout) =
            (&self.router, &self.identity, &self.mux, self.connect_timeout);
        let (connection, info) = backoff
            .retry(&router.name, async || {
                mux.reopen(router, identity, connect_timeout, &Progress::none()).await
            })
            .await?;
        same_agent(&self.agent, &Agent::from(&info), &router.name)?;
        self.connection = connection;
        Ok(())
    }

    /// The connection that there is.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// The router's name, for messages.
    pub fn router(&self) -> &str {
        &self.router.name
    }

    /// Whether the agent's jobs outlive a connection.
    pub fn can_attach(&self) -> bool {
        self.capabilities.has(ATTACH)
    }

    /// Whether the agent compresses output on request.
    pub fn can_pack(&self) -> bool {
        self.capabilities.has(PACK)
    }

    /// Whether the agent counts signals and acknowledges them.
    pub fn counts_signals(&self) -> bool {
        self.capabilities.has(SIGNALS)
    }

    /// Whether the connection stays up while this process is stopped.
    pub fn is_kept(&self) -> bool {
        self.connection.is_kept()
    }

    /// Whether the agent can detach a job that was not started as a detached one.
    pub fn can_run_on(&self) -> bool {
        self.capabilities.has(LOG)
    }

    /// The agent's capabilities.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Sends what is queued, and closes the connection: see [`Connection::close`].
    pub async fn close(self) {
        self.connection.close().await;
    }
}

fn same_agent(before: &Agent, now: &Agent, router: &str) -> Result<(), Error> {
    if now.boot_id != before.boot_id {
        return Err(Error::Rebooted { router: router.to_owned() });
    }
    if now.instance != before.instance {
        return Err(Error::AgentRestarted { router: router.to_owned() });
    }
    Ok(())
}

/// The attempts after one break: their deadline, and the pause before the next.
#[derive(Debug)]
pub struct Backoff {
    deadline: Instant,
    pause: Duration,
    /// The last error.
    last: Option<Error>,
}

impl Backoff {
    /// After a break whose reason is `broke`, for this long from now on.
    pub fn new(broke: Error, within: Duration) -> Self {
        Self { deadline: Instant::now() + within, pause: INITIAL_BACKOFF, last: Some(broke) }
    }

    /// The new connection broke as well, before it was useful: deadline and pauses continue as they are.
    pub fn record_failure(&mut self, error: Error) {
        self.last = Some(error);
    }

    /// Tries until it works, fails for good, or the time is over, which is [`Error::Lost`].
    async fn retry<T>(
        &mut self,
        router: &str,
        mut attempt: impl AsyncFnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        while Instant::now() < self.deadline {
            time::sleep_until(self.deadline.min(Instant::now() + self.pause)).await;
            self.pause = MAX_BACKOFF.min(self.pause * 2);
            match time::timeout_at(self.deadline, attempt()).await {
                Ok(Err(error)) if error.may_pass() => self.last = Some(error),
                Ok(result) => return result,
                // The earlier error says more than an expired deadline.
                Err(_) => {}
            }
        }
        Err(match self.last.take() {
            Some(lost @ Error::Lost { .. }) => lost,
            last => Error::Lost { router: router.to_owned(), source: last.map(Into::into) },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io;

    use hop_proto::v1::ErrorReason;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn lost() -> Error {
        Error::Lost { router: "desk".into(), source: None }
    }

    fn unreachable() -> Error {
        let source = io::Error::from(io::ErrorKind::ConnectionRefused);
        Error::Unreachable { router: "desk".into(), address: "desk:4670".into(), source }
    }

    #[tokio::test(start_paused = true)]
    async fn backoff_doubles_up_to_four_seconds() {
        let start = Instant::now();
        let mut at = Vec::new();
        let mut backoff = Backoff::new(lost(), Duration::from_secs(14));
        let failed = backoff.retry("desk", async || {
            at.push(start.elapsed().as_millis());
            Err::<(), _>(unreachable())
        });
        let error = failed.await.unwrap_err();
        assert_eq!(at, [250, 750, 1750, 3750, 7750, 11750, 14000]);
        assert_eq!(start.elapsed().as_secs(), 14);
        let Error::Lost { source: Some(source), .. } = error else { panic!("{error:?}") };
        assert_eq!(source.to_string(), unreachable().to_string());
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_attempt_ends_at_deadline() {
        let start = Instant::now();
        let mut backoff = Backoff::new(lost(), MINUTE);
        let failed = backoff.retry("desk", std::future::pending::<Result<(), Error>>);
        assert!(matches!(failed.await, Err(Error::Lost { source: None, .. })));
        assert_eq!(start.elapsed(), MINUTE);
    }

    #[tokio::test(start_paused = true)]
    async fn full_agent_is_retried() {
        let mut has_place = [false, false, true].into_iter();
        let attempt = async || match has_place.next() {
            Some(true) => Ok(()),
            _ => Err(Error::Refused {
                router: "desk".into(),
                reason: ErrorReason::TooManyConnections,
                message: "16 controllers are connected already".into(),
            }),
        };
        Backoff::new(lost(), MINUTE).retry("desk", attempt).await.unwrap();
        assert_eq!(has_place.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn permanent_failure_ends_reconnecting() {
        let start = Instant::now();
        let refused = async || Err::<(), _>(Error::Incompatible { router: "desk".into() });
        let error = Backoff::new(lost(), MINUTE).retry("desk", refused).await.unwrap_err();
        assert!(matches!(error, Error::Incompatible { .. }), "{error:?}");
        assert_eq!(start.elapsed(), INITIAL_BACKOFF);
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_breaks_share_one_deadline() {
        let start = Instant::now();
        let mut backoff = Backoff::new(lost(), Duration::from_secs(1));
        backoff.retry("desk", async || Ok(())).await.unwrap();
        backoff.record_failure(lost());
        backoff.retry("desk", async || Ok(())).await.unwrap();
        assert_eq!(start.elapsed().as_millis(), 750);
        backoff.record_failure(lost());
        backoff.retry("desk", async || Err::<(), _>(unreachable())).await.unwrap_err();
        assert_eq!(start.elapsed().as_millis(), 1000);
    }

    #[test]
    fn agent_restart_differs_from_reboot() {
        let agent = |boot_id: &str, instance| Agent { boot_id: boot_id.into(), instance };
        let before = agent("a", 1);
        same_agent(&before, &agent("a", 1), "desk").unwrap();
        let error = same_agent(&before, &agent("a", 2), "desk").unwrap_err();
        assert!(matches!(error, Error::AgentRestarted { .. }));
        let error = same_agent(&before, &agent("b", 2), "desk").unwrap_err();
        assert!(matches!(error, Error::Rebooted { .. }));
    }
}
