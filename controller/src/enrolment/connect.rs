//! The first connection to an agent that was just started: is it there, is it itself, and by which way is it reached?

use std::time::{Duration, Instant};

use hop_proto::identity::{Fingerprint, Identity};

use super::shell::{Shell, Variables};
use super::{Enrolment, Error, Way, Wish};
use crate::connection::Connection;
use crate::error::Error as HopError;
use crate::inventory::{Entry, Router};
use crate::outcome::say;

const LISTENING: &str = include_str!("scripts/listening.sh");

/// Longest for one attempt to connect. A router that is on the network answers in much less; a firewall that drops
/// packets never does.
const ATTEMPT: Duration = Duration::from_secs(5);

/// How long an agent may take until it answers without being asked after: making a key and listening take 0.3 s.
const PROMPT: Duration = Duration::from_secs(3);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// Connects to the agent with this key; tells what the inventory shall keep of it.
///
/// An address that was not named but derived from ssh's may lead elsewhere: behind a jump host or a forwarded port there
/// is no direct way. Then the connection rides in ssh, and that is said.
///
/// # Errors
/// [`Error::NotListening`], or why the connection did not come about.
pub async fn reach(
    name: &str,
    wish: &Wish,
    way: Way,
    fingerprint: Fingerprint,
    goarch: &str,
    identity: &Identity,
    shell: &Shell,
) -> Result<Router, HopError> {
    let router = |via_ssh: bool, address: String| {
        let Wish { ssh, port, at, store, listen_interface, .. } = wish.clone();
        let next_fingerprint = None;
        let enrolment =
            Some(Enrolment { way, port, via_ssh, at, store, listen_interface, next_fingerprint, ssh });
        Router {
            name: name.to_owned(),
            entry: Entry { address, fingerprint, goarch: goarch.to_owned(), enrolment, process: None },
        }
    };
    let in_ssh = router(true, format!("127.0.0.1:{}", wish.port));
    if wish.via_ssh {
        wait_until_it_listens(wish, shell).await?;
        return Connection::open(&in_ssh, identity, 2 * ATTEMPT).await.map(|_| in_ssh);
    }
    let address = match &wish.at {
        Some(address) => address.clone(),
        None => address_of(&wish.ssh.host_name().await.map_err(Error::Ssh)?, wish.port),
    };
    let direct = router(false, address);
    let since = Instant::now();
    while since.elapsed() < PROMPT {
        if Connection::open(&direct, identity, ATTEMPT).await.is_ok() {
            return Ok(direct);
        }
        tokio::time::sleep(PAUSE).await;
    }
    wait_until_it_listens(wish, shell).await?;
    let Err(failure) = Connection::open(&direct, identity, ATTEMPT).await else { return Ok(direct) };
    if wish.at.is_some() {
        return Err(failure);
    }
    if Connection::open(&in_ssh, identity, 2 * ATTEMPT).await.is_err() {
        return Err(failure);
    }
    say!(
        "hop: {name}: {} does not lead to its agent, so connections ride in ssh; --at names an address that does",
        direct.entry.address
    );
    Ok(in_ssh)
}

async fn wait_until_it_listens(wish: &Wish, shell: &Shell) -> Result<(), Error> {
    let variables = Variables::default().set("port", wish.port.to_string());
    match shell.script("waiting for the agent", &variables, &[LISTENING]).await {
        Err(Error::Step { host, source, .. }) => Err(Error::NotListening { host, source }),
        other => other.map(|_| ()),
    }
}

fn address_of(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
