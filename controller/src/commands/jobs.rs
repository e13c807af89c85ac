//! `hop ps`, `hop attach`, `hop logs` and `hop kill`.

use std::path::Path;
use std::time::Duration;

use hop_proto::identity::Identity;
use hop_proto::limits::{MAX_JOB_ID_BYTES, MAX_LISTED_JOBS, MAX_OUTPUT_WINDOW_BYTES, OUTPUT_CHUNK_BYTES};
use hop_proto::signal;
use hop_proto::v1::{
    self, GetInfoResponse, JobState, ListJobsRequest, Output, ReadOutputRequest, SignalJobRequest, Stream,
};
use serde::Serialize;
use tonic::Code;

use super::Error;
use super::report;
use super::status_file::StatusFile;
use super::{no_terminal, print, print_as_it_is, selected_router};
use crate::cli::{Attach, DEFAULT_RECONNECT_TIMEOUT, EnrolledOptions, Kill, Logs, Ps};
use crate::client;
use crate::client::capabilities::{ATTACH, Capabilities};
use crate::client::connection::Connection;
use crate::client::mux::Mux;
use crate::client::reconnect::ReconnectingClient;
use crate::config::home::Home;
use crate::config::inventory::Router;
use crate::console::exit_code::ExitCode;
use crate::console::printable::{self, printable};
use crate::console::progress::Progress;
use crate::console::signals::Interrupts;
use crate::console::stdio;
use crate::console::terminal::Terminal;
use crate::session::artifacts::Request;
use crate::session::outcome::Outcome;
use crate::session::stdin;
use crate::session::{self, AttachRequest};

/// Lists the jobs of a router.
pub async fn ps(home: &Home, options: Ps) -> Result<ExitCode, Error> {
    let mut connection = connect(home, &options.router).await?;
    let jobs = jobs(&mut connection).await?;
    let router = connection.router().to_owned();
    print_as_it_is(&listed(jobs, options.json).map_err(|what| client::Error::Protocol { router, what })?)?;
    Ok(ExitCode::Program(0))
}

/// The list of jobs, as a table or as JSON. No program's name can take more than its cell.
///
/// # Errors
/// Why the list is invalid, if no agent can have sent it.
pub fn listed(jobs: Vec<v1::Job>, json: bool) -> Result<String, &'static str> {
    check_list(&jobs)?;
    let lines: Vec<Line> = jobs.into_iter().map(Line::from).collect();
    Ok(if json { printable::json(&lines) } else { table(&lines) })
}

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
    let outputs = Request::parse_all(&options.artifacts.paths, options.artifacts.policy(true))?;
    let finding = async {
        let (router, identity, mux, connect_timeout) = place(home, &options.router)?;
        let (mut client, info) = ReconnectingClient::open(router, identity, mux, connect_timeout).await?;
        check_capability(&info, client.router())?;
        let jobs = jobs(client.connection()).await?;
        let v1::Job { job_id, detached, .. } = find(&jobs, options.job.as_deref(), client.router())?.clone();
        let input = match detached || options.no_stdin {
            true => stdin::Mode::Unattached,
            false => stdin::Mode::Forwarded,
        };
        Ok::<_, Error>((client, AttachRequest { job: job_id, detached, input, outputs, tty: options.tty }))
    };
    let (client, known) = tokio::select! {
        found = finding => found?,
        signal = interrupts.next() => return Err(Error::Interrupted { signal }),
    };
    Ok(session::attach(client, known, DEFAULT_RECONNECT_TIMEOUT, &mut interrupts, &Progress::default())
        .await?)
}

/// Prints the output of a job that nobody has read, each of the two to its own place.
pub async fn logs(home: &Home, options: Logs) -> Result<ExitCode, Error> {
    let mut connection = connect(home, &options.router).await?;
    let jobs = jobs(&mut connection).await?;
    let job_id = find(&jobs, options.job.as_deref(), connection.router())?.job_id.clone();
    let mut unread = Unread::default();
    let mut pieces = match connection.client().read_output(ReadOutputRequest { job_id }).await {
        Ok(pieces) => pieces.into_inner(),
        Err(status) => return Err(connection.explain(status).await.into()),
    };
    loop {
        match pieces.message().await {
            Ok(Some(response)) => {
                let piece = response.output.unwrap_or_default();
                let router = connection.router().to_owned();
                unread.take(&piece).map_err(|what| client::Error::Protocol { router, what })?;
                write(&piece)?;
            }
            Ok(None) => return Ok(ExitCode::Program(0)),
            Err(status) => return Err(connection.explain(status).await.into()),
        }
    }
}

/// How far the output is that nobody has read.
#[derive(Default)]
pub struct Unread {
    /// For each of the two: where the next byte belongs, once that is known, and how many there were.
    streams: [(Option<u64>, u64); 2],
}

impl Unread {
    /// Looks at a piece before it is printed.
    ///
    /// # Errors
    /// What is wrong with it: no agent keeps more than a window of each output.
    pub fn take(&mut self, piece: &Output) -> Result<(), &'static str> {
        let (next, bytes) = match piece.stream() {
            Stream::Stdout => &mut self.streams[0],
            Stream::Stderr => &mut self.streams[1],
            Stream::Unspecified => return Err("an output that there is not"),
        };
        if piece.uncompressed_size != 0 {
            return Err("packed output that nobody asked for");
        }
        if next.is_some_and(|next| next != piece.offset) {
            return Err("output does not begin where it ended");
        }
        let length = piece.data.len() as u64;
        *bytes += length;
        if piece.data.len() > OUTPUT_CHUNK_BYTES || *bytes > MAX_OUTPUT_WINDOW_BYTES.into() {
            return Err("more output than it may keep");
        }
        *next = Some(piece.offset.saturating_add(length));
        Ok(())
    }
}

/// A closed standard output is no error: its reader has seen enough.
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
    if options.list {
        return print(&signal::SENDABLE.join(" ")).map(|()| ExitCode::Program(0));
    }
    let mut connection = connect(home, &options.router).await?;
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

async fn connect(home: &Home, options: &EnrolledOptions) -> Result<Connection, Error> {
    let (router, identity, mux, connect_timeout) = place(home, options)?;
    let (connection, info) = mux.open(&router, &identity, connect_timeout).await?;
    check_capability(&info, connection.router())?;
    Ok(connection)
}

fn check_capability(info: &GetInfoResponse, router: &str) -> Result<(), Error> {
    if Capabilities::from(info).has(ATTACH) {
        Ok(())
    } else {
        Err(client::Error::Incompatible { router: router.to_owned() }.into())
    }
}

async fn jobs(connection: &mut Connection) -> Result<Vec<v1::Job>, Error> {
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
        // The program may be another controller's, and was given its name there.
        text.push_str(&row([&line.job, &printable(&line.program), line.state, &age, line.controller, whose]));
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

    #[test]
    fn program_name_is_escaped_in_list() {
        let name = "x\u{1b}[2J\n77 make yours".to_owned();
        let text = table(&[Line::from(v1::Job { name, ..job("12ab", false) })]);
        assert!(text.lines().count() == 2 && text.contains("x\\u{1b}[2J\\n77 make yours"), "{text}");
    }

    #[test]
    fn logs_are_bounded_by_window() {
        let piece = |offset, length| Output {
            stream: Stream::Stdout.into(),
            offset,
            data: vec![b'x'; length].into(),
            uncompressed_size: 0,
        };
        let mut unread = Unread::default();
        let start = 1 << 40;
        let whole = u64::from(MAX_OUTPUT_WINDOW_BYTES);
        for offset in (0..whole).step_by(OUTPUT_CHUNK_BYTES) {
            unread.take(&piece(start + offset, OUTPUT_CHUNK_BYTES)).unwrap();
        }
        assert!(unread.take(&piece(start + whole, 1)).is_err());
        let mut unread = Unread::default();
        unread.take(&piece(u64::MAX, 5)).unwrap();
        assert!(unread.take(&piece(0, 5)).is_err(), "it does not go on there");
        assert!(unread.take(&Output { uncompressed_size: 5, ..piece(u64::MAX, 5) }).is_err());
        assert!(unread.take(&Output { stream: Stream::Unspecified.into(), ..piece(0, 5) }).is_err());
        assert!(Unread::default().take(&piece(0, OUTPUT_CHUNK_BYTES + 1)).is_err());
    }

    #[test]
    fn empty_job_list_is_its_header() {
        assert_eq!(table(&[]), "JOB               PROGRAM          STATE     AGE          CONTROLLER WHOSE");
    }

    #[test]
    fn job_without_controller_waits_or_detached() {
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
