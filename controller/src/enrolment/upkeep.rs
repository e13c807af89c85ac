//! Maintains an enrolled router: upgrades its agent, adds controllers, removes it.

use std::path::Path;

use hop_formats::size::Size;
use hop_proto::identity::Fingerprint;

use super::enrol::{self, Enrolment, START};
use super::layout::Layout;
use super::shell::{REMOVE, STOP, Shell, Variables};
use super::stage::{random_name, send, sha256, try_out};
use super::survey::{Agent, Survey};
use super::{AUTHORIZE, EnrolRequest, Error, look};
use crate::client;
use crate::client::ssh::quoted;
use crate::config::enrolment::EnrolmentRecord;
use crate::config::enrolment::Persistence;
use crate::config::home::Home;
use crate::config::inventory::{Inventory, Router};
use crate::console::say;

const UPGRADE: &str = include_str!("scripts/upgrade.sh");
const RESTORE: &str = include_str!("scripts/restore.sh");

/// The directory that every agent has in RAM.
const RAM: &str = "/tmp/hop";

/// The state of the agent after its router was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Nothing of Hop is on the router any more.
    Removed,
    /// All but its disk cache in this directory, whose medium is not there.
    ExceptCache(String),
    /// It stays, because that many other controllers use it.
    Shared(u32),
}

/// The login by which a router was enrolled.
pub(super) fn enrolment(router: &Router) -> Result<&EnrolmentRecord, Error> {
    router.entry.enrolment.as_ref().ok_or_else(|| Error::NoLogin { name: router.name.clone() })
}

/// Takes the agent off a router, unless another controller uses it too (`all` takes it off all the same), and forgets
/// the router.
///
/// # Errors
/// The login failed; the inventory keeps the router then.
pub async fn remove(home: &Home, router: &Router, all: bool) -> Result<Removal, Error> {
    let enrolment = enrolment(router)?;
    let own = home.identity()?.fingerprint();
    let shell = Shell::new(&enrolment.ssh)?;
    let removed = remove_over(&shell, &router.name, enrolment, own, all).await;
    shell.end().await;
    let removed = removed.map_err(|cause| match cause {
        Error::Ssh(_) => Error::NotRemoved { cause: Box::new(cause), name: router.name.clone() },
        cause => cause,
    })?;
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
    name: &str,
    enrolment: &EnrolmentRecord,
    own: Fingerprint,
    all: bool,
) -> Result<Removal, Error> {
    let survey = look(shell).await?;
    let host = &enrolment.ssh.host;
    if survey.is_guarded {
        return Err(Error::UnderWay { host: host.clone() });
    }
    // An agent that `hop` cannot see would run again after the next boot.
    if enrolment.persistence == Persistence::Install {
        Layout::check_presence(&survey, host, enrolment.program.as_deref()).map_err(|why| Error::Away {
            name: name.to_owned(),
            host: host.clone(),
            why: Box::new(why),
        })?;
    }
    // Of a directory in /tmp nothing runs again, and it may well be there beside an agent. Of anything else it may.
    if let Some(path) = survey.foreign.iter().find(|path| *path != Path::new(RAM)) {
        return Err(Error::Foreign { host: host.clone(), path: path.clone() });
    }
    if let Some(agent) = survey.agents.first().filter(|_| !all) {
        let layout = Layout::of_existing(&agent.path);
        let others = authorize_over(shell, &layout, own, "", Variables::default()).await?.1;
        if others > 0 {
            return Ok(Removal::Shared(others));
        }
    }
    // An agent that another controller has enrolled has a cache that only it can name.
    let cache_dir = match &enrolment.cache_dir {
        Some(directory) => directory.clone(),
        None => cache_dir_of_agent(shell, &survey).await?,
    };
    let variables =
        Variables::default().set("home", "").set("new_cache_dir", "").set("cache_dir", &cache_dir);
    // The medium is what survives all else, so what is on it must not be forgotten. A directory that is there, is on the
    // flash, and is removed.
    let is_away = !cache_dir.is_empty()
        && enrol::check_cache_dir(&survey, host, &cache_dir).is_err()
        && !shell.attempt(&format!("[ -d {} ]", quoted(&cache_dir))).await?.status.success();
    shell.script("removing the agent", &variables, &[STOP, REMOVE]).await?;
    for path in &survey.foreign {
        say!("hop: {name}: {} is not root's alone, so it is not Hop's and stays", path.display());
    }
    Ok(if is_away { Removal::ExceptCache(cache_dir) } else { Removal::Removed })
}

/// The cache directory that the agent on a router was started with, or nothing.
pub(super) async fn cache_dir_of_agent(shell: &Shell, survey: &Survey) -> Result<String, Error> {
    let Some(agent) = survey.agents.first() else { return Ok(String::new()) };
    let layout = Layout::of_existing(&agent.path);
    let variables = Variables::default()
        .set("program", layout.program.to_string_lossy())
        .set("state", layout.state.to_string_lossy());
    let said = shell.ask("cache-dir", &variables).await?;
    let text = String::from_utf8_lossy(&said.stdout).trim_end_matches('\n').to_owned();
    Ok(if said.status.success() { text } else { String::new() })
}

/// The agent on a router.
pub(super) fn the_agent<'a>(survey: &'a Survey, name: &str, host: &str) -> Result<&'a Agent, Error> {
    let Some(agent) = survey.agents.first() else {
        survey.check_foreign(host)?;
        return Err(Error::NoAgent { name: name.to_owned(), host: host.to_owned() });
    };
    Ok(agent)
}

/// Authorizes the controller with this key on a router; `comment` names it in the agent's list. False if it was
/// authorized already.
///
/// # Errors
/// The login failed, there is no agent, or its list cannot be written.
pub async fn authorize(router: &Router, fingerprint: Fingerprint, comment: &str) -> Result<bool, Error> {
    let enrolment = enrolment(router)?;
    let shell = Shell::new(&enrolment.ssh)?;
    let authorized = async {
        let survey = look(&shell).await?;
        let agent = the_agent(&survey, &router.name, &enrolment.ssh.host)?;
        let line = format!("{fingerprint} {comment}");
        let layout = Layout::of_existing(&agent.path);
        authorize_over(&shell, &layout, fingerprint, line.trim_end(), Variables::default()).await
    };
    let authorized = authorized.await;
    shell.end().await;
    Ok(authorized?.0 == "added")
}

/// Puts `line` into the list, or removes the key if `line` is empty. Returns the result that the script prints, and how
/// many other keys are on the list.
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
/// The error; the old agent then runs again, unless the text says otherwise.
pub async fn upgrade(home: &Home, router: &Router) -> Result<bool, Error> {
    let request = EnrolRequest::from(enrolment(router)?.clone());
    let identity = home.identity()?;
    let shell = Shell::new(&request.ssh)?;
    let adding =
        Enrolment { home, name: &router.name, request: &request, identity: &identity, shell: &shell };
    let upgraded = adding.upgrade(router).await;
    shell.end().await;
    upgraded
}

impl Enrolment<'_> {
    async fn upgrade(&self, router: &Router) -> Result<bool, Error> {
        let host = &self.request.ssh.host;
        let survey = look(self.shell).await?;
        let arch = survey
            .agent_for(|arch| arch.agent().map_or(0, |agent| agent.len() as u64))
            .map_err(|why| Error::Unsupported { host: host.clone(), why })?;
        if survey.is_guarded {
            return Err(Error::UnderWay { host: host.clone() });
        }
        survey.check_foreign(host)?;
        let old = the_agent(&survey, self.name, host)?;
        let layout = Layout::of_existing(&old.path);
        let agent = arch.agent()?;
        // The version alone does not tell two builds apart.
        if self.digest_of(old, &layout).await? == sha256(&agent) {
            return Ok(false);
        }
        let stage = format!("/tmp/hop-{}", random_name());
        let mut interrupts = enrol::listen()?;
        let interface = self.request.listen_interface.clone().unwrap_or_default();
        let variables = self.variables(&stage, &layout, &interface);
        let guard = self.shell.guard(variables.clone(), &stage, &[STOP, RESTORE, START]).await?;
        let upgraded = tokio::select! {
            upgraded = self.upgrade_in(router, &variables, &stage, &layout, &agent, &survey) => upgraded,
            signal = interrupts.next() => Err(Error::Interrupted { signal }),
        };
        let Err(cause) = upgraded else {
            if guard.commit().await {
                return Ok(true);
            }
            return Err(client::Error::Lost { router: self.name.to_owned(), source: None }.into());
        };
        say!("hop: {}: the upgrade failed, and is taken back", self.name);
        match guard.undo().await {
            Ok(()) => {
                say!("hop: {}: the old agent is there, and runs", self.name);
                Err(cause)
            }
            Err(source) => {
                let (name, host) = (self.name.to_owned(), host.clone());
                Err(Error::NotRestored { cause: Box::new(cause), name, host, source })
            }
        }
    }

    /// The digest of the agent that is there, as hexadecimal digits.
    async fn digest_of(&self, agent: &Agent, layout: &Layout) -> Result<String, Error> {
        if let Some(digest) = &agent.digest {
            return Ok(digest.clone());
        }
        // A router without sha256sum.
        let said = self.shell.ask("digest", &self.variables("", layout, "")).await?;
        let said = self.shell.succeeded("asking for its digest", said)?;
        Ok(String::from_utf8_lossy(&said).trim().to_owned())
    }

    async fn upgrade_in(
        &self,
        router: &Router,
        variables: &Variables,
        stage: &str,
        layout: &Layout,
        agent: &[u8],
        survey: &super::survey::Survey,
    ) -> Result<(), Error> {
        say!("hop: {}: sending hopd {}, {}", self.name, env!("CARGO_PKG_VERSION"), Size(agent.len() as u64));
        send(self.shell, stage, agent).await?;
        try_out(self.shell, &self.request.ssh.host, stage, survey).await?;
        self.shell.script("replacing the agent", variables, &[STOP, UPGRADE, START]).await?;
        let (arch, key) = (router.entry.goarch.as_str(), router.entry.fingerprint);
        let request = self.request;
        super::connect::reach(self.name, request, variables, layout, key, arch, self.identity, self.shell)
            .await?;
        Ok(())
    }
}
