//! `hop ps`: the jobs of a router.

use std::time::Duration;

use hop_proto::v1::{self, JobState, WaitReason};
use serde::Serialize;

use crate::cli::Ps;
use crate::client;
use crate::client::capabilities::LOG;
use crate::commands::report;
use crate::commands::{Error, print_as_it_is};
use crate::config::home::Home;
use crate::console::exit_code::ExitCode;
use crate::console::printable::{self, printable};
use crate::session::read_outcome;

/// Lists the jobs of a router.
pub async fn ps(home: &Home, mut options: Ps) -> Result<ExitCode, Error> {
    options.router.router = options.name.or(options.router.router);
    let (mut connection, capabilities) = super::connect(home, &options.router).await?;
    let jobs = super::jobs(&mut connection).await?;
    let router = connection.router().to_owned();
    let text = if options.quiet {
        let own = jobs.iter().filter(|job| job.own).map(|job| job.job_id.as_str());
        own.collect::<Vec<_>>().join("\n")
    } else {
        listed(jobs, capabilities.has(LOG), options.json)
            .map_err(|what| client::Error::Protocol { router, what })?
    };
    if !text.is_empty() {
        print_as_it_is(&text)?;
    }
    Ok(ExitCode::Program(0))
}

/// The list of jobs, as a table or as JSON. No program's name can take more than its cell. If the agent `has_outcomes`, a job
/// that has ended without one has failed.
///
/// # Errors
/// Why the list is invalid, if no agent can have sent it.
pub fn listed(jobs: Vec<v1::Job>, has_outcomes: bool, json: bool) -> Result<String, &'static str> {
    super::check_list(&jobs)?;
    let lines: Vec<Line> = jobs.into_iter().map(|job| Line::new(job, has_outcomes)).collect();
    Ok(if json { printable::json(&lines) } else { table(&lines) })
}

/// A job as `hop ps` shows it.
#[derive(Serialize)]
struct Line {
    job: String,
    program: String,
    /// `receiving`, `running` or `ended`.
    state: &'static str,
    /// What `hop attach` would exit with; none for a job that has not ended.
    exit_code: Option<i32>,
    age_ms: u64,
    /// `attached`; without a controller `detached`, or `waiting` for it to come back.
    controller: &'static str,
    /// What the job waits for: `upload`, `start`, `output` or `artifacts`.
    waits_for: Option<&'static str>,
    /// It is this controller's own.
    own: bool,
    /// Bytes of output that no controller has read.
    unread: u64,
    /// Bytes of output that the router has dropped before a controller has read them.
    dropped: u64,
}

impl Line {
    fn new(job: v1::Job, has_outcomes: bool) -> Self {
        let waits_for = match job.waits_for() {
            WaitReason::Unspecified => None,
            WaitReason::Upload => Some("upload"),
            WaitReason::Start => Some("start"),
            WaitReason::Output => Some("output"),
            WaitReason::Artifacts => Some("artifacts"),
        };
        let state = job.state();
        let outcome = job.outcome.and_then(|outcome| read_outcome(String::new(), outcome));
        let exit_code = match (state, outcome) {
            (JobState::Ended, Some(outcome)) => Some(report::exit_code(&outcome).into()),
            // It has no outcome as long as its artifacts are fetched.
            (JobState::Ended, None) if has_outcomes && waits_for.is_none() => {
                Some(ExitCode::HopFailed.into())
            }
            _ => None,
        };
        Self {
            state: match state {
                JobState::Receiving => "receiving",
                JobState::Running => "running",
                JobState::Ended => "ended",
                JobState::Unspecified => "unknown",
            },
            exit_code,
            controller: match (job.attached, job.detached) {
                (true, _) => "attached",
                (false, true) => "detached",
                (false, false) => "waiting",
            },
            waits_for,
            job: job.job_id,
            program: job.name,
            age_ms: job.age_ms,
            own: job.own,
            unread: job.unread,
            dropped: job.dropped,
        }
    }

    /// What it waits for, in words.
    fn waiting(&self) -> &'static str {
        match self.waits_for {
            Some("upload") => "its program",
            Some("start") => "its turn",
            Some("output") => "a reader of its output",
            Some("artifacts") => "its artifacts to be fetched",
            _ if self.controller == "waiting" => "its hop to reconnect",
            _ => "",
        }
    }
}

fn table(lines: &[Line]) -> String {
    let row = |cells: [&str; 8]| {
        let [job, program, state, exit, age, controller, owner, waits] = cells;
        let row = format!(
            "{job:<16}  {program:<16} {state:<9} {exit:>4}  {age:<8} {controller:<10} {owner:<9} {waits}"
        );
        row.trim_end().to_owned()
    };
    let mut text = row(["JOB", "PROGRAM", "STATE", "EXIT", "AGE", "CONTROLLER", "WHOSE", "WAITS FOR"]);
    for line in lines {
        let age = humantime::format_duration(Duration::from_secs(line.age_ms / 1000)).to_string();
        // The two largest units say enough.
        let age = age.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let whose = if line.own { "yours" } else { "another's" };
        let exit = line.exit_code.map(|code| code.to_string()).unwrap_or_default();
        // The program may be another controller's, and was given its name there.
        let program = printable(&line.program);
        text.push('\n');
        text.push_str(&row([
            &line.job,
            &program,
            line.state,
            &exit,
            &age,
            line.controller,
            whose,
            line.waiting(),
        ]));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn line(job: v1::Job) -> Line {
        Line::new(v1::Job { job_id: "12ab".into(), own: true, ..job }, true)
    }

    #[test]
    fn program_name_is_escaped_in_list() {
        let name = "x\u{1b}[2J\n77 make yours".to_owned();
        let text = table(&[line(v1::Job { name, ..v1::Job::default() })]);
        assert!(text.lines().count() == 2 && text.contains("x\\u{1b}[2J\\n77 make yours"), "{text}");
    }

    #[test]
    fn empty_job_list_is_its_header() {
        let header =
            "JOB               PROGRAM          STATE     EXIT  AGE      CONTROLLER WHOSE     WAITS FOR";
        assert_eq!(table(&[]), header);
    }

    #[test]
    fn job_without_controller_waits_or_detached() {
        let running = |attached, detached| {
            let state = JobState::Running.into();
            line(v1::Job { attached, detached, state, age_ms: 3_661_999, ..v1::Job::default() })
        };
        assert_eq!(running(true, true).controller, "attached");
        assert_eq!(running(false, true).controller, "detached");
        let waiting = table(&[running(false, false)]);
        assert!(
            waiting.ends_with("running         1h 1m    waiting    yours     its hop to reconnect"),
            "{waiting}"
        );
    }

    #[test]
    fn ended_job_shows_its_exit_code() {
        let ended = |ending: Option<v1::outcome::Ending>, waits_for: WaitReason| {
            let outcome = ending.map(|ending| v1::Outcome { ending: Some(ending), ..v1::Outcome::default() });
            let state = JobState::Ended.into();
            line(v1::Job { state, outcome, waits_for: waits_for.into(), ..v1::Job::default() }).exit_code
        };
        let signaled = v1::Signaled { name: "TERM".into(), core_dumped: false };
        let none = WaitReason::Unspecified;
        assert_eq!(ended(Some(v1::outcome::Ending::ExitCode(7)), none), Some(7));
        assert_eq!(ended(Some(v1::outcome::Ending::Signaled(signaled)), none), Some(143));
        assert_eq!(ended(None, none), Some(125), "it failed");
        assert_eq!(ended(None, WaitReason::Artifacts), None);
        assert_eq!(line(v1::Job { state: JobState::Running.into(), ..v1::Job::default() }).exit_code, None);
    }
}
