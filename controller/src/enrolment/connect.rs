//! The first connection to an agent that was just started: whether it listens, whether its key is the expected one, and
//! by which route hop reaches it.

use std::time::{Duration, Instant};

use hop_proto::identity::{Fingerprint, Identity};

use super::layout::Layout;
use super::shell::{STATE, Shell, Variables};
use super::{EnrolRequest, Error};
use crate::client::connection::Connection;
use crate::config::enrolment::EnrolmentRecord;
use crate::config::enrolment::Persistence;
use crate::config::inventory::{Entry, Router};
use crate::console::say;

const LISTENING: &str = include_str!("scripts/listening.sh");

/// Time limit for one attempt to connect. A router that is on the network answers in much less; a firewall that drops
/// packets never does.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an agent may take to answer before hop asks the router whether it listens: making a key and listening take
/// 0.3 s.
const PROMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// Time between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// An agent that was reached.
pub struct Reached {
    /// Its entry for the inventory.
    pub router: Router,
    /// The version that it reports.
    pub version: String,
}

/// Connects to the agent with this key.
///
/// An address that hop has derived from ssh's may lead elsewhere: behind a jump host or a forwarded port there is no
/// direct route. Then hop tunnels the connection through ssh, and says so. `variables` are those of the scripts.
///
/// # Errors
/// [`Error::NotListening`] with the agent's last message, or why the connection failed.
#[allow(clippy::too_many_arguments, reason = "all of them are of the one agent that is reached")]
pub async fn reach(
    name: &str,
    request: &EnrolRequest,
    variables: &Variables,
    layout: &Layout,
    fingerprint: Fingerprint,
    goarch: &str,
    identity: &Identity,
    shell: &Shell,
) -> Result<Reached, Error> {
    let router = |via_ssh: bool, address: String| {
        let EnrolRequest { ssh, port, agent_address, cache_dir, listen_interface, .. } = request.clone();
        let persistence = layout.persistence;
        let program = (persistence == Persistence::Install).then(|| layout.program.clone());
        let enrolment = EnrolmentRecord {
            persistence,
            program,
            port,
            via_ssh,
            agent_address,
            cache_dir,
            listen_interface,
            next_fingerprint: None,
            asked: None,
            ssh,
        };
        let enrolment = Some(enrolment);
        Router {
            name: name.to_owned(),
            entry: Entry { address, fingerprint, goarch: goarch.to_owned(), enrolment, process: None },
        }
    };
    let open = async |router: &Router, timeout: Duration| {
        let (_, info) = Connection::open(router, identity, timeout).await?;
        Ok(Reached { router: router.clone(), version: info.agent_version })
    };
    let in_ssh = router(true, format!("127.0.0.1:{}", request.port));
    if request.via_ssh {
        wait_until_it_listens(request, variables, shell).await?;
        return open(&in_ssh, 2 * ATTEMPT_TIMEOUT).await;
    }
    let address = match &request.agent_address {
        Some(address) => address.clone(),
        None => address_of(&request.ssh.host_name().await.map_err(Error::Ssh)?, request.port),
    };
    let direct = router(false, address);
    let since = Instant::now();
    while since.elapsed() < PROMPT_TIMEOUT {
        if let Ok(reached) = open(&direct, ATTEMPT_TIMEOUT).await {
            return Ok(reached);
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
    wait_until_it_listens(request, variables, shell).await?;
    let failure = match open(&direct, ATTEMPT_TIMEOUT).await {
        Err(failure) if request.agent_address.is_none() => failure,
        reached => return reached,
    };
    let Ok(reached) = open(&in_ssh, 2 * ATTEMPT_TIMEOUT).await else { return Err(failure) };
    say!(
        "hop: {name}: {} does not lead to its agent, so connections ride in ssh; --agent-address names an address that does",
        direct.entry.address
    );
    Ok(reached)
}

async fn wait_until_it_listens(
    request: &EnrolRequest,
    variables: &Variables,
    shell: &Shell,
) -> Result<(), Error> {
    let variables = variables.clone().set("port", request.port.to_string());
    match shell.script("waiting for the agent", &variables, &[STATE, LISTENING]).await {
        Err(Error::Step { host, source, .. }) => Err(Error::NotListening { host, source }),
        other => other.map(|_| ()),
    }
}

fn address_of(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
