//! `hop router check`: repeats all checks of enrolment, and says what to do about each problem.

use std::path::Path;

use hop_formats::size::Size;
use hop_proto::identity::Identity;
use serde::Serialize;

use super::enrol::check_cache_dir;
use super::layout::Layout;
use super::shell::{STATE, Shell, Variables};
use super::stage::{random_name, sha256};
use super::survey::{Agent, Survey};
use super::upkeep::cache_dir_of_agent;
use super::{Error, look};
use crate::client::connection::{Connection, DEFAULT_TIMEOUT};
use crate::config::enrolment::EnrolmentRecord;
use crate::config::enrolment::Persistence;
use crate::config::inventory::Router;
use crate::program::embedded::Arch;

const RUNNING: &str = include_str!("scripts/running.sh");

/// The result of one check.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// The subject of the check.
    pub what: &'static str,
    /// The finding, or the problem.
    pub said: String,
    /// False if it must be mended.
    #[serde(rename = "good")]
    pub is_good: bool,
    /// The hint, where the cause does not imply it.
    pub hint: Option<String>,
    /// The failure that was found, of which the commands know what to do about it.
    #[serde(skip)]
    pub cause: Option<Error>,
}

impl Finding {
    fn good(what: &'static str, said: impl Into<String>) -> Self {
        Self { what, said: said.into(), is_good: true, hint: None, cause: None }
    }

    fn bad(what: &'static str, said: impl Into<String>, hint: impl Into<Option<String>>) -> Self {
        Self { what, said: said.into(), is_good: false, hint: hint.into(), cause: None }
    }

    fn failed(what: &'static str, said: String, cause: Error) -> Self {
        Self { what, said, is_good: false, hint: None, cause: Some(cause) }
    }
}

/// Two on which the later checks depend: the agent's file exists, and the agent runs.
const AGENT: &str = "agent";
const RUNS: &str = "runs";
const DISK_CACHE: &str = "disk cache";

/// Looks at a router by its login and by its agent. What cannot be looked at because something before it is wrong is
/// left out.
pub async fn check(router: &Router, identity: &Identity) -> Vec<Finding> {
    // The agent's own answers count only over a connection on which it has proved its key.
    let (connection, version) = by_agent(router, identity).await;
    let mut findings = match &router.entry.enrolment {
        Some(enrolment) => match Shell::new(&enrolment.ssh) {
            Ok(shell) => {
                let findings = by_login(&shell, enrolment, &router.name, version.as_deref()).await;
                shell.end().await;
                findings
            }
            Err(error) => vec![Finding::failed("login", error.to_string(), error)],
        },
        None => vec![Finding::good("login", "none: it was not enrolled over ssh")],
    };
    // Where there is no agent that runs, nobody would answer.
    if !findings.iter().any(|finding| !finding.is_good && matches!(finding.what, AGENT | RUNS)) {
        findings.push(connection);
    }
    findings
}

async fn by_login(
    shell: &Shell,
    enrolment: &EnrolmentRecord,
    name: &str,
    version: Option<&str>,
) -> Vec<Finding> {
    let (host, persistence) = (&enrolment.ssh.host, enrolment.persistence);
    let survey = match look(shell).await {
        Ok(survey) => survey,
        Err(error) => return vec![failed("login", error)],
    };
    let [machine, system] = survey.describe();
    let mut findings = vec![
        Finding::good("login", host),
        Finding::good("machine", machine),
        Finding::good("system", system),
    ];
    // The agent's own file is there already.
    let arch = survey.agent_for(|_| 0);
    findings.push(match &arch {
        Ok(arch) => Finding::good("suits", format!("yes: hopd for {}", arch.machine())),
        Err(why) => Finding::bad("suits", why.to_string(), None),
    });
    findings.push(flash(&survey, host, persistence, arch.as_ref().ok().copied()));
    if let Err(error) = survey.check_foreign(host) {
        findings.push(failed(AGENT, error));
        return findings;
    }
    let Some(agent) = survey.agents.first() else {
        findings.push(match Layout::check_presence(&survey, host, enrolment.program.as_deref()) {
            Err(why) if persistence == Persistence::Install => failed(AGENT, why),
            _ => {
                let said = match persistence {
                    Persistence::UntilReboot => "gone, as after a reboot: it was enrolled until then",
                    Persistence::Install => "gone",
                };
                Finding::bad(AGENT, said, format!("`hop router add {name}` brings it back"))
            }
        });
        return findings;
    };
    let layout = Layout::of_existing(&agent.path);
    findings.push(runs(shell, &layout, name).await);
    findings.push(installed(agent, arch.ok(), name, version));
    findings.push(self_test(shell, &layout).await);
    findings.extend(disk_cache(shell, &survey, enrolment).await);
    findings
}

/// Whether the medium of the disk cache is there, if the router has one.
async fn disk_cache(shell: &Shell, survey: &Survey, enrolment: &EnrolmentRecord) -> Option<Finding> {
    let said = cache_dir_of_agent(shell, survey).await;
    let directory = match said {
        Err(error) => return Some(failed(DISK_CACHE, error)),
        // What does not run does not say.
        Ok(directory) if directory.is_empty() => enrolment.cache_dir.clone()?,
        Ok(directory) => directory,
    };
    if let Err(why) = check_cache_dir(survey, &enrolment.ssh.host, &directory) {
        return Some(failed(DISK_CACHE, why));
    }
    let mount = survey.mount_of(Path::new(&directory));
    let free = mount.and_then(|mount| Some((mount.size?.1, &mount.kind)));
    Some(Finding::good(
        DISK_CACHE,
        match free {
            Some((free, kind)) => {
                format!("{directory} on {kind}, {:.1} MiB free", free as f64 / f64::from(1 << 20))
            }
            None => directory,
        },
    ))
}

/// Whether an agent runs there; if not, its last message, which is usually the cause.
async fn runs(shell: &Shell, layout: &Layout, name: &str) -> Finding {
    let variables = Variables::default().set("starter", layout.boot_method.name());
    match shell.script("asking whether the agent runs", &variables, &[STATE, RUNNING]).await {
        Ok(said) => Finding::good(RUNS, format!("it listens on {}", String::from_utf8_lossy(&said).trim())),
        Err(Error::Step { source, .. }) => {
            let hint = format!("`hop router add {name}` starts it");
            Finding::bad(RUNS, format!("the agent does not run; its last words: {source}"), hint)
        }
        Err(error) => failed(RUNS, error),
    }
}

/// Compares the installed agent with the one of this `hop`: by its digest, or by the version that it reports when it
/// runs.
fn installed(agent: &Agent, arch: Option<Arch>, name: &str, version: Option<&str>) -> Finding {
    let own = env!("CARGO_PKG_VERSION");
    let ours = arch.and_then(|arch| arch.agent().ok()).map(|ours| sha256(&ours));
    let is_ours = agent.digest.is_some() && agent.digest == ours;
    let version = version.or(is_ours.then_some(own));
    let said = match version {
        Some(version) => format!("hopd {version} at {}", agent.path.display()),
        None => format!("{} at {}, which does not say its version", Size(agent.size), agent.path.display()),
    };
    match version {
        Some(version) if version != own => {
            Finding::bad("version", said, format!("`hop router upgrade {name}` makes it {own}"))
        }
        _ => Finding::good(AGENT, said),
    }
}

fn flash(survey: &Survey, host: &str, persistence: Persistence, arch: Option<Arch>) -> Finding {
    let size = arch.and_then(|arch| arch.agent().ok()).map_or(0, |agent| agent.len() as u64);
    match (Layout::install(survey, host, size), persistence) {
        (Ok(layout), _) => {
            Finding::good("flash", format!("space for an agent at {}", layout.program.display()))
        }
        (Err(why), Persistence::UntilReboot) => Finding::good("flash", why.to_string()),
        // The agent already takes some of the space.
        (Err(Error::NoFlash { place, free, .. }), Persistence::Install) => {
            Finding::good("flash", format!("{} free on {}", Size(free), place.display()))
        }
        (Err(why), Persistence::Install) => failed("flash", why),
    }
}

async fn self_test(shell: &Shell, layout: &Layout) -> Finding {
    // In a directory that nobody can have made before, and not in the agent's own, which it has to itself.
    let variables = Variables::default()
        .set("program", layout.program.to_string_lossy())
        .set("state", layout.state.to_string_lossy())
        .set("stage", format!("/tmp/hop-{}", random_name()));
    match shell.ask("self-test", &variables).await {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let summary = text.lines().last().unwrap_or("it said nothing").to_owned();
            if output.status.success() {
                return Finding::good("self-test", summary);
            }
            let failed: Vec<_> =
                text.lines().filter_map(|line| line.strip_prefix("FAILED")).map(str::trim).collect();
            let said = if failed.is_empty() { summary } else { failed.join("; ") };
            Finding::bad("self-test", said, None)
        }
        Err(error) => failed("self-test", error),
    }
}

/// Whether the agent answers, and its version if it does.
async fn by_agent(router: &Router, identity: &Identity) -> (Finding, Option<String>) {
    match Connection::open(router, identity, DEFAULT_TIMEOUT).await {
        Ok((connection, info)) => {
            let said = format!(
                "to {}, key {}, {} of {} jobs; it listens on {}",
                connection.address(),
                connection.fingerprint(),
                info.jobs,
                info.max_jobs,
                if info.listens.is_empty() { "what it does not tell" } else { &info.listens }
            );
            (Finding::good("connection", said), Some(info.agent_version))
        }
        Err(error) => (Finding::failed("connection", error.to_string(), error.into()), None),
    }
}

/// The error with its cause, in one line.
fn failed(what: &'static str, error: Error) -> Finding {
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    Finding::failed(what, said, error)
}
