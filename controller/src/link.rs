//! The way to an agent: the connection, and how to have another one when it breaks.
//!
//! What must stay true: the agent that answers after a break is the one of before, which still has the job; if the router
//! was rebooted or the agent started anew, that is said, and nothing is asked of it.

use std::time::Duration;

use hop_proto::identity::Identity;
use hop_proto::v1::GetInfoResponse;
use tokio::time::{self, Instant};

use crate::connection::Connection;
use crate::error::Error;
use crate::inventory::Router;
use crate::keeper::Keeping;
use crate::packing::Decoders;

/// The capability of an agent whose jobs can be come back to.
pub const ATTACH: &str = "attach";

/// The capability of an agent that packs output for who asks for it.
const PACK: &str = "compress_output";

/// The capability of an agent that counts signals and acknowledges them.
const SIGNALS: &str = "signals";

/// Time before the first attempt to connect again, which doubles after each.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Longest time between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// A connection that can be had again.
pub struct Link {
    router: Router,
    identity: Identity,
    keeping: Keeping,
    patience: Duration,
    connection: Connection,
    agent: Agent,
    can_attach: bool,
    can_pack: bool,
    counts_signals: bool,
    decoders: Decoders,
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

impl Link {
    /// Connects; each attempt may take `patience`.
    ///
    /// # Errors
    /// Those of [`Connection::open`].
    pub async fn open(
        router: Router,
        identity: Identity,
        keeping: Keeping,
        patience: Duration,
    ) -> Result<(Self, GetInfoResponse), Error> {
        let (connection, info) = keeping.open(&router, &identity, patience).await?;
        let agent = Agent::from(&info);
        let can_attach = can(&info, ATTACH);
        let can_pack = can(&info, PACK);
        let counts_signals = can(&info, SIGNALS);
        let decoders = Decoders::of(&info);
        let link = Self {
            router,
            identity,
            keeping,
            patience,
            connection,
            agent,
            can_attach,
            can_pack,
            counts_signals,
            decoders,
        };
        Ok((link, info))
    }

    /// Connects again to the same agent, until the time is over.
    ///
    /// # Errors
    /// Another agent answers, or the last attempt failed, or one in a way that no further one would mend.
    pub async fn restore(&mut self, comeback: &mut Comeback) -> Result<(), Error> {
        let (router, identity, keeping, patience) =
            (&self.router, &self.identity, &self.keeping, self.patience);
        let (connection, info) =
            comeback.retry(&router.name, async || keeping.open(router, identity, patience).await).await?;
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
        self.can_attach
    }

    /// Whether the agent packs output for who asks for it.
    pub fn can_pack(&self) -> bool {
        self.can_pack
    }

    /// Whether the agent counts signals and acknowledges them.
    pub fn counts_signals(&self) -> bool {
        self.counts_signals
    }

    /// What a program may be sent as.
    pub fn decoders(&self) -> Decoders {
        self.decoders
    }

    /// See [`Connection::close`].
    pub async fn close(self) {
        self.connection.close().await;
    }
}

/// Whether an agent has this capability.
pub fn can(info: &GetInfoResponse, capability: &str) -> bool {
    info.capabilities.iter().any(|known| known == capability)
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

/// The attempts after one break: until when, and how long until the next.
#[derive(Debug)]
pub struct Comeback {
    deadline: Instant,
    pause: Duration,
    /// What failed last.
    last: Option<Error>,
}

impl Comeback {
    /// After a break whose reason is `broke`, for this long from now on.
    pub fn new(broke: Error, within: Duration) -> Self {
        Self { deadline: Instant::now() + within, pause: FIRST_PAUSE, last: Some(broke) }
    }

    /// The new connection broke as well, before it was of use: the time goes on, and so do the pauses.
    pub fn broke_again(&mut self, error: Error) {
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
            self.pause = LONGEST_PAUSE.min(self.pause * 2);
            match time::timeout_at(self.deadline, attempt()).await {
                Ok(Err(error)) if error.may_pass() => self.last = Some(error),
                Ok(result) => return result,
                // What failed before says more than that the time is over.
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
    async fn the_pauses_double_up_to_four_seconds_and_the_time_ends_them() {
        let start = Instant::now();
        let mut at = Vec::new();
        let mut comeback = Comeback::new(lost(), Duration::from_secs(14));
        let failed = comeback.retry("desk", async || {
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
    async fn an_attempt_that_hangs_ends_with_the_time() {
        let start = Instant::now();
        let mut comeback = Comeback::new(lost(), MINUTE);
        let failed = comeback.retry("desk", std::future::pending::<Result<(), Error>>);
        assert!(matches!(failed.await, Err(Error::Lost { source: None, .. })));
        assert_eq!(start.elapsed(), MINUTE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_has_no_place_for_a_connection_is_asked_again() {
        let mut has_place = [false, false, true].into_iter();
        let attempt = async || match has_place.next() {
            Some(true) => Ok(()),
            _ => Err(Error::Refused {
                router: "desk".into(),
                reason: ErrorReason::TooManyConnections,
                message: "16 controllers are connected already".into(),
            }),
        };
        Comeback::new(lost(), MINUTE).retry("desk", attempt).await.unwrap();
        assert_eq!(has_place.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_does_not_pass_ends_the_attempts() {
        let start = Instant::now();
        let refused = async || Err::<(), _>(Error::Incompatible { router: "desk".into() });
        let error = Comeback::new(lost(), MINUTE).retry("desk", refused).await.unwrap_err();
        assert!(matches!(error, Error::Incompatible { .. }), "{error:?}");
        assert_eq!(start.elapsed(), FIRST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_breaks_at_once_leaves_the_time_as_it_was() {
        let start = Instant::now();
        let mut comeback = Comeback::new(lost(), Duration::from_secs(1));
        comeback.retry("desk", async || Ok(())).await.unwrap();
        comeback.broke_again(lost());
        comeback.retry("desk", async || Ok(())).await.unwrap();
        assert_eq!(start.elapsed().as_millis(), 750);
        comeback.broke_again(lost());
        comeback.retry("desk", async || Err::<(), _>(unreachable())).await.unwrap_err();
        assert_eq!(start.elapsed().as_millis(), 1000);
    }

    #[test]
    fn another_start_of_the_agent_is_told_from_another_boot() {
        let agent = |boot_id: &str, instance| Agent { boot_id: boot_id.into(), instance };
        let before = agent("a", 1);
        same_agent(&before, &agent("a", 1), "desk").unwrap();
        let error = same_agent(&before, &agent("a", 2), "desk").unwrap_err();
        assert_eq!(error.reason(), "agent_restarted");
        let error = same_agent(&before, &agent("b", 2), "desk").unwrap_err();
        assert_eq!(error.reason(), "router_rebooted");
    }
}
