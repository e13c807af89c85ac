//! `hop router`.

use std::path::PathBuf;

use hop_proto::limits::DEFAULT_PORT;
use serde::Serialize;

use super::Error;
use super::{failure, info, print, print_json, selected_router};
use crate::cli::{self, Add};
use crate::client;
use crate::client::connection::{Connection, DEFAULT_TIMEOUT};
use crate::client::mux::{self, Stopped};
use crate::config::enrolment::{Asked, Destination, EnrolmentRecord, Persistence};
use crate::config::home::Home;
use crate::config::inventory::{Entry, Inventory, Router};
use crate::console::exit_code::ExitCode;
use crate::console::printable::printable;
use crate::console::say;
use crate::console::wrap::hanging;
use crate::enrolment::{self, EnrolRequest, Removal};
use crate::golang::build::goarch;
use crate::program::target_of;

/// The exit code of a check that found something wrong, and of a removal that had to leave something: Hop itself did not fail.
const FOUND: ExitCode = ExitCode::Program(1);

const DONE: ExitCode = ExitCode::Program(0);

/// Does one of the things that `hop router` can do.
pub async fn run(home: &Home, options: cli::Router) -> Result<ExitCode, Error> {
    let named = |name: Option<String>| selected_router(home, name.as_deref());
    match options {
        cli::Router::Add(options) => add(home, *options).await,
        cli::Router::List { json } => list(home, json),
        cli::Router::Use { name, unset } => use_router(home, name.as_deref(), unset),
        cli::Router::Info { name, connect_timeout, keep_connection, json } => {
            let router = Some(named(name)?.name);
            let router = cli::RouterOptions { router, connect_timeout, keep_connection };
            info::info(home, cli::Info { router, name: None, json }).await
        }
        cli::Router::Check { name, json } => check(home, &named(name)?, json).await,
        cli::Router::Upgrade { name } => {
            let router = named(name)?;
            let done = if enrolment::upgrade(home, &router).await? { "upgraded to" } else { "runs already" };
            print(&format!("{} {done} hopd {}", router.name, env!("CARGO_PKG_VERSION")))?;
            Ok(DONE)
        }
        cli::Router::Rename { name, new_name } => rename(home, &name, &new_name).await,
        cli::Router::Remove { name, all, forget } => remove(home, &name, all, forget).await,
        cli::Router::Disconnect { name } => disconnect(home, &named(name)?).await,
        cli::Router::Authorize { name, fingerprint, comment } => {
            let router = Inventory::new(home).get(&name)?;
            let comment = comment.unwrap_or_default().replace(['\n', '\r'], " ");
            let done = match enrolment::authorize(&router, fingerprint, &comment).await? {
                true => "may use",
                false => "could already use",
            };
            print(&format!("{fingerprint} {done} {name}"))?;
            if router.entry.enrolment.as_ref().is_some_and(|enrolment| !enrolment.via_ssh) {
                let Entry { address, fingerprint, .. } = &router.entry;
                say!(
                    "hop: there: hop router add {name} --agent-address {address} --fingerprint {fingerprint}"
                );
            }
            Ok(DONE)
        }
        cli::Router::Revoke { name, key, force } => revoke(home, &name, &key, force).await,
        cli::Router::Rekey { name } => {
            let router = Inventory::new(home).get(&name)?;
            let fingerprint = enrolment::rekey(home, &router).await?;
            print(&format!("{name} has the key {fingerprint}"))?;
            // Whose connection is kept has the old one pinned.
            let _ = mux::stop(home, &router).await;
            let address = &router.entry.address;
            say!(
                "hop: other controllers: hop router add NAME --agent-address {address} --fingerprint {fingerprint}"
            );
            Ok(DONE)
        }
    }
}

fn use_router(home: &Home, name: Option<&str>, unset: bool) -> Result<ExitCode, Error> {
    let inventory = Inventory::new(home);
    match name {
        Some(name) => inventory.set_default(name)?,
        None if unset => inventory.unset_default()?,
        None => print(inventory.default_name()?.as_deref().unwrap_or("no router is the default"))?,
    }
    Ok(DONE)
}

async fn rename(home: &Home, name: &str, new_name: &str) -> Result<ExitCode, Error> {
    let inventory = Inventory::new(home);
    let router = inventory.get(name)?;
    if inventory.is_virtual(&router.entry) {
        return Err(Error::Usage(format!("{name} is a virtual router, which has its files under its name")));
    }
    // A connection master is bound to the router's name.
    let _ = mux::stop(home, &router).await;
    inventory.rename(router, new_name)?;
    print(&format!("{name} is called {new_name} now"))?;
    Ok(DONE)
}

async fn revoke(home: &Home, name: &str, key: &str, force: bool) -> Result<ExitCode, Error> {
    let router = Inventory::new(home).get(name)?;
    let own = home.identity()?.fingerprint();
    let fingerprint = enrolment::revoke(&router, key, own, force).await?;
    print(&format!("{fingerprint} is revoked on {name}"))?;
    if fingerprint == own {
        say!("hop: that was this controller; `hop router add {name}` lets it in again");
    }
    Ok(DONE)
}

async fn add(home: &Home, options: Add) -> Result<ExitCode, Error> {
    let router = match options.fingerprint {
        Some(fingerprint) => {
            let address = options.agent_address.unwrap_or_default();
            let entry = Entry { address, fingerprint, goarch: String::new(), enrolment: None, process: None };
            add_known(home, Router { name: options.name, entry }).await?
        }
        None => {
            let name = options.name.clone();
            enrolment::add(home, &name, &request(home, options)?).await?
        }
    };
    print(&format!("{} enrolled {}", router.name, how(&router.entry)))?;
    Ok(DONE)
}

/// Adds a router whose key was brought here by other means, and which has ours.
async fn add_known(home: &Home, mut router: Router) -> Result<Router, Error> {
    Inventory::check_name(&router.name)?;
    let (_, info) = Connection::open(&router, &home.identity()?, DEFAULT_TIMEOUT).await?;
    let goarch = target_of(&info).and_then(goarch);
    router.entry.goarch =
        goarch.ok_or_else(|| client::Error::Incompatible { router: router.name.clone() })?.to_owned();
    Inventory::new(home).put(&router)?;
    Ok(router)
}

/// What the command line asks for; with no destination, the last enrolment with the options given now laid over it.
fn request(home: &Home, options: Add) -> Result<EnrolRequest, Error> {
    let base = match &options.destination {
        Some(destination) => EnrolRequest {
            ssh: Destination::parse(destination).map_err(enrolment::Error::Destination)?,
            persistence: None,
            port: DEFAULT_PORT,
            via_ssh: false,
            agent_address: None,
            cache_dir: None,
            listen_interface: None,
        },
        None => {
            let before = Inventory::new(home).find(&options.name)?;
            let enrolment = before.and_then(|router| router.entry.enrolment).ok_or_else(|| {
                Error::Usage(format!(
                    "{} is not enrolled over ssh, so it must be said where it is",
                    options.name
                ))
            })?;
            as_asked(enrolment)
        }
    };
    lay_over(base, options)
}

/// What an earlier enrolment was asked for, and not what came of it: a tunnel, an agent in RAM or a network interface that hop
/// chose because there was no better one is chosen again, and may be another one now. Only an installed agent stays one.
fn as_asked(enrolment: EnrolmentRecord) -> EnrolRequest {
    let asked = enrolment.asked.clone();
    let request = EnrolRequest::from(enrolment);
    let Some(Asked { persistence, via_ssh, listen_interface }) = asked else { return request };
    let installed = request.persistence.filter(|persistence| *persistence == Persistence::Install);
    EnrolRequest { persistence: persistence.or(installed), via_ssh, listen_interface, ..request }
}

fn lay_over(base: EnrolRequest, options: Add) -> Result<EnrolRequest, Error> {
    // The inventory keeps it, so it must mean the same in another directory.
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(Error::io("find", path));
    let identity = options.identity.as_ref().map(absolute).transpose()?;
    let ssh = Destination {
        identity: identity.or(base.ssh.identity),
        options: if options.options.is_empty() { base.ssh.options } else { options.options },
        ..base.ssh
    };
    let persistence = match (options.install, options.until_reboot) {
        (true, _) => Some(Persistence::Install),
        (_, true) => Some(Persistence::UntilReboot),
        _ => base.persistence,
    };
    // Either replaces the other.
    let via_ssh = options.via_ssh || base.via_ssh && options.listen_interface.is_none();
    Ok(EnrolRequest {
        ssh,
        persistence,
        port: options.port.unwrap_or(base.port),
        via_ssh,
        agent_address: options.agent_address.or(base.agent_address),
        cache_dir: options.cache_dir.or(base.cache_dir),
        listen_interface: options.listen_interface.or(base.listen_interface).filter(|_| !via_ssh),
    })
}

async fn check(home: &Home, router: &Router, json: bool) -> Result<ExitCode, Error> {
    let mut findings = enrolment::check(router, &home.identity()?).await;
    for finding in &mut findings {
        if let Some(cause) = &finding.cause {
            finding.hint = failure::enrolment_hint(cause);
        }
    }
    if json {
        print_json(&findings)?;
    } else {
        for finding in &findings {
            let mark = if finding.is_good { "ok" } else { "WRONG" };
            let line = format!("{mark:<6} {:<11} {}", finding.what, printable(&finding.said));
            print(&hanging(&line, 19))?;
            if let Some(hint) = &finding.hint {
                print(&format!("{:<18} hint: {hint}", ""))?;
            }
        }
    }
    Ok(if findings.iter().all(|finding| finding.is_good) { DONE } else { FOUND })
}

async fn remove(home: &Home, name: &str, all: bool, forget: bool) -> Result<ExitCode, Error> {
    let inventory = Inventory::new(home);
    let router = inventory.get(name)?;
    // A connection master is bound to the router's name.
    let _ = mux::stop(home, &router).await;
    if forget {
        inventory.remove(name)?;
        print(&format!("{name} forgotten; what is on it stays there"))?;
        return Ok(DONE);
    }
    match enrolment::remove(home, &router, all).await? {
        Removal::Removed => print(&format!("{name} removed; nothing of Hop is left on it"))?,
        Removal::ExceptCache(directory) => {
            print(&format!(
                "{name} removed, but for its disk cache {directory}, whose medium is not there: delete that directory yourself"
            ))?;
            return Ok(FOUND);
        }
        Removal::Shared(others) => {
            let controllers = if others == 1 { "another controller uses" } else { "other controllers use" };
            print(&format!(
                "{name} removed; its agent stays, because {controllers} it (--all takes it off)"
            ))?;
        }
    }
    Ok(DONE)
}

async fn disconnect(home: &Home, router: &Router) -> Result<ExitCode, Error> {
    let name = &router.name;
    print(&match mux::stop(home, router).await? {
        Stopped::None => format!("no connection to {name} is kept"),
        Stopped::Now => format!("the connection to {name} is closed"),
        Stopped::After(1) => {
            format!("the connection to {name} closes once the command that uses it has finished")
        }
        Stopped::After(users) => {
            format!("the connection to {name} closes once the {users} commands that use it have finished")
        }
    })?;
    Ok(DONE)
}

/// A router as `hop router list` shows it.
#[derive(Serialize)]
struct Line {
    name: String,
    /// It is the one that `hop router use` chose.
    default: bool,
    goarch: String,
    address: String,
    /// `install`, `until-reboot`, `virtual` (an agent on this machine, under qemu-user) or `by hand`.
    enrolled: &'static str,
    via_ssh: bool,
    ssh: Option<String>,
    /// Where its agent also caches programs: `--cache-dir`.
    cache_dir: Option<String>,
    fingerprint: String,
}

impl From<Router> for Line {
    fn from(Router { name, entry }: Router) -> Self {
        let enrolled = match &entry.enrolment {
            Some(EnrolmentRecord { persistence: Persistence::Install, .. }) => "install",
            Some(EnrolmentRecord { persistence: Persistence::UntilReboot, .. }) => "until-reboot",
            None if entry.process.is_some() => "virtual",
            None => "by hand",
        };
        Self {
            name,
            default: false,
            enrolled,
            goarch: entry.goarch,
            address: entry.address,
            via_ssh: entry.enrolment.as_ref().is_some_and(|enrolment| enrolment.via_ssh),
            cache_dir: entry.enrolment.as_ref().and_then(|enrolment| enrolment.cache_dir.clone()),
            ssh: entry.enrolment.map(|enrolment| enrolment.ssh.host),
            fingerprint: entry.fingerprint.to_string(),
        }
    }
}

fn list(home: &Home, json: bool) -> Result<ExitCode, Error> {
    let inventory = Inventory::new(home);
    let (routers, broken) = inventory.readable()?;
    for error in &broken {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        say!("hop: {error}{}", printable(&cause));
    }
    let mut lines: Vec<Line> = routers.into_iter().map(Line::from).collect();
    let default = inventory.default_name()?;
    for line in &mut lines {
        line.default = default.as_deref() == Some(&line.name);
    }
    if json {
        print_json(&lines)?;
        return Ok(DONE);
    }
    let mut text =
        format!("{:<18} {:<7} {:<28} {:<13} {:<24} DISK CACHE", "NAME", "ARCH", "ADDRESS", "ENROLLED", "SSH");
    for line in &lines {
        let address = if line.via_ssh { format!("{} in ssh", line.address) } else { line.address.clone() };
        let ssh = line.ssh.as_deref().unwrap_or("-");
        // As docker marks its context.
        let name = if line.default { format!("{} *", line.name) } else { line.name.clone() };
        let cache = line.cache_dir.as_deref().unwrap_or("-");
        text.push_str(&format!(
            "\n{name:<18} {:<7} {address:<28} {:<13} {ssh:<24} {cache}",
            line.goarch, line.enrolled
        ));
    }
    print(&text)?;
    Ok(DONE)
}

/// How hop reaches a router and how long its agent stays, as text for the user.
pub fn how(entry: &Entry) -> String {
    let address = &entry.address;
    let Some(enrolment) = &entry.enrolment else { return format!("at {address}") };
    let by =
        if enrolment.via_ssh { format!("by ssh to {}", enrolment.ssh.host) } else { format!("at {address}") };
    match enrolment.persistence {
        Persistence::Install => format!("{by}: installed, comes back after a reboot"),
        Persistence::UntilReboot => format!("{by}: until its next reboot"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        add: Add,
    }

    fn options(line: &str) -> Add {
        Line::parse_from(std::iter::once("add").chain(line.split(' '))).add
    }

    #[test]
    fn what_was_asked_for_is_asked_again() {
        let record = |persistence, asked| EnrolmentRecord {
            persistence,
            program: None,
            port: 4000,
            via_ssh: true,
            agent_address: None,
            cache_dir: None,
            listen_interface: Some("eth0".into()),
            next_fingerprint: None,
            asked,
            ssh: Destination::parse("root@desk").unwrap(),
        };
        // hop fell back to a tunnel and to RAM.
        let request = as_asked(record(Persistence::UntilReboot, Some(Asked::default())));
        assert_eq!((request.persistence, request.via_ssh, request.listen_interface), (None, false, None));
        let request = as_asked(record(Persistence::Install, Some(Asked::default())));
        assert_eq!(request.persistence, Some(Persistence::Install));
        let asked =
            Asked { persistence: Some(Persistence::UntilReboot), via_ssh: true, listen_interface: None };
        let request = as_asked(record(Persistence::UntilReboot, Some(asked)));
        assert!(request.via_ssh && request.persistence == Some(Persistence::UntilReboot));
        // An earlier version did not note it.
        let request = as_asked(record(Persistence::UntilReboot, None));
        assert_eq!((request.via_ssh, request.listen_interface.as_deref()), (true, Some("eth0")));
    }

    #[test]
    fn options_replace_those_of_last_enrolment() {
        let before = EnrolRequest {
            ssh: Destination {
                identity: Some("/key".into()),
                options: vec!["Compression=yes".into()],
                ..Destination::parse("root@192.168.1.1:2222").unwrap()
            },
            persistence: Some(Persistence::Install),
            port: 4000,
            via_ssh: true,
            agent_address: None,
            cache_dir: Some("/mnt/hop".into()),
            listen_interface: None,
        };
        let with = |line: &str| lay_over(before.clone(), options(line)).unwrap();
        assert_eq!(with("desk"), before);
        let ssh = Destination {
            identity: Some("/other".into()),
            options: vec!["A=b".into(), "C=d".into()],
            ..before.ssh.clone()
        };
        assert_eq!(
            with("desk -i /other -o A=b -o C=d --port 5000 --agent-address h:1 --until-reboot"),
            EnrolRequest {
                ssh,
                port: 5000,
                agent_address: Some("h:1".into()),
                persistence: Some(Persistence::UntilReboot),
                ..before.clone()
            }
        );
        let direct =
            EnrolRequest { via_ssh: false, listen_interface: Some("br-lan".into()), ..before.clone() };
        assert_eq!(with("desk --listen-interface br-lan"), direct);
        assert_eq!(lay_over(direct, options("desk --via-ssh")).unwrap(), before);
    }
}
