//! `hop ps`, `hop attach`, `hop logs` and `hop kill`: which job is meant, and what is done with it.

mod list;
mod logs;

use std::path::Path;
use std::time::Duration;

use hop_formats::size::Size;
use hop_proto::identity::Identity;
use hop_proto::limits::{MAX_JOB_ID_BYTES, MAX_LISTED_JOBS};
use hop_proto::signal;
use hop_proto::v1::{self, GetInfoResponse, JobState, ListJobsRequest, SignalJobRequest};
use tonic::Code;

pub use self::list::{listed, ps};
pub use self::logs::{Received, logs};
use super::Error;
use super::report;
use super::saved_artifacts::SavedArtifacts;
use super::status_file::StatusFile;
use super::{no_terminal, print, selected_router};
use crate::cli::{Attach, DEFAULT_RECONNECT_TIMEOUT, EnrolledOptions, Kill};
use crate::client;
use crate::client::capabilities::{ATTACH, Capabilities};
use crate::client::connection::Connection;
use crate::client::mux::Mux;
use crate::client::reconnect::ReconnectingClient;
use crate::config::home::Home;
use crate::config::inventory::Router;
use crate::console::exit_code::ExitCode;
use crate::console::progress::Progress;
use crate::console::say;
use crate::console::signals::Interrupts;
use crate::console::terminal::Terminal;
use crate::session::artifacts::Request;
use crate::session::outcome::{Ending, Outcome};
use crate::session::stdin;
use crate::session::{self, AttachRequest};

/// Attaches to the streams of a job, and exits with its exit code.
pub async fn attach(home: &Home, options: Attach) -> Result<ExitCode, Error> {
    let status_file = options.status_file.as_deref().map(StatusFile::create).transpose()?;
    let result = attach_to(home, &options).await;
    let written = status_file.map_or(Ok(()), |file| file.write(&result));
    let outcome = result?;
    report::tell(&outcome);
    written.map(|()| report::exit_code(&outcome))
}

async fn attach_to(home: &Home, options: &Attach) -> Result<Outcome, Error> {
    let mut interrupts = Interrupts::listen().map_err(Error::io("handle", Path::new("signals")))?;
    if options.tty && !Terminal::is_there() {
        return Err(no_terminal());
    }
    let named = Request::parse_all(&options.artifacts.paths, options.artifacts.policy(true))?;
    let finding = async {
        let (router, identity, mux, connect_timeout) = place(home, &options.router)?;
        let (mut client, info) = ReconnectingClient::open(router, identity, mux, connect_timeout).await?;
        check_capability(&info, client.router())?;
        let jobs = jobs(client.connection()).await?;
        let job = find(&jobs, options.job.as_deref(), client.router())?;
        if job.dropped > 0 {
            say!("hop: the router dropped {} of older output (--log-size)", Size(job.dropped));
        }
        let saved = SavedArtifacts::load(home, client.router(), &job.job_id).filter(|_| named.is_empty());
        let requires =
            options.artifacts.require_artifacts || saved.as_ref().is_some_and(|saved| saved.requires);
        let outputs = saved.map_or(named, |saved| saved.requests());
        let request = AttachRequest {
            job: job.job_id.clone(),
            detached: job.detached,
            // The agent says whether the program takes input at all.
            input: if options.no_stdin { stdin::Mode::Unattached } else { stdin::Mode::Forwarded },
            outputs,
            tty: options.tty,
            keeps_signals: options.no_signals,
            has_log: job.has_log,
        };
        Ok::<_, Error>((client, request, requires))
    };
    let (client, known, requires) = tokio::select! {
        found = finding => found?,
        signal = interrupts.next() => return Err(Error::Interrupted { signal }),
    };
    let (progress, router) = (Progress::default(), client.router().to_owned());
    let outcome =
        session::attach(client, known, DEFAULT_RECONNECT_TIMEOUT, &mut interrupts, &progress).await?;
    if outcome.ending != Ending::Detached {
        SavedArtifacts::forget(home, &router, &outcome.job);
    }
    Ok(Outcome { requires_files: requires, ..outcome })
}

/// Sends a signal to jobs.
pub async fn kill(home: &Home, options: Kill) -> Result<ExitCode, Error> {
    if options.list {
        return print(&signal::SENDABLE.join(" ")).map(|()| ExitCode::Program(0));
    }
    let (mut connection, _) = connect(home, &options.router).await?;
    let jobs = jobs(&mut connection).await?;
    // All are found before the first one gets a signal.
    let is_alive = |job: &&v1::Job| job.own && job.state() != JobState::Ended;
    let found: Vec<_> = match &options.jobs[..] {
        [] if options.all => jobs.iter().filter(is_alive).collect(),
        [] => vec![only(jobs.iter().filter(is_alive), connection.router())?],
        named => {
            named.iter().map(|job| find(&jobs, Some(job), connection.router())).collect::<Result<_, _>>()?
        }
    };
    let mut result = Ok(ExitCode::Program(0));
    for job in found {
        let request = SignalJobRequest { job_id: job.job_id.clone(), signal: options.signal.clone() };
        match connection.client().signal_job(request).await {
            // One of all has exited meanwhile.
            Err(status) if options.all && status.code() == Code::NotFound => {}
            Err(status) if result.is_ok() => result = Err(connection.explain(status).await.into()),
            _ => {}
        }
    }
    result
}

/// The connection settings of the selected router.
fn place(home: &Home, options: &EnrolledOptions) -> Result<(Router, Identity, Mux, Duration), Error> {
    let router = selected_router(home, options.router.as_deref())?;
    let mux = Mux::new(home, options.keep_connection)?;
    Ok((router, home.identity()?, mux, options.connect_timeout.into()))
}

async fn connect(home: &Home, options: &EnrolledOptions) -> Result<(Connection, Capabilities), Error> {
    let (router, identity, mux, connect_timeout) = place(home, options)?;
    let (connection, info) = mux.open(&router, &identity, connect_timeout).await?;
    check_capability(&info, connection.router())?;
    Ok((connection, Capabilities::from(&info)))
}

fn check_capability(info: &GetInfoResponse, router: &str) -> Result<(), Error> {
    if Capabilities::from(info).has(ATTACH) {
        Ok(())
    } else {
        Err(client::Error::Incompatible { router: router.to_owned() }.into())
    }
}

/// All jobs of a router.
pub(super) async fn jobs(connection: &mut Connection) -> Result<Vec<v1::Job>, Error> {
    match connection.client().list_jobs(ListJobsRequest {}).await {
        Ok(reply) => {
            let jobs = reply.into_inner().jobs;
            let broken = |what| client::Error::Protocol { router: connection.router().to_owned(), what };
            check_list(&jobs).map_err(broken)?;
            Ok(jobs)
        }
        Err(status) => Err(connection.explain(status).await.into()),
    }
}

/// Whether an agent can have these jobs.
fn check_list(jobs: &[v1::Job]) -> Result<(), &'static str> {
    let is_plain = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    let is_id = |id: &str| (1..=MAX_JOB_ID_BYTES).contains(&id.len()) && id.bytes().all(is_plain);
    if jobs.len() > MAX_LISTED_JOBS {
        return Err("more jobs than an agent can have");
    }
    if jobs.iter().all(|job| is_id(&job.job_id)) { Ok(()) } else { Err("a job with an id that is none") }
}

/// The job of this controller whose id this is, or begins like this and no other; without an id, the only job.
fn find<'a>(jobs: &'a [v1::Job], wanted: Option<&str>, router: &str) -> Result<&'a v1::Job, Error> {
    let Some(wanted) = wanted else { return only(jobs.iter().filter(|job| job.own), router) };
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

/// The only one of this controller's jobs that come into question.
fn only<'a>(own: impl Iterator<Item = &'a v1::Job>, router: &str) -> Result<&'a v1::Job, Error> {
    let own: Vec<_> = own.collect();
    match own[..] {
        [only] => Ok(only),
        [] => Err(Error::NoJobs { router: router.to_owned() }),
        _ => {
            let known = own.iter().map(|job| job.job_id.as_str()).collect::<Vec<_>>().join(", ");
            Err(Error::SeveralJobs { router: router.to_owned(), known })
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn job(id: &str, own: bool) -> v1::Job {
        v1::Job { job_id: id.into(), own, ..v1::Job::default() }
    }

    #[test]
    fn job_is_found_by_id_prefix() {
        let jobs = [job("12ab", true), job("12", true), job("1fff", true), job("77", false), job("7", true)];
        let found = |wanted| find(&jobs, Some(wanted), "desk").map(|job| job.job_id.as_str());
        assert_eq!(found("1f").unwrap(), "1fff");
        assert_eq!(found("12").unwrap(), "12", "an id may begin another");
        assert_eq!(found("12a").unwrap(), "12ab");
        assert_eq!(found("7").unwrap(), "7");
        assert!(matches!(found("77").unwrap_err(), Error::NotYours { .. }));
        for nothing in ["", "2", "1fff0"] {
            let error = found(nothing).unwrap_err();
            assert!(matches!(error, Error::NoSuchJob { .. }), "{nothing}: {error:?}");
        }
        let Err(Error::AmbiguousJob { known, .. }) = found("1") else { panic!() };
        assert_eq!(known, "12ab, 12, 1fff");
    }

    #[test]
    fn only_own_job_needs_no_id() {
        let found = |jobs: &[v1::Job]| find(jobs, None, "desk").map(|job| job.job_id.clone());
        assert_eq!(found(&[job("12", true), job("7", false)]).unwrap(), "12");
        assert!(matches!(found(&[job("7", false)]).unwrap_err(), Error::NoJobs { .. }));
        let error = found(&[job("12", true), job("34", true)]).unwrap_err();
        assert!(matches!(error, Error::SeveralJobs { known, .. } if known == "12, 34"));
    }

    #[test]
    fn impossible_job_list_is_refused() {
        assert!(check_list(&[job("12ab", true)]).is_ok());
        for id in ["", "12AB", "1\u{1b}[2J", "1\n", &"1".repeat(MAX_JOB_ID_BYTES + 1)] {
            assert!(check_list(&[job(id, true)]).is_err(), "{id:?}");
        }
        assert!(check_list(&vec![job("1", true); MAX_LISTED_JOBS + 1]).is_err());
    }
}
