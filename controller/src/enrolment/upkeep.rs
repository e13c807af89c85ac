//! What is done with a router after it was enrolled: another agent, another controller, and the end.

use hop_proto::identity::Fingerprint;

use super::layout::{DD_WRT_HOMES, Layout};
use super::shell::{REMOVE, STOP, Shell, Variables};
use super::{AUTHORIZE, Adding, Enrolment, Error, START, Wish, look, send, try_out};
use crate::error::Error as HopError;
use crate::home::Home;
use crate::inventory::{Inventory, Router};
use crate::outcome::say;

const UPGRADE: &str = include_str!("scripts/upgrade.sh");
const RESTORE: &str = include_str!("scripts/restore.sh");

/// What became of the agent of a router that was let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Nothing of Hop is on the router any more.
    Removed,
    /// It stays, because that many other controllers use it.
    Shared(u32),
}

/// The login by which a router was enrolled.
pub(super) fn enrolment(router: &Router) -> Result<&Enrolment, Error> {
    router.entry.enrolment.as_ref().ok_or_else(|| Error::NoLogin { name: router.name.clone() })
}

/// Takes the agent off a router, unless another controller uses it too (`all` takes it off all the same), and forgets
/// the router.
///
/// # Errors
/// The login failed; the inventory keeps the router then.
pub async fn remove(home: &Home, router: &Router, all: bool) -> Result<Removal, HopError> {
    let enrolment = enrolment(router)?;
    let own = home.identity()?.fingerprint();
    let shell = Shell::new(&enrolment.ssh)?;
    let removed = remove_over(&shell, enrolment, own, all).await;
    shell.end().await;
    let removed = removed?;
    let inventory = Inventory::new(home);
    inventory.remove(&router.name)?;
    // Whether it is gone or does not know this controller any more, none of its names leads there.
    for other in inventory.list()?.iter().filter(|other| other.entry.fingerprint == router.entry.fingerprint)
    {
        inventory.remove(&other.name)?;
        say!("hop: {}: was another name of it, and is forgotten too", other.name);
    }
    Ok(removed)
}

async fn remove_over(
    shell: &Shell,
    enrolment: &Enrolment,
    own: Fingerprint,
    all: bool,
) -> Result<Removal, Error> {
    let survey = look(shell).await?;
    if let Some(agent) = survey.agents.first().filter(|_| !all) {
        let layout = Layout::of_existing(&agent.path);
        let others = authorize_over(shell, &layout, own, "", Variables::default()).await?.1;
        if others > 0 {
            return Ok(Removal::Shared(others));
        }
    }
    let variables = Variables::default()
        .set("homes", DD_WRT_HOMES)
        .set("store", enrolment.store.as_deref().unwrap_or_default());
    shell.script("removing the agent", &variables, &[STOP, REMOVE]).await?;
    Ok(Removal::Removed)
}

/// Lets the controller with this key use a router's agent; `comment` is for people. False if it could already.
///
/// # Errors
/// The login failed, there is no agent, or its list cannot be written.
pub async fn authorize(router: &Router, fingerprint: Fingerprint, comment: &str) -> Result<bool, HopError> {
    let enrolment = enrolment(router)?;
    let shell = Shell::new(&enrolment.ssh)?;
    let authorized = async {
        let survey = look(&shell).await?;
        let agent =
            survey.agents.first().ok_or_else(|| Error::NoAgent { host: enrolment.ssh.host.clone() })?;
        let line = format!("{fingerprint} {comment}");
        let layout = Layout::of_existing(&agent.path);
        authorize_over(&shell, &layout, fingerprint, line.trim_end(), Variables::default()).await
    };
    let authorized = authorized.await;
    shell.end().await;
    Ok(authorized?.0 == "added")
}

/// Puts `line` into the list, or takes the key off if it is empty. Gives what the script says of it, and how many others there are.
pub(super) async fn authorize_over(
    shell: &Shell,
    layout: &Layout,
    fingerprint: Fingerprint,
    line: &str,
    variables: Variables,
) -> Result<(String, u32), Error> {
    let variables = variables
        .set("state", layout.state.to_string_lossy())
        .set("fingerprint", fingerprint.to_string())
        .set("controller", line);
    let said = shell.script("changing who may connect", &variables, &[AUTHORIZE]).await?;
    let said = String::from_utf8_lossy(&said);
    let mut words = said.split_whitespace();
    let done = words.next().unwrap_or_default().to_owned();
    Ok((done, words.next().and_then(|count| count.parse().ok()).unwrap_or(0)))
}

/// Replaces a router's agent by that of this `hop`. Its key and who may connect stay; its jobs end. False if it is the
/// same already.
///
/// # Errors
/// What went wrong; the old agent runs again then.
pub async fn upgrade(home: &Home, router: &Router) -> Result<bool, HopError> {
    let wish = Wish::from(enrolment(router)?.clone());
    let identity = home.identity()?;
    let shell = Shell::new(&wish.ssh)?;
    let adding = Adding { home, name: &router.name, wish: &wish, identity: &identity, shell: &shell };
    let upgraded = adding.upgrade(router).await;
    shell.end().await;
    upgraded
}

impl Adding<'_> {
    async fn upgrade(&self, router: &Router) -> Result<bool, HopError> {
        let host = &self.wish.ssh.host;
        let survey = look(self.shell).await?;
        let arch = survey
            .agent_for(|arch| arch.agent().map_or(0, |agent| agent.len() as u64))
            .map_err(|why| Error::Unsuitable { host: host.clone(), why })?;
        let old = survey.agents.first().ok_or_else(|| Error::NoAgent { host: host.clone() })?;
        let layout = Layout::of_existing(&old.path);
        let agent = arch.agent()?;
        // The version alone does not tell two builds apart.
        let digest = super::digest_of(self.shell, &old.path.to_string_lossy()).await?;
        if digest == super::sha256(&agent) {
            return Ok(false);
        }
        let stage = format!("/tmp/hop-{}", super::random_name());
        let mut interrupts = super::listen()?;
        self.shell.command("making a directory in /tmp", &format!("umask 077; mkdir {stage}"), b"").await?;
        let interface = self.wish.listen_interface.clone().unwrap_or_default();
        let variables = self.variables(&stage, &layout, &interface);
        let upgraded = tokio::select! {
            upgraded = self.upgrade_in(router, &stage, &layout, &agent, &survey) => upgraded,
            signal = interrupts.next() => Err(HopError::Interrupted { signal }),
        };
        let upgraded = match upgraded {
            Ok(()) => Ok(()),
            Err(cause) => Err(self.restore(&variables, cause).await),
        };
        // What is left there is lost at the next reboot; what went wrong before is what must be told.
        let _ = self.shell.attempt(&format!("rm -rf {stage}")).await;
        upgraded.map(|()| true)
    }

    async fn upgrade_in(
        &self,
        router: &Router,
        stage: &str,
        layout: &Layout,
        agent: &[u8],
        survey: &super::survey::Survey,
    ) -> Result<(), HopError> {
        say!("hop: {}: sending hopd {}, {} kB", self.name, env!("CARGO_PKG_VERSION"), agent.len() / 1000);
        send(self.shell, stage, agent).await?;
        try_out(self.shell, &self.wish.ssh.host, stage, survey).await?;
        let interface = self.wish.listen_interface.clone().unwrap_or_default();
        let variables = self.variables(stage, layout, &interface);
        self.shell.script("replacing the agent", &variables, &[STOP, UPGRADE, START]).await?;
        let (arch, key) = (router.entry.goarch.as_str(), router.entry.fingerprint);
        super::connect::reach(self.name, self.wish, layout.way, key, arch, self.identity, self.shell).await?;
        Ok(())
    }

    /// Puts the old agent back if it is not there any more, and starts it if it does not run. Gives what is to be told.
    async fn restore(&self, variables: &Variables, cause: HopError) -> HopError {
        say!("hop: {}: the upgrade failed; the old agent is put back", self.name);
        let restored =
            self.shell.take_back("putting the old agent back", variables, &[STOP, RESTORE, START]).await;
        match restored {
            Ok(_) => cause,
            Err(why) => {
                let (cause, why) = (Box::new(cause), Box::new(why));
                Error::NotRestored { cause, host: self.wish.ssh.host.clone(), why }.into()
            }
        }
    }
}
