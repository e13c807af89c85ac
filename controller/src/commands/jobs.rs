//! `hop ps`, `hop attach`, `hop logs` and `hop kill`.

use std::path::Path;
use std::time::Duration;

use hop_proto::identity::Identity;
use hop_proto::v1::{self, InfoReply, JobState, JobsRequest, KillRequest, LogsRequest, Output, Stream};
use serde::Serialize;

use super::{enrolled_router, print};
use crate::cli::{Attach, DEFAULT_LINGER, EnrolledOptions, Kill, Logs, Ps};
use crate::connection::Connection;
use crate::error::Error;
use crate::home::Home;
use crate::interrupt::Interrupts;
use crate::inventory::Router;
use crate::keeper::Keeping;
use crate::link::{self, ATTACH, Link};
use crate::outcome::{ExitCode, Outcome, StatusFile};
use crate::output_files::Request;
use crate::progress::Progress;
use crate::session::{self, Known};
use crate::{stdin, stdio};

/// Lists the jobs of a router.
pub async fn ps(home: &Home, options: Ps) -> Result<ExitCode, Error> {
    let mut connection = connect(home, &options.router).await?;
    let lines: Vec<Line> = jobs(&mut connection).await?.into_iter().map(Line::from).collect();
    // A list of strings, numbers and booleans always has its JSON.
    let text =
        if options.json { serde_json::to_string_pretty(&lines).unwrap_or_default() } else { table(&lines) };
    print(&text)?;
    Ok(ExitCode::Program(0))
}

/// Carries the streams of a job, and ends as it does.
pub async fn attach(home: &Home, options: Attach) -> Result<ExitCode, Error> {
    let status_file = options.status_file.as_deref().map(StatusFile::create).transpose()?;
    let result = attach_to(home, &options).await;
    let written = status_file.map_or(Ok(()), |file| file.write(&result));
    let outcome = result?;
    outcome.tell();
    written.map(|()| outcome.exit_code())
}

async fn attach_to(home: &Home, options: &Attach) -> Result<Outcome, Error> {
    let mut interrupts = Interrupts::listen().map_err(Error::io("handle", Path::new("signals")))?;
    let outputs = Request::parse_all(&options.output)?;
    let finding = async {
        let (router, identity, keeping, patience) = place(home, &options.router)?;
        let (mut link, info) = Link::open(router, identity, keeping, patience).await?;
        check_capability(&info, link.router())?;
        let jobs = jobs(link.connection()).await?;
        let v1::Job { job_id, detached, .. } = find(&jobs, &options.job, link.router())?.clone();
        let input = match detached || options.no_stdin {
            true => stdin::Mode::Unattached,
            false => stdin::Mode::Forwarded,
        };
        Ok::<_, Error>((link, Known { job: job_id, detached, input, outputs }))
    };
    let (link, known) = tokio::select! {
        found = finding => found?,
        signal = interrupts.next() => return Err(Error::Interrupted { signal }),
    };
    session::attach(link, known, DEFAULT_LINGER, &mut interrupts, &Progress::default()).await
}

/// Prints the output of a job that nobody has read, each of the two to its own place.
pub async fn logs(home: &Home, options: Logs) -> Result<ExitCode, Error> {
    let mut connection = connect(home, &options.router).await?;
    let jobs = jobs(&mut connection).await?;
    let job_id = find(&jobs, &options.job, connection.router())?.job_id.clone();
    let mut pieces = match connection.client().logs(LogsRequest { job_id }).await {
        Ok(pieces) => pieces.into_inner(),
        Err(status) => return Err(connection.explain(status).await),
    };
    loop {
        match pieces.message().await {
            Ok(Some(piece)) => write(&piece)?,
            Ok(None) => return Ok(ExitCode::Program(0)),
            Err(status) => return Err(connection.explain(status).await),
        }
    }
}

/// A reader that has gone away has seen what it wanted.
fn write(piece: &Output) -> Result<(), Error> {
    use std::io::{ErrorKind, Write};
    let written = match piece.stream() {
        Stream::Stderr => stdio::stderr().write_all(&piece.data),
        _ => stdio::stdout().write_all(&piece.data),
    };
    written.or_else(|error| match error.kind() {
        ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Error::io("write", Path::new("the output"))(error)),
    })
}

/// Sends a signal to jobs.
pub async fn kill(home: &Home, options: Kill) -> Result<ExitCode, Error> {
    let mut connection = connect(home, &options.router).await?;
    let jobs = jobs(&mut connection).await?;
    // All are found before the first one gets a signal.
    let found: Result<Vec<_>, _> =
        options.jobs.iter().map(|job| find(&jobs, job, connection.router())).collect();
    for job in found? {
        let request = KillRequest { job_id: job.job_id.clone(), signal: options.signal.clone() };
        if let Err(status) = connection.client().kill(request).await {
            return Err(connection.explain(status).await);
        }
    }
    Ok(ExitCode::Program(0))
}

/// What it takes to connect to the router that is meant.
fn place(home: &Home, options: &EnrolledOptions) -> Result<(Router, Identity, Keeping, Duration), Error> {
    let router = enrolled_router(home, options.router.as_deref())?;
    let keeping = Keeping::new(home, options.keep_connection)?;
    Ok((router, home.identity()?, keeping, options.connect_timeout.into()))
}

async fn connect(home: &Home, options: &EnrolledOptions) -> Result<Connection, Error> {
    let (router, identity, keeping, patience) = place(home, options)?;
    let (connection, info) = keeping.open(&router, &identity, patience).await?;
    check_capability(&info, connection.router())?;
    Ok(connection)
}

fn check_capability(info: &InfoReply, router: &str) -> Result<(), Error> {
    if link::can(info, ATTACH) { Ok(()) } else { Err(Error::Incompatible { router: router.to_owned() }) }
}

async fn jobs(connection: &mut Connection) -> Result<Vec<v1::Job>, Error> {
    match connection.client().jobs(JobsRequest {}).await {
        Ok(reply) => Ok(reply.into_inner().jobs),
        Err(status) => Err(connection.explain(status).await),
    }
}

/// The job of this controller whose id this is, or begins like this and no other.
fn find<'a>(jobs: &'a [v1::Job], wanted: &str, router: &str) -> Result<&'a v1::Job, Error> {
    let (job, router) = (wanted.to_owned(), router.to_owned());
    let mut found: Vec<_> = jobs.iter().filter(|job| job.job_id.starts_with(wanted)).collect();
    if let Some(exact) = found.iter().find(|job| job.job_id == wanted) {
        found = vec![exact];
    }
    let is_anyones = !found.is_empty() && !wanted.is_empty();
    found.retain(|job| job.own);
    match found[..] {
        _ if wanted.is_empty() => Err(Error::NoSuchJob { job, router }),
        [] if is_anyones => Err(Error::NotYours { job, router }),
        [] => Err(Error::NoSuchJob { job, router }),
        [only] => Ok(only),
        _ => {
            let known = found.iter().map(|job| job.job_id.as_str()).collect::<Vec<_>>().join(", ");
            Err(Error::AmbiguousJob { job, router, known })
        }
    }
}

/// A job as `hop ps` shows it.
#[derive(Serialize)]
struct Line {
    job: String,
    program: String,
    /// `receiving`, `running` or `ended`.
    state: &'static str,
    age_ms: u64,
    /// `attached`; without a controller `detached`, or `waiting` for it to come back.
    controller: &'static str,
    /// It is this controller's own.
    own: bool,
    /// Bytes of output that no controller has read.
    unread: u64,
}

impl From<v1::Job> for Line {
    fn from(job: v1::Job) -> Self {
        Self {
            state: match job.state() {
                JobState::Receiving => "receiving",
                JobState::Running => "running",
                JobState::Ended => "ended",
                JobState::Unspecified => "unknown",
            },
            controller: match (job.attached, job.detached) {
                (true, _) => "attached",
                (false, true) => "detached",
                (false, false) => "waiting",
            },
            job: job.job_id,
            program: job.name,
            age_ms: job.age_ms,
            own: job.own,
            unread: job.unread,
        }
    }
}

fn table(lines: &[Line]) -> String {
    let row = |cells: [&str; 6]| {
        let [job, program, state, age, controller, owner] = cells;
        format!("{job:<17} {program:<16} {state:<9} {age:<12} {controller:<10} {owner}")
    };
    let mut text = row(["JOB", "PROGRAM", "STATE", "AGE", "CONTROLLER", "WHOSE"]);
    for line in lines {
        let age = humantime::format_duration(Duration::from_secs(line.age_ms / 1000)).to_string();
        let whose = if line.own { "yours" } else { "another's" };
        text.push('\n');
        text.push_str(&row([&line.job, &line.program, line.state, &age, line.controller, whose]));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn job(id: &str, own: bool) -> v1::Job {
        v1::Job { job_id: id.into(), own, ..v1::Job::default() }
    }

    #[test]
    fn a_job_is_found_by_the_beginning_of_its_id() {
        let jobs = [job("12ab", true), job("12", true), job("1fff", true), job("77", false), job("7", true)];
        let found = |wanted| find(&jobs, wanted, "desk").map(|job| job.job_id.as_str());
        assert_eq!(found("1f").unwrap(), "1fff");
        assert_eq!(found("12").unwrap(), "12", "an id may begin another");
        assert_eq!(found("12a").unwrap(), "12ab");
        assert_eq!(found("7").unwrap(), "7");
        assert_eq!(found("77").unwrap_err().reason(), "not_yours");
        for nothing in ["", "2", "1fff0"] {
            let error = found(nothing).unwrap_err();
            assert!(matches!(error, Error::NoSuchJob { .. }), "{nothing}: {error:?}");
        }
        let Err(Error::AmbiguousJob { known, .. }) = found("1") else { panic!() };
        assert_eq!(known, "12ab, 12, 1fff");
    }

    #[test]
    fn a_list_without_jobs_is_its_header() {
        assert_eq!(table(&[]), "JOB               PROGRAM          STATE     AGE          CONTROLLER WHOSE");
    }

    #[test]
    fn a_job_without_controller_waits_or_is_detached() {
        let line = |attached, detached| {
            let state = JobState::Running.into();
            Line::from(v1::Job { attached, detached, state, age_ms: 61_999, ..job("12ab", true) })
        };
        assert_eq!(line(true, true).controller, "attached");
        assert_eq!(line(false, true).controller, "detached");
        let waiting = table(&[line(false, false)]);
        assert!(waiting.ends_with("running   1m 1s        waiting    yours"), "{waiting}");
    }
}
