//! `hop router check`: everything that enrolment looked at, looked at again, with what to do about what is wrong.

use std::path::Path;

use hop_proto::identity::Identity;
use serde::Serialize;

use super::layout::{Layout, Way};
use super::shell::Shell;
use super::survey::Survey;
use super::{Error, look};
use crate::connection::{Connection, DEFAULT_TIMEOUT};
use crate::embedded::Arch;
use crate::inventory::Router;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub what: &'static str,
    /// What there is; or what is wrong.
    pub said: String,
    /// False if it must be mended.
    #[serde(rename = "good")]
    pub is_good: bool,
    /// What to do.
    pub hint: Option<String>,
}

impl Finding {
    fn good(what: &'static str, said: impl Into<String>) -> Self {
        Self { what, said: said.into(), is_good: true, hint: None }
    }

    fn bad(what: &'static str, said: impl Into<String>, hint: impl Into<Option<String>>) -> Self {
        Self { what, said: said.into(), is_good: false, hint: hint.into() }
    }
}

/// Looks at a router by its login and by its agent. What cannot be looked at because something before it is wrong is
/// left out.
pub async fn check(router: &Router, identity: &Identity) -> Vec<Finding> {
    let mut findings = match &router.entry.enrolment {
        Some(enrolment) => match Shell::new(&enrolment.ssh) {
            Ok(shell) => {
                let findings = by_login(&shell, &enrolment.ssh.host, enrolment.way, &router.name).await;
                shell.end().await;
                findings
            }
            Err(error) => vec![Finding::bad("login", error.to_string(), error.hint())],
        },
        None => vec![Finding::good("login", "none: it was not enrolled over ssh")],
    };
    findings.push(by_agent(router, identity).await);
    findings
}

async fn by_login(shell: &Shell, host: &str, way: Way, name: &str) -> Vec<Finding> {
    let survey = match look(shell).await {
        Ok(survey) => survey,
        Err(error) => return vec![failed("login", &error)],
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
    findings.push(flash(&survey, host, way, arch.ok()));
    let Some(agent) = survey.agents.first() else {
        let said = match way {
            Way::UntilReboot => "gone, as after a reboot: it was enrolled until then",
            Way::Install => "gone",
        };
        findings.push(Finding::bad("agent", said, format!("`hop router add {name}` brings it back")));
        return findings;
    };
    let version = env!("CARGO_PKG_VERSION");
    let said = format!("hopd {} at {}", agent.version, agent.path.display());
    findings.push(if agent.version == version {
        Finding::good("agent", said)
    } else {
        Finding::bad("agent", said, format!("`hop router upgrade {name}` makes it {version}"))
    });
    findings.push(self_test(shell, &agent.path).await);
    findings
}

fn flash(survey: &Survey, host: &str, way: Way, arch: Option<Arch>) -> Finding {
    let size = arch.and_then(|arch| arch.agent().ok()).map_or(0, |agent| agent.len() as u64);
    match (Layout::install(survey, host, size), way) {
        (Ok(layout), _) => {
            Finding::good("flash", format!("room for an agent at {}", layout.program.display()))
        }
        (Err(why), Way::UntilReboot) => Finding::good("flash", why.to_string()),
        // It is in there already.
        (Err(Error::NoFlash { place, free, .. }), Way::Install) => {
            Finding::good("flash", format!("{free} bytes free on {}", place.display()))
        }
        (Err(why), Way::Install) => failed("flash", &why),
    }
}

async fn self_test(shell: &Shell, agent: &Path) -> Finding {
    // Beside the agent's own directory, which it has to itself.
    let command = format!("{} --self-test --dir /tmp/hop-self-test 2>&1", agent.display());
    match shell.attempt(&command).await {
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
        Err(error) => failed("self-test", &error),
    }
}

async fn by_agent(router: &Router, identity: &Identity) -> Finding {
    match Connection::open(router, identity, DEFAULT_TIMEOUT).await {
        Ok((connection, info)) => Finding::good(
            "connection",
            format!(
                "to {}, key {}, {} of {} jobs; it listens on {}",
                connection.address(),
                connection.fingerprint(),
                info.jobs,
                info.max_jobs,
                if info.listens.is_empty() { "what it does not tell" } else { &info.listens }
            ),
        ),
        Err(error) => Finding::bad("connection", error.to_string(), error.hint()),
    }
}

/// What went wrong, with its cause in the same line.
fn failed(what: &'static str, error: &Error) -> Finding {
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    Finding::bad(what, said, error.hint())
}
