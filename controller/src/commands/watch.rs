//! `hop run --watch`: builds and runs a program again when its source files change.
//!
//! **Invariants:** at most one run at a time; a program that does not build leaves the running one alone; what was built again and is
//! the same does not replace a program that runs; and one Ctrl-C ends the program and this `hop`.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Error;
use super::report;
use super::run::{Prepared, RunRequest, Source};
use super::selected_router;
use crate::cli::RouterOptions;
use crate::client::mux::{self, Mux};
use crate::console::exit_code::ExitCode;
use crate::console::progress::Progress;
use crate::console::say;
use crate::console::signals::{Interrupts, Remote};
use crate::golang::build::Build;
use crate::golang::watcher::SourceWatcher;
use crate::session;
use crate::session::Job;
use crate::session::outcome::{Ending, Outcome};
use crate::session::stdin;
use crate::transfer::blob::Blob;
use crate::transfer::blob_cache::BlobCache;

/// How long a connection is kept between two runs, unless the user says how long: as long as one thinks about a change.
const KEEP_CONNECTION: Duration = Duration::from_secs(600);

/// Runs the program of `request` until the user ends that.
///
/// # Errors
/// What cannot be run at all; an error of a build or of a run is printed, and waits for the next change.
pub async fn run(request: RunRequest<'_>, args: Vec<OsString>) -> Result<ExitCode, Error> {
    let is_kept = Mux::is_asked_for(request.router.keep_connection);
    let router = RouterOptions {
        router: request.router.router.clone(),
        connect_timeout: request.router.connect_timeout,
        keep_connection: request.router.keep_connection.or((!is_kept).then_some(KEEP_CONNECTION)),
    };
    let request = RunRequest { router: &router, ..request };
    let result = watch(&request, args).await;
    if !is_kept && let Ok(router) = selected_router(request.home, router.router.as_deref()) {
        // If it does not stop, it ends by itself.
        let _ = mux::stop(request.home, &router).await;
    }
    result
}

/// What comes next.
enum Next {
    /// A program to run, and its job.
    Run(Box<(Job, Prepared)>),
    /// The user has ended this `hop`.
    End(&'static str),
}

async fn watch(request: &RunRequest<'_>, args: Vec<OsString>) -> Result<ExitCode, Error> {
    let mut interrupts = Interrupts::listen().map_err(Error::io("handle", Path::new("signals")))?;
    let mut watcher = tokio::select! {
        sources = sources(request) => SourceWatcher::new(sources?)?,
        signal = interrupts.next() => return Ok(ExitCode::of_signal(signal)),
    };
    let mut next = first(request, &args, &mut watcher, &mut interrupts).await?;
    loop {
        let (job, prepared) = match next {
            Next::Run(ready) => *ready,
            Next::End(signal) => return Ok(ExitCode::of_signal(signal)),
        };
        next = match run_once(request, &args, job, prepared, &mut watcher, &mut interrupts).await? {
            Some(next) => next,
            None => when_changed(request, &args, &mut watcher, &mut interrupts).await?,
        };
    }
}

/// The first program: what is wrong with more than its source ends the watch.
async fn first(
    request: &RunRequest<'_>,
    args: &[OsString],
    watcher: &mut SourceWatcher,
    interrupts: &mut Interrupts,
) -> Result<Next, Error> {
    let progress = Progress::default();
    let prepared = tokio::select! {
        prepared = prepare(request, args, &progress) => prepared,
        signal = interrupts.next() => return Ok(Next::End(signal)),
    };
    match prepared {
        Ok(prepared) => Ok(Next::Run(prepared)),
        Err(error) if error.is_of_source() => {
            report::report(&error, Some(request.home));
            when_changed(request, args, watcher, interrupts).await
        }
        Err(error) => Err(error),
    }
}

/// Waits until a change builds, while nothing runs.
async fn when_changed(
    request: &RunRequest<'_>,
    args: &[OsString],
    watcher: &mut SourceWatcher,
    interrupts: &mut Interrupts,
) -> Result<Next, Error> {
    say!("hop: waiting for a change of the source; Ctrl-C ends hop");
    loop {
        tokio::select! {
            prepared = rebuilt(request, args, watcher) => match prepared {
                Ok(prepared) => return Ok(Next::Run(prepared)),
                Err(error) => drop(report::report(&error, Some(request.home))),
            },
            signal = interrupts.next() => return Ok(Next::End(signal)),
        }
    }
}

/// Waits for a change, and builds. A change meanwhile begins the build again.
async fn rebuilt(
    request: &RunRequest<'_>,
    args: &[OsString],
    watcher: &mut SourceWatcher,
) -> Result<Box<(Job, Prepared)>, Error> {
    // A run that ends while this builds begins it again.
    let mut changed = watcher.unhandled().await;
    loop {
        let begun = Instant::now();
        let name = changed.file_name().unwrap_or("the source".as_ref()).to_string_lossy();
        say!("hop: {name} changed: building");
        let progress = Progress::none();
        let (prepared, sources) = tokio::select! {
            built = async { tokio::join!(prepare(request, args, &progress), sources(request)) } => built,
            again = watcher.changed() => {
                changed = again;
                continue;
            }
        };
        watcher.set_handled();
        if request.options.verbose {
            say!("hop: ready to run after {:.2} s", begun.elapsed().as_secs_f64());
        }
        // Also of what does not build: the missing part may be in a directory of its own.
        match sources {
            Ok(sources) => watcher.update(sources)?,
            Err(error) if prepared.is_ok() => return Err(error),
            // The build says more.
            Err(_) => {}
        }
        return prepared;
    }
}

async fn prepare(
    request: &RunRequest<'_>,
    args: &[OsString],
    progress: &Progress,
) -> Result<Box<(Job, Prepared)>, Error> {
    let mut job = request.job(args.to_vec())?;
    let prepared = request.prepare(&mut job, progress).await?;
    job.input = stdin::Mode::Empty;
    Ok(Box::new((job, prepared)))
}

/// Runs a program until it ends, or until another one takes its place. Returns what comes next, if that is known.
async fn run_once(
    request: &RunRequest<'_>,
    args: &[OsString],
    job: Job,
    prepared: Prepared,
    watcher: &mut SourceWatcher,
    interrupts: &mut Interrupts,
) -> Result<Option<Next>, Error> {
    let Prepared { mut client, program, probe, .. } = prepared;
    let progress = Progress::default();
    if let Some((probe, test)) = probe
        && let Err(error) = request.ask(probe, &test, &mut client, interrupts, &progress).await
    {
        report::report(&error, Some(request.home));
        return Ok(None);
    }
    let sent = BlobCache::new(request.home);
    let remote = interrupts.remote();
    let running = session::run(client, &program, &job, &sent, None, interrupts, &progress);
    let (ended, next) = supervise(request, args, running, remote, &program.blob, watcher).await;
    match (ended, next) {
        (ended, Some(next)) => {
            // hop has ended it, so only what was lost is news.
            if let Ok(outcome) = ended {
                report::tell(&outcome);
            }
            Ok(Some(next))
        }
        (Ok(outcome), None) => {
            report::tell(&outcome);
            say!("hop: {}", how(&outcome));
            Ok(None)
        }
        (Err(error), None) => {
            report::report(&error.into(), Some(request.home));
            Ok(None)
        }
    }
}

/// Waits for the end of a run, builds meanwhile what has changed, and ends the run for what was built, or for the user.
async fn supervise(
    request: &RunRequest<'_>,
    args: &[OsString],
    running: impl Future<Output = Result<Outcome, session::Error>>,
    mut remote: Remote,
    program: &Blob,
    watcher: &mut SourceWatcher,
) -> (Result<Outcome, session::Error>, Option<Next>) {
    tokio::pin!(running);
    let next = loop {
        tokio::select! {
            biased;
            ended = &mut running => {
                // The user's signal may have ended it.
                let signal = tokio::select! {
                    biased;
                    signal = remote.ended() => Some(Next::End(signal)),
                    () = std::future::ready(()) => None,
                };
                return (ended, signal);
            }
            signal = remote.ended() => break Next::End(signal),
            built = rebuilt(request, args, watcher) => match built {
                Ok(ready) if ready.1.program.blob.digest == program.digest => {
                    say!("hop: it is the same program, which runs on");
                }
                Ok(ready) => {
                    remote.send("TERM");
                    break Next::Run(ready);
                }
                Err(error) => drop(report::report(&error, Some(request.home))),
            },
        }
    };
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = tokio::time::sleep(request.options.grace) => {
            remote.send("KILL");
            running.await
        }
    };
    // The user may end hop while the program is replaced.
    let next = match next {
        Next::Run(prepared) => tokio::select! {
            biased;
            signal = remote.ended() => Next::End(signal),
            () = std::future::ready(()) => Next::Run(prepared),
        },
        end => end,
    };
    (ended, Some(next))
}

fn how(outcome: &Outcome) -> String {
    match &outcome.ending {
        Ending::Exited(code) => format!("the program exited with {code}"),
        Ending::Signaled { name, .. } => format!("SIG{name} killed the program"),
        _ => "the program has ended".to_owned(),
    }
}

/// The source files of the program. For a router of which hop knows no architecture, those of MIPS.
async fn sources(request: &RunRequest<'_>) -> Result<crate::golang::sources::Sources, Error> {
    let Source::Go { flags, packages, cc } = &request.source else {
        return Err(Error::Usage("--watch needs a Go package".to_owned()));
    };
    let router = selected_router(request.home, request.router.router.as_deref())?;
    let build = Build {
        flags,
        packages,
        goarch: if router.entry.goarch.is_empty() { "mips" } else { &router.entry.goarch },
        symbols: false,
        vcs_stamp: false,
        cc: cc.as_deref(),
    };
    if build.is_versioned() {
        let why = "--watch watches source files that are here, and not a package with a version";
        return Err(Error::Usage(why.to_owned()));
    }
    Ok(build.sources().await?)
}
