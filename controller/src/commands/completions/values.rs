//! The values of arguments that hop looks up: routers, jobs, packages, profiles, signals.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::Command;
use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter, CompletionCandidate};
use hop_proto::identity::Identity;
use hop_proto::signal;
use hop_proto::v1::{Job, JobState};

use super::packages;
use crate::client::connection::Connection;
use crate::client::mux;
use crate::commands::{jobs, selected_router};
use crate::config::home::Home;
use crate::config::inventory::{Inventory, Router};
use crate::console::printable::printable;
use crate::virtual_router::machine::Machine;
use crate::virtual_router::profile;

/// Time limit for a router to list its jobs. Within the time limit of the whole answer, so that a router that does not answer
/// only takes its jobs from it.
const ROUTER_TIMEOUT: Duration = Duration::from_millis(600);

/// What an argument names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Router,
    VirtualRouter,
    Profile,
    Job,
    Signal,
    Package,
}

/// The kind of an argument, by the path of its command and its identifier; none if hop looks up nothing for it.
fn kind(path: &[&str], argument: &str) -> Option<Kind> {
    match (path, argument) {
        (["virtual", "up"], "profile") => Some(Kind::Profile),
        (["virtual", "up"], _) => None,
        (["virtual", _], "name") => Some(Kind::VirtualRouter),
        (["router", _], "name") | (_, "router" | "skip") => Some(Kind::Router),
        (["attach" | "logs"], "job") | (["kill"], "jobs") => Some(Kind::Job),
        (["kill"], "signal") => Some(Kind::Signal),
        (["run"], "words") | (["build"], "packages") => Some(Kind::Package),
        _ => None,
    }
}

/// Adds to the command line what looks the values up. `words` is the whole line, which says of which router and directory.
pub fn with_completers(hop: Command, words: &[OsString]) -> Command {
    add(hop, &mut Vec::new(), words)
}

fn add(command: Command, path: &mut Vec<String>, words: &[OsString]) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let command = names.into_iter().filter(|name| name != "help").fold(command, |command, name| {
        command.mut_subcommand(&name, |below| {
            path.push(name.clone());
            let below = add(below, path, words);
            path.pop();
            below
        })
    });
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    command.mut_args(|argument| {
        let Some(kind) = kind(&path, argument.get_id().as_str()) else { return argument };
        match kind {
            Kind::Router => argument.add(ArgValueCandidates::new(routers)),
            Kind::VirtualRouter => argument.add(ArgValueCandidates::new(virtual_routers)),
            Kind::Profile => argument.add(ArgValueCandidates::new(profiles)),
            Kind::Signal => argument.add(ArgValueCandidates::new(|| {
                signal::SENDABLE.into_iter().map(CompletionCandidate::new).collect()
            })),
            Kind::Job => {
                let router = value_of(words, &["-r", "--router"]);
                argument.add(ArgValueCandidates::new(move || jobs_of(router.as_deref())))
            }
            Kind::Package => {
                let directory = value_of(words, &["-C"]).map_or_else(|| ".".into(), PathBuf::from);
                let find = move |typed: &OsStr| {
                    let found = packages::find(&directory, &typed.to_string_lossy());
                    found.into_iter().map(CompletionCandidate::new).collect::<Vec<_>>()
                };
                // Its value stands after `--` only because `cli::mark` puts it there.
                argument.last(false).add(ArgValueCompleter::new(find))
            }
        }
    })
}

/// The value of an option in a line, behind it or after an equals sign; the last one counts.
fn value_of(words: &[OsString], names: &[&str]) -> Option<String> {
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let after = |at: usize| {
        names.iter().find_map(|name| match words[at].strip_prefix(name)? {
            "" => words.get(at + 1).copied(),
            value => value.strip_prefix('='),
        })
    };
    (0..words.len()).rev().find_map(after).map(str::to_owned)
}

fn routers() -> Vec<CompletionCandidate> {
    let Ok(home) = Home::from_environment() else { return Vec::new() };
    let (routers, _) = Inventory::new(&home).readable().unwrap_or_default();
    let candidate =
        |router: Router| CompletionCandidate::new(router.name).help(Some(router.entry.address.into()));
    routers.into_iter().map(candidate).collect()
}

fn virtual_routers() -> Vec<CompletionCandidate> {
    let Ok(home) = Home::from_environment() else { return Vec::new() };
    let (routers, _) = Inventory::new(&home).readable().unwrap_or_default();
    let agents = routers.into_iter().filter(|router| router.entry.process.is_some());
    let machines = Machine::list(&home).unwrap_or_default();
    let mut names: Vec<String> = agents.map(|router| router.name).collect();
    names.extend(machines.iter().map(|machine| machine.name().to_owned()));
    names.sort();
    names.dedup();
    names.into_iter().map(CompletionCandidate::new).collect()
}

fn profiles() -> Vec<CompletionCandidate> {
    let Ok(home) = Home::from_environment() else { return Vec::new() };
    let names = profile::names(&home).unwrap_or_default();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// This controller's jobs on a router, the selected one if none is named.
fn jobs_of(router: Option<&str>) -> Vec<CompletionCandidate> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let found = runtime
        .block_on(async { tokio::time::timeout(ROUTER_TIMEOUT, list_jobs(router)).await.ok().flatten() });
    // A name server that does not answer would be waited for.
    runtime.shutdown_background();
    let candidate = |job: Job| {
        let state = if job.state() == JobState::Ended { "ended" } else { "running" };
        let help = format!("{}, {state}", printable(&job.name));
        CompletionCandidate::new(job.job_id).help(Some(help.into()))
    };
    found.unwrap_or_default().into_iter().filter(|job| job.own).map(candidate).collect()
}

async fn list_jobs(router: Option<&str>) -> Option<Vec<Job>> {
    let home = Home::from_environment().ok()?;
    let router = selected_router(&home, router).ok()?;
    // A controller without a key has no jobs, and gets no key by this.
    let identity = Identity::load(&home.key()).ok()?;
    let mut connection = match mux::running(&home, &router, &identity).await {
        Some(connection) => connection,
        None if router.entry.enrolment.as_ref().is_some_and(|enrolment| enrolment.via_ssh) => return None,
        None => Connection::open(&router, &identity, ROUTER_TIMEOUT).await.ok()?.0,
    };
    jobs::jobs(&mut connection).await.ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cli;

    #[test]
    fn kinds_name_existing_arguments() {
        fn collect(command: &Command, path: &mut Vec<String>, found: &mut Vec<(String, Kind)>) {
            for below in command.get_subcommands() {
                path.push(below.get_name().to_owned());
                collect(below, path, found);
                path.pop();
            }
            let names: Vec<&str> = path.iter().map(String::as_str).collect();
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                found.extend(kind(&names, id).map(|kind| (format!("{} {id}", names.join(" ")), kind)));
            }
        }
        let mut found = Vec::new();
        collect(&cli::command(), &mut Vec::new(), &mut found);
        let has = |argument: &str, kind| {
            assert!(found.contains(&(argument.to_owned(), kind)), "{argument}: {found:?}");
        };
        for command in ["run", "exec", "build", "ps", "info", "attach", "logs", "kill", "go-exec env"] {
            has(&format!("{command} router"), Kind::Router);
        }
        for command in ["use", "info", "check", "upgrade", "rename", "remove", "disconnect", "add"] {
            has(&format!("router {command} name"), Kind::Router);
        }
        for command in ["down", "ssh", "console", "reboot"] {
            has(&format!("virtual {command} name"), Kind::VirtualRouter);
        }
        has("attach job", Kind::Job);
        has("logs job", Kind::Job);
        has("kill jobs", Kind::Job);
        has("kill signal", Kind::Signal);
        has("run words", Kind::Package);
        has("build packages", Kind::Package);
        has("virtual up profile", Kind::Profile);
        has("key rotate skip", Kind::Router);
    }

    #[test]
    fn option_values_are_found_in_lines() {
        let value = |line: &str| {
            let words: Vec<_> = line.split(' ').map(OsString::from).collect();
            value_of(&words, &["-r", "--router"])
        };
        assert_eq!(value("hop attach -r desk").as_deref(), Some("desk"));
        assert_eq!(value("hop attach --router=attic x").as_deref(), Some("attic"));
        assert_eq!(value("hop attach --router").as_deref(), None);
        assert_eq!(value("hop attach -r a -r b").as_deref(), Some("b"));
    }
}
