//! Hints about a router of the inventory: commands to copy, filled in with what the inventory has of it.

use super::super::Error;
use crate::client;
use crate::client::ssh::word;
use crate::config::enrolment::EnrolmentRecord;
use crate::config::home::Home;
use crate::config::inventory::{Inventory, Router};
use crate::virtual_router::profile;
use crate::{config, enrolment, session};

/// How much a name must resemble that of a router to be taken for it, from 0 to 1.
const MIN_SIMILARITY: f64 = 0.8;

/// What the inventory knows to do about a failure, if it is one about a router.
pub fn hint(error: &Error, home: &Home) -> Option<String> {
    let inventory = Inventory::new(home);
    match error {
        Error::Client(error) | Error::Session(session::Error::Client(error)) => of_client(error, &inventory),
        Error::Enrolment(enrolment::Error::Client(error)) => of_client(error, &inventory),
        Error::Config(config::Error::UnknownRouter { name, .. })
        | Error::Enrolment(enrolment::Error::Config(config::Error::UnknownRouter { name, .. })) => {
            of_unknown(name, home, &inventory)
        }
        _ => None,
    }
}

fn of_client(error: &client::Error, inventory: &Inventory) -> Option<String> {
    use client::Error::{NoAnswer, Unreachable, WrongKey};
    let (Unreachable { router, .. } | NoAnswer { router, .. } | WrongKey { router, .. }) = error else {
        return None;
    };
    let router = inventory.find(router).ok()??;
    let name = &router.name;
    if inventory.is_virtual(&router.entry) {
        return Some(format!(
            "`hop virtual list` shows whether it runs, `hop virtual console {name}` what it says"
        ));
    }
    let again = enrolment_command(&router)?;
    Some(match error {
        WrongKey { .. } => format!(
            "nothing was sent. If its agent was installed again: hop router add {name}; if another machine has its address \
             now: {again}"
        ),
        NoAnswer { .. } => {
            format!("a longer --connect-timeout may help; if it has another address now: {again}")
        }
        _ => format!(
            "is the router on, is hopd running? `hop router check {name}` diagnoses it; if it has another address now: {again}"
        ),
    })
}

/// A command that enrols a router again at another address, with all else as it was asked for.
fn enrolment_command(router: &Router) -> Option<String> {
    let EnrolmentRecord { port, via_ssh, cache_dir, ssh, .. } = router.entry.enrolment.as_ref()?;
    let user = ssh.host.rsplit_once('@').map(|(user, _)| format!("{user}@")).unwrap_or_default();
    let ssh_port = ssh.port.map(|port| format!(":{port}")).unwrap_or_default();
    let mut words =
        vec![format!("hop router add {} {}", router.name, word(&format!("{user}ADDRESS{ssh_port}")))];
    words.extend(ssh.identity.as_ref().map(|key| format!("-i {}", word(&key.to_string_lossy()))));
    words.extend(ssh.options.iter().map(|option| format!("-o {}", word(option))));
    words.extend((*port != hop_proto::limits::DEFAULT_PORT).then(|| format!("--port {port}")));
    words.extend(via_ssh.then(|| "--via-ssh".to_owned()));
    words.extend(cache_dir.as_ref().map(|directory| format!("--cache-dir {}", word(directory))));
    Some(words.join(" "))
}

/// A name that no router has.
fn of_unknown(name: &str, home: &Home, inventory: &Inventory) -> Option<String> {
    let (routers, _) = inventory.readable().ok()?;
    let resemblance = |router: &&Router| strsim::jaro(&router.name.to_lowercase(), &name.to_lowercase());
    let meant = routers.iter().max_by(|one, other| resemblance(one).total_cmp(&resemblance(other)));
    if let Some(router) = meant.filter(|router| resemblance(router) > MIN_SIMILARITY) {
        let words: Vec<String> = std::env::args().collect();
        return Some(corrected(&words, name, &router.name));
    }
    if profile::names(home).ok()?.iter().any(|profile| profile == name) {
        return Some(format!("`hop virtual up --profile {name}` starts one"));
    }
    let is_name = Inventory::check_name(name).is_ok();
    is_name.then(|| {
        format!("`hop router add {name} root@ADDRESS` enrols it, `hop router list` lists the others")
    })
}

/// The command line again with the right name of the router.
fn corrected(words: &[String], name: &str, meant: &str) -> String {
    let mut is_replaced = false;
    let mut replaced = |text: &str| {
        is_replaced = true;
        word(text)
    };
    let arguments: Vec<String> = words
        .iter()
        .skip(1)
        .map(|argument| match argument.strip_suffix(name) {
            Some("") => replaced(meant),
            Some(option) if option.ends_with("-router=") => replaced(&format!("{option}{meant}")),
            _ => word(argument),
        })
        .collect();
    let command = format!("hop {}", arguments.join(" "));
    // It was HOP_ROUTER.
    if is_replaced { command } else { format!("HOP_ROUTER={meant} {command}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::enrolment::{Destination, Persistence};
    use crate::config::inventory::Entry;

    fn router(name: &str) -> Router {
        let ssh = Destination {
            identity: Some("/my keys/id".into()),
            ..Destination::parse("admin@10.0.0.1:2222").unwrap()
        };
        let enrolment = EnrolmentRecord {
            persistence: Persistence::Install,
            program: None,
            port: 4000,
            via_ssh: false,
            agent_address: None,
            cache_dir: Some("/mnt/sda1/hop".into()),
            listen_interface: None,
            next_fingerprint: None,
            asked: None,
            ssh,
        };
        let fingerprint = format!("SHA256:{}", "ab".repeat(32)).parse().unwrap();
        let address = "10.0.0.1:4000".into();
        let entry =
            Entry { address, fingerprint, goarch: "mips".into(), enrolment: Some(enrolment), process: None };
        Router { name: name.into(), entry }
    }

    fn home() -> (tempfile::TempDir, Home) {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path());
        Inventory::new(&home).put(&router("desk")).unwrap();
        (directory, home)
    }

    #[test]
    fn moved_router_has_its_command() {
        let (_directory, home) = home();
        let source = std::io::ErrorKind::HostUnreachable.into();
        let unreachable =
            client::Error::Unreachable { router: "desk".into(), address: "10.0.0.1:4000".into(), source };
        let hint = hint(&unreachable.into(), &home).unwrap();
        let command =
            "hop router add desk admin@ADDRESS:2222 -i '/my keys/id' --port 4000 --cache-dir /mnt/sda1/hop";
        assert!(hint.ends_with(command), "{hint}");
    }

    #[test]
    fn mistyped_name_has_its_command() {
        let words = |line: &str| line.split('|').map(str::to_owned).collect::<Vec<_>>();
        for (line, command) in [
            ("hop|run|-r|dsk|./a b|x", "hop run -r desk './a b' x"),
            ("/bin/hop|ps|--router=dsk", "hop ps --router=desk"),
            ("hop|ps", "HOP_ROUTER=desk hop ps"),
        ] {
            assert_eq!(corrected(&words(line), "dsk", "desk"), command);
        }
        let (_directory, home) = home();
        let unknown = |name: &str| {
            let error = config::Error::UnknownRouter { name: name.into(), known: "desk".into() };
            hint(&error.into(), &home).unwrap()
        };
        assert!(unknown("Dekst").starts_with("HOP_ROUTER=desk hop"), "{}", unknown("Dekst"));
        assert_eq!(unknown("dir-505"), "`hop virtual up --profile dir-505` starts one");
        assert!(unknown("attic").starts_with("`hop router add attic root@ADDRESS` enrols it"));
    }
}
