//! The keys of a router, over its login: who may connect is taken off its list, and its agent gets another key.
//!
//! **Invariants:** wherever an exchange of the agent's key is cut off, this controller still accepts the key that the agent
//! proves, and to run it again finishes it.

use hop_proto::identity::Fingerprint;

use super::layout::Layout;
use super::shell::{Shell, Variables};
use super::{Error, look, read_fingerprint};
use crate::client::connection::{Connection, DEFAULT_TIMEOUT};
use crate::config::home::Home;
use crate::config::inventory::{Inventory, Router};

const REKEY: &str = include_str!("scripts/rekey.sh");

/// A key on a router's list: its fingerprint, and what the list calls it.
type ListedKey = (Fingerprint, String);

/// Takes the key off a router's list that `key` names: a fingerprint, or the name behind one if only one has it. The agent ends its
/// connections and jobs. This controller's own key, and the only one, are taken off if `force` says so.
///
/// # Errors
/// [`Error::UnknownKey`], [`Error::AmbiguousKey`], [`Error::OwnKey`], [`Error::OnlyKey`]; the login failed, there is no agent, or
/// its list cannot be written.
pub async fn revoke(router: &Router, key: &str, own: Fingerprint, force: bool) -> Result<Fingerprint, Error> {
    let enrolment = super::upkeep::enrolment(router)?;
    let shell = Shell::new(&enrolment.ssh)?;
    let revoked = async {
        let layout = layout_of_agent(&shell, &router.name, &enrolment.ssh.host).await?;
        let said = shell.ask("list", &variables(&layout)).await?;
        let list = listed(&shell.succeeded("reading who may connect", said)?);
        let fingerprint = resolve(&list, key)?;
        if fingerprint == own && !force {
            return Err(Error::OwnKey { name: router.name.clone() });
        }
        if list.len() == 1 && !force {
            return Err(Error::OnlyKey { name: router.name.clone() });
        }
        let variables = Variables::default().set("force", if force { "yes" } else { "" });
        match super::upkeep::authorize_over(&shell, &layout, fingerprint, "", variables).await? {
            // Somebody else has taken off the others meanwhile.
            (said, _) if said == "alone" => Err(Error::OnlyKey { name: router.name.clone() }),
            (said, _) if said == "gone" => Ok(fingerprint),
            _ => {
                Err(Error::UnknownKey { key: key.to_owned(), known: "it was taken off meanwhile".to_owned() })
            }
        }
    };
    let revoked = revoked.await;
    shell.end().await;
    revoked
}

/// Gives a router's agent another key, and pins that. Gives its fingerprint.
///
/// The new key is made beside the old one; the inventory accepts both; the router puts the new one in the place of the old
/// one by one rename, which a running agent heeds at its next handshake; and when the agent has proved it, the inventory
/// accepts it alone.
///
/// # Errors
/// [`Error::OtherKey`] if the router has neither of the keys that the inventory knows; the login failed, there is no agent, or it
/// does not answer. What was begun is finished by doing it again.
pub async fn rekey(home: &Home, router: &Router) -> Result<Fingerprint, Error> {
    let enrolment = super::upkeep::enrolment(router)?;
    let shell = Shell::new(&enrolment.ssh)?;
    let exchanged = exchange(home, router, &shell, &enrolment.ssh.host).await;
    shell.end().await;
    exchanged
}

async fn exchange(home: &Home, router: &Router, shell: &Shell, host: &str) -> Result<Fingerprint, Error> {
    let variables = variables(&layout_of_agent(shell, &router.name, host).await?);
    let said = shell.ask("fingerprint", &variables).await?;
    let current = read_fingerprint(&shell.succeeded("asking for its key", said)?)?;
    let pinned = router.entry.pinned();
    if !pinned.contains(&current) {
        return Err(Error::OtherKey { name: router.name.clone(), found: current });
    }
    let next = if current == router.entry.fingerprint {
        let said = shell.ask("next-fingerprint", &variables).await?;
        let next = read_fingerprint(&shell.succeeded("making a new key", said)?)?;
        pin(home, router, |before| (before, Some(next)))?;
        let variables = variables.set("next", next.to_string());
        let now = read_fingerprint(&shell.script("exchanging its key", &variables, &[REKEY]).await?)?;
        if now != next {
            // Another controller has replaced it at the same time.
            return Err(Error::OtherKey { name: router.name.clone(), found: now });
        }
        next
    } else {
        current
    };
    let mut renewed = router.clone();
    renewed.entry.fingerprint = next;
    Connection::open(&renewed, &home.identity()?, DEFAULT_TIMEOUT).await?;
    pin(home, router, |_| (next, None))?;
    Ok(next)
}

/// Writes the accepted keys of a router into the inventory, under all of its names.
fn pin(
    home: &Home,
    router: &Router,
    keys: impl Fn(Fingerprint) -> (Fingerprint, Option<Fingerprint>),
) -> Result<(), Error> {
    let inventory = Inventory::new(home);
    for mut other in inventory.list()? {
        if other.entry.fingerprint != router.entry.fingerprint {
            continue;
        }
        // Only an entry with a login can wait for the next key; one without a login gets the current key alone.
        if let Some(enrolment) = &mut other.entry.enrolment {
            (other.entry.fingerprint, enrolment.next_fingerprint) = keys(other.entry.fingerprint);
        } else {
            other.entry.fingerprint = keys(other.entry.fingerprint).0;
        }
        inventory.put(&other)?;
    }
    Ok(())
}

async fn layout_of_agent(shell: &Shell, name: &str, host: &str) -> Result<Layout, Error> {
    let survey = look(shell).await?;
    Ok(Layout::of_existing(&super::upkeep::the_agent(&survey, name, host)?.path))
}

/// The variables of the scripts.
fn variables(layout: &Layout) -> Variables {
    let (program, state) = (layout.program.to_string_lossy(), layout.state.to_string_lossy());
    Variables::default().set("program", program).set("state", state)
}

/// The keys of a list, which has options in front of some (agent/src/access/authorized_keys.rs).
fn listed(list: &[u8]) -> Vec<ListedKey> {
    let text = String::from_utf8_lossy(list);
    let key = |line: &str| {
        let line = line.trim();
        if line.starts_with('#') {
            return None;
        }
        let mut words = line.split_whitespace().skip_while(|word| !word.starts_with("SHA256:"));
        let fingerprint = words.next()?.parse().ok()?;
        Some((fingerprint, words.collect::<Vec<_>>().join(" ")))
    };
    text.lines().filter_map(key).collect()
}

/// The key that is meant.
fn resolve(list: &[ListedKey], key: &str) -> Result<Fingerprint, Error> {
    let is_meant = |(fingerprint, name): &&ListedKey| {
        key.parse() == Ok(*fingerprint) || (!key.is_empty() && name == key)
    };
    let mut meant: Vec<Fingerprint> = list.iter().filter(is_meant).map(|(found, _)| *found).collect();
    meant.dedup();
    match meant[..] {
        [fingerprint] => Ok(fingerprint),
        [] => {
            let known: Vec<_> = list
                .iter()
                .map(
                    |(fingerprint, name)| {
                        if name.is_empty() { fingerprint.to_string() } else { name.clone() }
                    },
                )
                .collect();
            Err(Error::UnknownKey { key: key.to_owned(), known: known.join(", ") })
        }
        _ => Err(Error::AmbiguousKey { key: key.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::io::Write;
    use std::path::Path;
    use std::process::{Child, Command, Stdio};

    use super::super::AUTHORIZE;
    use super::super::shell::OWNERSHIP;
    use super::*;
    use crate::client::ssh::quoted;

    /// In front of the script, behind what tells who owns what: here the paths may be anybody's.
    const ANYBODYS: &str = "close_tmp() { :; }\nmust_be_ours() { :; }\n";

    /// Runs the script that changes a list, with the shell of this machine, and returns its output.
    fn change(state: &Path, fingerprint: &str, line: &str, force: &str) -> Child {
        let variables = [
            format!("state={}\n", quoted(state.to_str().unwrap())),
            format!("fingerprint={}\ncontroller={}\n", quoted(fingerprint), quoted(line)),
            format!("force={}\n", quoted(force)),
        ];
        let mut shell = Command::new("sh")
            .arg("-s")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let script = [&variables.concat(), OWNERSHIP, ANYBODYS, AUTHORIZE].concat();
        shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        shell
    }

    #[track_caller]
    fn said(shell: Child) -> String {
        let output = shell.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().replace('\n', " ")
    }

    #[test]
    fn concurrent_list_changes_lose_nothing() {
        let state = tempfile::tempdir().unwrap();
        let path = |name: &str| state.path().join(name);
        let keys = ["1", "2", "3", "4"].map(|digit| format!("SHA256:{}", digit.repeat(64)));
        // As an editor leaves it, and as one leaves the lock that was killed in another boot.
        fs::write(path("authorized"), format!("# desks * ?\n{} me", keys[0])).unwrap();
        fs::create_dir(path("authorized.lock")).unwrap();
        fs::write(path("authorized.lock/owner"), "1 another\n").unwrap();
        let changes = keys.each_ref().map(|key| change(state.path(), key, &format!("{key} new"), ""));
        let mut said_of_all = changes.map(said);
        said_of_all.sort();
        assert_eq!(said_of_all[..3], ["added 1 ", "added 2 ", "added 3 "]);
        assert!(said_of_all[3].starts_with("there "), "{said_of_all:?}");
        let list = fs::read_to_string(path("authorized")).unwrap();
        assert!(list.starts_with(&format!("# desks * ?\n{} me\n", keys[0])), "{list}");
        assert!(list.lines().count() == 5 && keys.iter().all(|key| list.contains(key)), "{list}");
        let changes = [&keys[1], &keys[2], &keys[3]].map(|key| change(state.path(), key, "", ""));
        assert!(changes.map(said).iter().all(|said| said.starts_with("gone ")));
        assert_eq!(fs::read_to_string(path("authorized")).unwrap(), format!("# desks * ?\n{} me\n", keys[0]));
        let left = || fs::read_dir(state.path()).unwrap().count();
        assert_eq!(left(), 1, "neither lock nor draft is left");
    }

    #[test]
    fn only_key_needs_force() {
        let state = tempfile::tempdir().unwrap();
        let list = state.path().join("authorized");
        let [one, two] = ["1", "2"].map(|digit| format!("SHA256:{}", digit.repeat(64)));
        fs::write(&list, format!("replaces=\"{one}\" {two} x\n")).unwrap();
        // An option names a key that is not the line's own.
        assert_eq!(said(change(state.path(), &one, "", "yes")), "absent 1 ");
        assert_eq!(said(change(state.path(), &two, "", "")), "alone 0 ");
        assert_eq!(said(change(state.path(), &two, "", "yes")), "gone 0 ");
        assert_eq!(fs::read_to_string(&list).unwrap(), "");
    }

    #[test]
    fn keys_are_removed_in_any_spelling() {
        let state = tempfile::tempdir().unwrap();
        let list = state.path().join("authorized");
        let [one, two] = ["1a", "2b"].map(|digits| format!("SHA256:{}", digits.repeat(32)));
        let upper = format!("SHA256:{}", "1A".repeat(32));
        // As an editor of another system leaves it, and as a person types.
        fs::write(&list, format!("{two}\r\n{upper} x\r\n{one}\r\n")).unwrap();
        assert_eq!(listed(&fs::read(&list).unwrap()).len(), 3);
        assert_eq!(said(change(state.path(), &one, "", "")), "gone 1 ");
        assert_eq!(fs::read_to_string(&list).unwrap(), format!("{two}\r\n"));
    }

    #[test]
    fn keys_match_by_fingerprint_or_name() {
        let [one, two, three] = ["1", "2", "3"].map(|digit| format!("SHA256:{}", digit.repeat(64)));
        let text = format!("# {three} x\n{one} me@desk\nreplaces=\"{one}\" {two} ci\n{three} ci\nnonsense\n");
        let list = listed(text.as_bytes());
        assert_eq!(list.len(), 3);
        assert_eq!(resolve(&list, "me@desk").unwrap().to_string(), one);
        assert_eq!(resolve(&list, &three).unwrap().to_string(), three);
        assert!(matches!(resolve(&list, "ci"), Err(Error::AmbiguousKey { .. })));
        for unknown in ["", "desk", &one[..70]] {
            assert!(matches!(resolve(&list, unknown), Err(Error::UnknownKey { .. })), "{unknown:?}");
        }
    }
}
