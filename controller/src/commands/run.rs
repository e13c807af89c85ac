//! `hop run` and `hop exec`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hop_proto::limits::DEFAULT_LOG_BYTES;
use hop_proto::v1::GetInfoResponse;

use super::Error;
use super::built::build_program;
use super::environment::environment;
use super::print;
use super::report;
use super::saved_artifacts::SavedArtifacts;
use super::shortcomings;
use super::status_file::StatusFile;
use super::watch;
use crate::cli::{Exec, JobOptions, LogMode, RouterOptions, Run};
use crate::client;
use crate::client::capabilities::{ATTACH, Capabilities, INPUT_PLACES, LOG, NATIVE};
use crate::client::mux::Mux;
use crate::client::reconnect::ReconnectingClient;
use crate::config::home::Home;
use crate::console::exit_code::ExitCode;
use crate::console::progress::Progress;
use crate::console::say;
use crate::console::signals::Interrupts;
use crate::console::terminal::Terminal;
use crate::golang::build::{self, Build};
use crate::golang::build_info::go_version;
use crate::golang::probe::Probe;
use crate::golang::test_exec::{self, Call};
use crate::inputs::{self, Share};
use crate::program::{self, Program};
use crate::session::artifacts::Request;
use crate::session::outcome::{Ending, Outcome};
use crate::session::output;
use crate::session::run_queue::RunSlot;
use crate::session::stdin;
use crate::session::{self, Job};
use crate::transfer::blob_cache::BlobCache;
use crate::transfer::inputs::InputArchive;

/// The variable that names the kind of a terminal.
const TERM: &str = "TERM";

/// The variable that selects what a Go program does in a crash.
const GOTRACEBACK: &str = "GOTRACEBACK";

/// Paths that a message names.
const MAX_NAMED: usize = 5;

/// Builds a package and runs it.
pub async fn run(home: &Home, options: Run) -> Result<ExitCode, Error> {
    super::change_directory(&options.go)?;
    let (packages, args) = split(options.words);
    let source = Source::Go { flags: options.go.flags, packages, cc: options.go.cc };
    let request = RunRequest { home, source, router: &options.router, options: &options.job, for_go: false };
    if options.watch { watch::run(request, args).await } else { request.execute(args).await }
}

/// Runs a file.
pub async fn exec(home: &Home, options: Exec) -> Result<ExitCode, Error> {
    let mut words = options.words;
    // clap lets no command line pass without a word here.
    let source = Source::File(PathBuf::from(words.remove(0)));
    let request =
        RunRequest { home, source, router: &options.router, options: &options.job, for_go: options.go };
    request.execute(words).await
}

/// As `go run` does: if the first word is a `.go` file, all `.go` files that follow belong to the package.
fn split(mut words: Vec<OsString>) -> (Vec<OsString>, Vec<OsString>) {
    let is_file = |word: &OsString| word.as_bytes().ends_with(b".go");
    let packages = words.iter().take_while(|word| is_file(word)).count().max(1).min(words.len());
    let args = words.split_off(packages);
    (words, args)
}

/// Where a program comes from.
#[derive(Clone)]
pub(super) enum Source {
    Go { flags: Vec<OsString>, packages: Vec<OsString>, cc: Option<OsString> },
    File(PathBuf),
}

/// One run of a program.
pub(super) struct RunRequest<'a> {
    pub(super) home: &'a Home,
    pub(super) source: Source,
    pub(super) router: &'a RouterOptions,
    pub(super) options: &'a JobOptions,
    /// Go has started this `hop`, as its -exec program.
    pub(super) for_go: bool,
}

/// A program that is ready to run on a router.
pub(super) struct Prepared {
    pub(super) client: ReconnectingClient,
    pub(super) program: Program,
    /// Its slot in the run queue, if it waits for one.
    slot: Option<RunSlot>,
    /// The probe that finds out whether this Go's programs run there, and its program; `None` if the verdict is known.
    pub(super) probe: Option<(Probe, Program)>,
}

impl RunRequest<'_> {
    async fn execute(self, args: Vec<OsString>) -> Result<ExitCode, Error> {
        let status_file = self.options.status_file.as_deref().map(StatusFile::create).transpose()?;
        let mut result = self.run_job(args).await;
        if let Ok(outcome) = &mut result {
            outcome.requires_files = self.options.artifacts.require_artifacts;
            if outcome.ending == Ending::Detached
                && !self.options.artifacts.paths.is_empty()
                && let Err(error) = self.save_artifacts(&outcome.job)
            {
                say!("hop: hop attach will need --artifact again: {error}");
            }
        }
        let written = status_file.map_or(Ok(()), |file| file.write(&result));
        let outcome = match result {
            // Go takes the messages of hop for output of the test, so hop prints few.
            Err(error) if self.for_go => return Ok(report::report_in_a_line(&error, self.home)),
            Ok(outcome) if self.for_go => outcome.without_the_usual(),
            result => result?,
        };
        report::tell(&outcome);
        if outcome.ending == Ending::Detached {
            print(&outcome.job)?;
        }
        written.map(|()| report::exit_code(&outcome))
    }

    fn save_artifacts(&self, job: &str) -> Result<(), Error> {
        let router = super::selected_router(self.home, self.router.router.as_deref())?;
        SavedArtifacts::of(&self.options.artifacts)?.save(self.home, &router.name, job)
    }

    async fn run_job(&self, args: Vec<OsString>) -> Result<Outcome, Error> {
        let mut job = self.job(args)?;
        let unreadable = std::mem::take(&mut job.unreadable);
        let outcome = self.run(job).await?;
        let is_well = matches!(outcome.ending, Ending::Exited(0) | Ending::Detached);
        if !unreadable.is_empty() && (!is_well || self.options.verbose) {
            say!("hop: not sent, because hop may not read it: {}", listed(&unreadable));
        }
        Ok(outcome)
    }

    async fn run(&self, mut job: Job) -> Result<Outcome, Error> {
        let mut interrupts = Interrupts::listen().map_err(Error::io("handle", Path::new("signals")))?;
        let progress = if self.for_go { Progress::none() } else { Progress::default() };
        let sent = BlobCache::new(self.home);
        let Prepared { mut client, program, mut slot, probe } = tokio::select! {
            ready = self.prepare(&mut job, &progress) => ready?,
            signal = interrupts.next() => return Err(Error::Interrupted { signal }),
        };
        if let Some((probe, program)) = probe {
            self.ask(probe, &program, &mut client, &mut interrupts, &progress).await?;
        }
        let result =
            session::run(client, &program, &job, &sent, slot.as_mut(), &mut interrupts, &progress).await;
        let result = result.map_err(Error::from);
        let Some(slot) = slot.as_mut().filter(|_| result.as_ref().is_err_and(Error::is_lack_of_capacity))
        else {
            return result;
        };
        // Once hop has the slot, the program that took the space has exited.
        let again = async {
            slot.acquire().await?;
            self.connect().await
        };
        let (client, _) = tokio::select! {
            again = again => again?,
            signal = interrupts.next() => return Err(Error::Interrupted { signal }),
        };
        Ok(session::run(client, &program, &job, &sent, Some(slot), &mut interrupts, &progress).await?)
    }

    /// Runs the probe, and connects again.
    pub(super) async fn ask(
        &self,
        probe: Probe,
        program: &Program,
        client: &mut ReconnectingClient,
        interrupts: &mut Interrupts,
        progress: &Progress,
    ) -> Result<(), Error> {
        let job = probe.job(self.options.nice);
        let sent = BlobCache::new(self.home);
        let again = self.connect().await?.0;
        let first = std::mem::replace(client, again);
        let outcome = session::run(first, program, &job, &sent, None, interrupts, progress).await?;
        Ok(probe.answer(&outcome)?)
    }

    /// The job, as far as the options describe it.
    pub(super) fn job(&self, args: Vec<OsString>) -> Result<Job, Error> {
        let options = self.options;
        if options.tty && !Terminal::is_there() {
            return Err(super::no_terminal());
        }
        let mut env = environment(&options.env)?;
        if options.tty {
            // The user's variables come last, and win.
            env.splice(..0, std::env::var_os(TERM).map(|value| (TERM.into(), value)));
        }
        if options.core.is_some() {
            // Go leaves a core file only with this setting (pkg.go.dev/runtime).
            env.insert(0, (GOTRACEBACK.into(), "crash".into()));
        }
        let limit = |limit: Option<humantime::Duration>| {
            limit.map(Into::into).filter(|limit: &Duration| !limit.is_zero())
        };
        let mut job = Job {
            args,
            env,
            timeout: limit(options.timeout),
            idle_timeout: limit(options.idle_timeout),
            grace: options.grace,
            nice: options.nice,
            user: options.user.clone().unwrap_or_default(),
            terminal: options.tty.then(Terminal::size),
            reconnect_timeout: options.reconnect_timeout,
            detached: options.detach,
            log_size: match options.log {
                LogMode::Drop => options.log_size.unwrap_or(DEFAULT_LOG_BYTES),
                LogMode::Wait => 0,
            },
            input: match (options.detach, options.no_stdin) {
                // The agent ends it.
                (true, _) => stdin::Mode::Unattached,
                (false, true) => stdin::Mode::Empty,
                (false, false) => stdin::Mode::Forwarded,
            },
            core: options.core.clone(),
            verbose: options.verbose,
            ..Job::default()
        };
        if !self.for_go {
            let policy = options.artifacts.policy(!options.detach);
            job.outputs = Request::parse_all(&options.artifacts.paths, policy)?;
        }
        let call = match self.for_go {
            true => {
                job.merges_outputs = output::are_one();
                let policy = options.artifacts.policy(true);
                let (args, artifacts) = (std::mem::take(&mut job.args), options.artifacts.paths.clone());
                Call::of_go(args, artifacts, options.inputs.clone(), policy)?
            }
            false => Call::for_coverage(std::mem::take(&mut job.args), options.inputs.clone())?,
        };
        call.translate()?.apply(&mut job);
        Ok(job)
    }

    async fn connect(&self) -> Result<(ReconnectingClient, GetInfoResponse), Error> {
        let router = super::running_router(self.home, self.router.router.as_deref()).await?;
        let mux = Mux::new(self.home, self.router.keep_connection)?.verbose(self.options.verbose);
        Ok(ReconnectingClient::open(router, self.home.identity()?, mux, self.router.timeout()).await?)
    }

    /// Finds the router, and makes the program for it.
    pub(super) async fn prepare(&self, job: &mut Job, progress: &Progress) -> Result<Prepared, Error> {
        let mut slot = match self.for_go {
            true => {
                let router = super::running_router(self.home, self.router.router.as_deref()).await?;
                Some(RunSlot::enqueue(self.home, &router.name).await?)
            }
            false => None,
        };
        let (client, info) = self.connect().await?;
        let router = client.router();
        self.check_capabilities(job, &info, router)?;
        self.add_share(job, &info)?;
        job.check_inputs(router, &info)?;
        if !self.for_go && !self.options.tty {
            shortcomings::tell(self.home, router, &info, self.options.verbose);
        }
        if self.for_go {
            test_exec::check(&job.args, router, info.memory.unwrap_or_default().total)?;
        }
        let incompatible = || client::Error::Incompatible { router: router.to_owned() };
        let target = program::target_of(&info).ok_or_else(incompatible)?;
        let mut version = None;
        let program = match &self.source {
            Source::File(path) => {
                let name = path.file_name().unwrap_or(OsStr::new("program")).to_owned();
                let program = Program::load(path, &name, router, target)?;
                if let Some(built_by) = go_version(&program.whole) {
                    build::check(&built_by, target, router, &info.kernel)?;
                    version = self.for_go.then_some(built_by);
                }
                // Profiles are read here, with the names that are here.
                if self.for_go { program.without_symbols() } else { program }
            }
            Source::Go { flags, packages, cc } => {
                let goarch = build::goarch(target).ok_or_else(|| {
                    Error::Usage(format!("Go does not build for {target}, which the router is"))
                })?;
                let symbols = job.core.is_some();
                let cc = cc.as_deref();
                let build = Build { flags, packages, goarch, symbols, vcs_stamp: false, cc };
                version = Some(build::version(target).await?);
                build::check(version.as_deref().unwrap_or_default(), target, router, &info.kernel)?;
                let begun = Instant::now();
                let program = build_program(&build, router, target, progress).await?;
                if self.options.verbose {
                    progress.aside(|| say!("hop: built in {:.2} s", begun.elapsed().as_secs_f64()));
                }
                if build.symbols { program.without_symbols() } else { program }
            }
        };
        // One that takes its turn may be promised more when that has come.
        if !self.for_go || info.jobs == 0 {
            program.check_promised(router, &info.memory.unwrap_or_default())?;
        }
        // The probe starts programs of its own, and measures the kernel of a router.
        let is_router = program::is_mips(target) && Capabilities::from(&info).has(NATIVE);
        let probe = version.filter(|_| is_router);
        let probe = probe.map(|version| Probe::new(self.home, router, &info, target, &version));
        let probe = match probe {
            Some(probe) if !probe.is_answered()? => {
                probe.program(target, progress).await?.map(|program| (probe, program))
            }
            _ => None,
        };
        if let Some(slot) = &mut slot {
            job.share_memory(slot, &info);
            // The probe must not be in the way of what runs.
            if probe.is_some() || !slot.may_wait_on_router(job.room(&program), &info) {
                slot.acquire().await?;
            }
        }
        Ok(Prepared { client, program, slot, probe })
    }

    /// Adds what the router may lack: the file of its time zone, certificates.
    fn add_share(&self, job: &mut Job, info: &GetInfoResponse) -> Result<(), Error> {
        let given = job.env.iter().rfind(|(name, _)| name == inputs::TZ).map(|(_, value)| value.clone());
        let tz = given.clone().or_else(|| std::env::var_os(inputs::TZ).filter(|tz| !tz.is_empty()));
        if let (None, Some(tz)) = (given, &tz) {
            job.env.insert(0, (inputs::TZ.into(), tz.clone()));
        }
        let mut share = Share::default();
        if let Some(tz) = tz.filter(|_| Capabilities::from(info).has(INPUT_PLACES)) {
            share.add_zone(&tz)?;
        }
        if self.options.send_certs {
            share.add_certificates()?;
        }
        job.inputs.extend(share.pack(&mut job.env)?);
        Ok(())
    }

    /// Whether the agent can do what the job needs.
    fn check_capabilities(&self, job: &Job, info: &GetInfoResponse, router: &str) -> Result<(), Error> {
        let needed = [
            ("run", "hop run", true),
            ("inputs", "input files", !job.inputs.is_empty()),
            ("wait_for_start", "programs that take turns", self.for_go),
            ("merge_stderr", "programs with one output", job.merges_outputs),
            (ATTACH, "--detach", job.detached),
            (LOG, "--log-size", self.options.log_size.is_some()),
            (INPUT_PLACES, "--send-certs", self.options.send_certs),
            (INPUT_PLACES, "--input", job.inputs.iter().any(InputArchive::is_in_place)),
            ("terminal", "--tty", job.terminal.is_some()),
            ("user", "--user", !job.user.is_empty()),
            ("outputs", "--artifact", !job.outputs.is_empty()),
            ("core", "--core", job.core.is_some()),
        ];
        let capabilities = Capabilities::from(info);
        let lacks =
            |(capability, _, is_needed): &&(&str, _, bool)| *is_needed && !capabilities.has(capability);
        match needed.iter().find(lacks) {
            Some((_, what, _)) => Err(Error::Lacks { router: router.to_owned(), what }),
            None => Ok(()),
        }
    }
}

/// The first of these paths, and how many more there are.
fn listed(paths: &[PathBuf]) -> String {
    let named: Vec<_> = paths.iter().take(MAX_NAMED).map(|path| path.display().to_string()).collect();
    match paths.len() - named.len() {
        0 => named.join(", "),
        more => format!("{}, and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split('|').map(OsString::from).collect()
    }

    #[test]
    fn go_files_end_like_go_run() {
        assert_eq!(split(words("./probe|a.go")), (words("./probe"), words("a.go")));
        assert_eq!(split(words("a.go|b.go|c|d.go")), (words("a.go|b.go"), words("c|d.go")));
    }
}
