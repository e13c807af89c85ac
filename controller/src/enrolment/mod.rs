//! Enrolment: how a router and a controller learn each other's keys, over the owner's ssh login.
//!
//! [`add`] surveys the router, decides where the agent goes, uploads it, tests it there, moves it into place, starts
//! it, connects, and only then writes the inventory.
//!
//! **Invariants:** a failure at any step, including a link that breaks and a controller that is killed, leaves nothing
//! on the router and nothing in the inventory; keys are exchanged over the login, never over the agent's port; and as
//! root, hop runs, reads and writes no file that another user of the router, or the maker of a USB stick, can have put
//! there.

mod check;
mod connect;
mod enrol;
mod error;
mod keys;
mod layout;
mod shell;
mod stage;
pub mod suitability;
pub mod survey;
mod upkeep;

use hop_proto::identity::Fingerprint;

pub use check::{Finding, check};
pub use error::Error;
pub use keys::{rekey, revoke};
pub use upkeep::{Removal, authorize, remove, upgrade};

use self::enrol::Enrolment;
use self::shell::{Shell, Variables};
use self::survey::Survey;
use crate::client::ssh::RemoteMessage;
use crate::config::enrolment::{Destination, EnrolmentRecord, Persistence};
use crate::config::home::Home;
use crate::config::inventory::{Inventory, Router};

/// The requested enrolment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolRequest {
    /// The login.
    pub ssh: Destination,
    /// How long the agent is to stay; `None`: as long as it can.
    pub persistence: Option<Persistence>,
    /// The port on which it is to listen.
    pub port: u16,
    /// The connection is to ride in an ssh channel, and nothing is to listen on the network.
    pub via_ssh: bool,
    /// Where this machine reaches it, if not at ssh's host.
    pub agent_address: Option<String>,
    /// The directory of its persistent store.
    pub cache_dir: Option<String>,
    /// The network interface on which it is to listen, or `any`; `None`: the one by which ssh reaches the router.
    pub listen_interface: Option<String>,
}

impl From<EnrolmentRecord> for EnrolRequest {
    fn from(enrolment: EnrolmentRecord) -> Self {
        let EnrolmentRecord {
            persistence,
            port,
            via_ssh,
            agent_address,
            cache_dir,
            listen_interface,
            ssh,
            ..
        } = enrolment;
        Self {
            ssh,
            persistence: Some(persistence),
            port,
            via_ssh,
            agent_address,
            cache_dir,
            listen_interface,
        }
    }
}

/// Enrols a router under `name`, and replaces one of that name. Prints each step to standard error.
///
/// # Errors
/// [`Error`], or what keeps this machine from reaching the agent; nothing is left then.
pub async fn add(home: &Home, name: &str, request: &EnrolRequest) -> Result<Router, Error> {
    Inventory::check_name(name)?;
    let identity = home.identity()?;
    let shell = Shell::new(&request.ssh)?;
    let added = Enrolment { home, name, request, identity: &identity, shell: &shell }.run().await;
    shell.end().await;
    added
}

const AUTHORIZE: &str = include_str!("scripts/authorize.sh");

/// Finds out what the router is.
async fn look(shell: &Shell) -> Result<Survey, Error> {
    let said = shell.script("looking at the router", &Variables::default(), &[survey::SCRIPT]).await?;
    if !said.starts_with(b"@") && !said.windows(2).any(|bytes| bytes == b"\n@") {
        let source = RemoteMessage::last_line(&said);
        return Err(Error::NoShell { host: shell.host().to_owned(), source });
    }
    Ok(Survey::parse(&said))
}

fn read_fingerprint(said: &[u8]) -> Result<Fingerprint, Error> {
    let text = String::from_utf8_lossy(said);
    let fingerprint = text.lines().find_map(|line| line.strip_prefix("fingerprint "));
    fingerprint.and_then(|text| text.trim().parse().ok()).ok_or_else(|| Error::Step {
        step: "reading the agent's key",
        host: "the router".to_owned(),
        source: RemoteMessage::last_line(said),
    })
}
