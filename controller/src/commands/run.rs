//! `hop run` and `hop exec`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hop_proto::v1::GetInfoResponse;

use super::print;
use crate::build_info::go_version;
use crate::cli::{Exec, JobOptions, RouterOptions, Run};
use crate::error::Error;
use crate::go::{self, Build};
use crate::go_exec::{self, Call};
use crate::home::Home;
use crate::interrupt::Interrupts;
use crate::keeper::Keeping;
use crate::link::{self, Link};
use crate::outcome::{self, Ending, ExitCode, Outcome, StatusFile, say};
use crate::output;
use crate::output_files::{Local, Request};
use crate::probe::Probe;
use crate::program::{self, Program};
use crate::progress::Progress;
use crate::sent::Sent;
use crate::session::{self, Job};
use crate::stdin;
use crate::terminal::Terminal;
use crate::turn::Turn;

/// The variable that names the kind of a terminal.
const TERM: &str = "TERM";

/// The variable that says what a Go program does when it crashes.
const GOTRACEBACK: &str = "GOTRACEBACK";

/// Builds a package and runs it.
pub async fn run(home: &Home, options: Run) -> Result<ExitCode, Error> {
    options.go.change_directory()?;
    let (packages, args) = split(options.words);
    let source = Source::Go { flags: options.go.flags, packages, cc: options.go.cc };
    let order = Order { home, source, router: &options.router, options: &options.job, for_go: None };
    order.carry_out(args).await
}

/// Runs a file.
pub async fn exec(home: &Home, options: Exec) -> Result<ExitCode, Error> {
    let mut words = options.words;
    // clap lets no command line pass without a word here.
    let source = Source::File(PathBuf::from(words.remove(0)));
    let for_go = options.go.then_some(&options.bring[..]);
    let order = Order { home, source, router: &options.router, options: &options.job, for_go };
    order.carry_out(words).await
}

/// As `go run` does: if the first word is a `.go` file, all `.go` files that follow belong to the package.
fn split(mut words: Vec<OsString>) -> (Vec<OsString>, Vec<OsString>) {
    let is_file = |word: &OsString| word.as_bytes().ends_with(b".go");
    let packages = words.iter().take_while(|word| is_file(word)).count().max(1).min(words.len());
    let args = words.split_off(packages);
    (words, args)
}

/// Where a program comes from.
enum Source {
    Go { flags: Vec<OsString>, packages: Vec<OsString>, cc: Option<OsString> },
    File(PathBuf),
}

/// What is to be done.
struct Order<'a> {
    home: &'a Home,
    source: Source,
    router: &'a RouterOptions,
    options: &'a JobOptions,
    /// Go has called this `hop`, and these files are to be brought back beside those that Go wants.
    for_go: Option<&'a [OsString]>,
}

/// A program that can be run on a router.
struct Ready {
    link: Link,
    program: Program,
    /// If it is to take its turn.
    turn: Option<Turn>,
    /// Whether what Go builds runs there at all, if that is not known, and what tells.
    probe: Option<(Probe, Program)>,
}

impl Order<'_> {
    async fn carry_out(self, args: Vec<OsString>) -> Result<ExitCode, Error> {
        let status_file = self.options.status_file.as_deref().map(StatusFile::create).transpose()?;
        let result = self.run_job(args).await;
        let written = status_file.map_or(Ok(()), |file| file.write(&result));
        let outcome = match result {
            // Go takes for the test's what is said here, so it is little.
            Err(error) if self.for_go.is_some() => return Ok(outcome::report_in_a_line(&error)),
            Ok(outcome) if self.for_go.is_some() => outcome.without_the_usual(),
            result => result?,
        };
        outcome.tell();
        if outcome.ending == Ending::Detached {
            print(&outcome.job)?;
        }
        written.map(|()| outcome.exit_code())
    }

    async fn run_job(&self, args: Vec<OsString>) -> Result<Outcome, Error> {
        let mut job = self.job(args)?;
        let mut interrupts = Interrupts::listen().map_err(Error::io("handle", Path::new("signals")))?;
        let progress = if self.for_go.is_some() { Progress::none() } else { Progress::default() };
        let sent = Sent::new(self.home);
        let Ready { mut link, program, mut turn, probe } = tokio::select! {
            ready = self.prepare(&mut job, &progress) => ready?,
            signal = interrupts.next() => return Err(Error::Interrupted { signal }),
        };
        if let Some((probe, program)) = probe {
            let job = probe.job(job.nice);
            let outcome = session::run(link, &program, &job, &sent, None, &mut interrupts, &progress).await?;
            probe.answer(&outcome)?;
            link = self.connect().await?.0;
        }
        let result =
            session::run(link, &program, &job, &sent, turn.as_mut(), &mut interrupts, &progress).await;
        let Some(turn) = turn.as_mut().filter(|_| result.as_ref().is_err_and(Error::is_for_want_of_room))
        else {
            return result;
        };
        // What takes the room has ended when the turn has come.
        let again = async {
            turn.come().await?;
            self.connect().await
        };
        let (link, _) = tokio::select! {
            again = again => again?,
            signal = interrupts.next() => return Err(Error::Interrupted { signal }),
        };
        session::run(link, &program, &job, &sent, Some(turn), &mut interrupts, &progress).await
    }

    /// The job, as far as it is known here.
    fn job(&self, args: Vec<OsString>) -> Result<Job, Error> {
        let options = self.options;
        if options.tty && !Terminal::is_there() {
            return Err(super::no_terminal());
        }
        let mut env = environment(&options.env)?;
        if options.tty {
            // What the user says is last, and wins.
            env.splice(..0, std::env::var_os(TERM).map(|value| (TERM.into(), value)));
        }
        if options.core.is_some() {
            // Go writes one only if it is told to (pkg.go.dev/runtime).
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
            linger: options.linger,
            detached: options.detach,
            input: match (options.detach, options.no_stdin) {
                // The agent ends it.
                (true, _) => stdin::Mode::Unattached,
                (false, true) => stdin::Mode::Empty,
                (false, false) => stdin::Mode::Forwarded,
            },
            outputs: Request::parse_all(&options.output.paths, options.output.policy(!options.detach))?,
            core: options.core.clone(),
            verbose: options.verbose,
            ..Job::default()
        };
        if options.detach && job.outputs.iter().any(|request| matches!(request.local, Local::Path(_))) {
            return Err(Error::Usage(
                "with --detach, --output names no place here: hop attach does, when it brings the files"
                    .to_owned(),
            ));
        }
        let call = match self.for_go {
            Some(bring) => {
                job.merges_outputs = output::are_one();
                let policy = options.output.policy(true);
                Call::of_go(std::mem::take(&mut job.args), bring.to_vec(), policy)?
            }
            None => Call::for_coverage(std::mem::take(&mut job.args))?,
        };
        job.take(call.translate()?);
        Ok(job)
    }

    async fn connect(&self) -> Result<(Link, GetInfoResponse), Error> {
        let router = super::choose_router(self.home, self.router.router.as_deref()).await?;
        let keeping = Keeping::new(self.home, self.router.keep_connection)?.verbose(self.options.verbose);
        Link::open(router, self.home.identity()?, keeping, self.router.patience()).await
    }

    /// Finds the router, and makes the program for it.
    async fn prepare(&self, job: &mut Job, progress: &Progress) -> Result<Ready, Error> {
        let mut turn = match self.for_go {
            Some(_) => {
                let router = super::choose_router(self.home, self.router.router.as_deref()).await?;
                Some(Turn::next_on(self.home, &router.name).await?)
            }
            None => None,
        };
        let (link, info) = self.connect().await?;
        let router = link.router();
        self.check_capabilities(job, &info, router)?;
        job.check_inputs(router, &info)?;
        if self.for_go.is_some() {
            go_exec::check(&job.args, router, info.memory.unwrap_or_default().total)?;
        }
        let incompatible = || Error::Incompatible { router: router.to_owned() };
        let target = program::target_of(&info).ok_or_else(incompatible)?;
        let mut version = None;
        let program = match &self.source {
            Source::File(path) => {
                let name = path.file_name().unwrap_or(OsStr::new("program")).to_owned();
                let program = Program::load(path, &name, router, target)?;
                if let Some(built_by) = go_version(&program.whole) {
                    go::check(&built_by, target, router, &info.kernel)?;
                    version = self.for_go.map(|_| built_by);
                }
                // Profiles are read here, with the names that are here.
                if self.for_go.is_some() { program.without_symbols() } else { program }
            }
            Source::Go { flags, packages, cc } => {
                let goarch = go::goarch(target).ok_or_else(|| {
                    Error::Usage(format!("Go does not build for {target}, which the router is"))
                })?;
                let symbols = job.core.is_some();
                let build = Build { flags, packages, goarch, symbols, cc: cc.as_deref() };
                version = Some(go::version(target).await?);
                go::check(version.as_deref().unwrap_or_default(), target, router, &info.kernel)?;
                let begun = Instant::now();
                let program = build_program(&build, router, target, progress).await?;
                if self.options.verbose {
                    progress.aside(|| say!("hop: built in {:.2} s", begun.elapsed().as_secs_f64()));
                }
                if build.symbols { program.without_symbols() } else { program }
            }
        };
        // One that takes its turn may be promised more when that has come.
        if self.for_go.is_none() || info.jobs == 0 {
            program.check_promised(router, &info.memory.unwrap_or_default())?;
        }
        // Under a launcher it is this machine's kernel, and a program's own programs do not run.
        let is_router = program::is_mips(target) && info.launcher.is_empty();
        let probe = version.filter(|_| is_router);
        let probe = probe.map(|version| Probe::new(self.home, router, &info, target, &version));
        let probe = match probe {
            Some(probe) if !probe.is_answered()? => {
                probe.program(target, progress).await?.map(|program| (probe, program))
            }
            _ => None,
        };
        if let Some(turn) = &mut turn {
            job.share_memory(turn, &info);
            // The probe must not be in the way of what runs.
            if probe.is_some() || !turn.may_wait_there(job.room(&program), &info) {
                turn.come().await?;
            }
        }
        Ok(Ready { link, program, turn, probe })
    }

    /// Whether the agent can do what the job needs.
    fn check_capabilities(&self, job: &Job, info: &GetInfoResponse, router: &str) -> Result<(), Error> {
        let needed = [
            ("run", "hop run", true),
            ("inputs", "input files", !job.inputs.is_empty()),
            ("wait_for_start", "programs that take turns", self.for_go.is_some()),
            ("merge_stderr", "programs with one output", job.merges_outputs),
            (link::ATTACH, "--detach", job.detached),
            ("terminal", "--tty", job.terminal.is_some()),
            ("user", "--user", !job.user.is_empty()),
            ("outputs", "--output", !job.outputs.is_empty()),
            ("core", "--core", job.core.is_some()),
        ];
        let lacks =
            |(capability, _, is_needed): &&(&str, _, bool)| *is_needed && !link::can(info, capability);
        match needed.iter().find(lacks) {
            Some((_, what, _)) => Err(Error::Lacks { router: router.to_owned(), what }),
            None => Ok(()),
        }
    }
}

async fn build_program(
    build: &Build<'_>,
    router: &str,
    target: crate::elf::Target,
    progress: &Progress,
) -> Result<Program, Error> {
    // With -o the user keeps the program; without, it is gone when it has been read.
    let loaded = match kept_output(build.flags) {
        Some(output) => {
            build.run(None, progress).await?;
            // As `go build -o` reads it: a directory gets the program under its own name.
            let output = if output.is_dir() { output.join(build.name()) } else { output };
            Program::load(&output, &build.name(), router, target)
        }
        None => {
            let (_directory, output) = go::temporary_output()?;
            build.run(Some(&output), progress).await?;
            Program::load(&output, &build.name(), router, target)
        }
    };
    match loaded {
        // What Go writes for a package without main is an archive.
        Err(Error::NotRunnable {
            why: crate::error::NotRunnable::NotAProgram(crate::elf::Error::Archive),
            ..
        }) => {
            let package = build.packages.first().map(|package| package.to_string_lossy().into_owned());
            Err(Error::NotMain { package: package.unwrap_or_default() })
        }
        loaded => loaded,
    }
}

/// The value of the last `-o` among the user's own flags.
fn kept_output(flags: &[OsString]) -> Option<PathBuf> {
    let mut kept = None;
    let mut words = flags.iter();
    while let Some(word) = words.next() {
        match word.as_bytes() {
            b"-o" | b"--o" => kept = words.next().map(PathBuf::from),
            bytes => {
                if let Some(path) = bytes.strip_prefix(b"-o=").or(bytes.strip_prefix(b"--o=")) {
                    kept = Some(PathBuf::from(OsString::from_vec(path.to_vec())));
                }
            }
        }
    }
    kept
}

/// The variable by which an agent finds what jobs have left running; it takes none from a controller.
const JOB_DIRECTORY: &str = "HOP_JOB_DIR";

/// `NAME=VALUE`, or `NAME` for the value that it has here, as docker reads it; a name that is not set here is not set
/// there either.
fn environment(variables: &[OsString]) -> Result<Vec<(OsString, OsString)>, Error> {
    let mut env = Vec::new();
    for variable in variables {
        let bytes = variable.as_bytes();
        let equals = bytes.iter().position(|byte| *byte == b'=');
        let name = OsStr::from_bytes(&bytes[..equals.unwrap_or(bytes.len())]);
        if name.is_empty() {
            return Err(Error::Usage(format!("--env {} has no name", variable.to_string_lossy())));
        }
        if name == JOB_DIRECTORY {
            return Err(Error::Usage(format!("--env {JOB_DIRECTORY}: the agent sets this variable itself")));
        }
        match equals {
            Some(at) => env.push((name.to_owned(), OsStr::from_bytes(&bytes[at + 1..]).to_owned())),
            None => env.extend(std::env::var_os(name).map(|value| (name.to_owned(), value))),
        }
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split('|').map(OsString::from).collect()
    }

    #[test]
    fn files_of_a_package_end_where_go_run_ends_them() {
        assert_eq!(split(words("./probe|a.go")), (words("./probe"), words("a.go")));
        assert_eq!(split(words("a.go|b.go|c|d.go")), (words("a.go|b.go"), words("c|d.go")));
    }

    #[test]
    fn the_users_own_output_is_found() {
        assert_eq!(kept_output(&words("-tags|x|-o|one|--o=two")), Some("two".into()));
        assert_eq!(kept_output(&words("-tags|x")), None);
    }

    #[test]
    fn variables_are_read_as_docker_reads_them() {
        let env = environment(&words("A=1|B=|C=x=y")).unwrap();
        let expected = [("A", "1"), ("B", ""), ("C", "x=y")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(env, expected);
        assert_eq!(
            environment(&words("PATH")).unwrap(),
            [("PATH".into(), std::env::var_os("PATH").unwrap())]
        );
        assert_eq!(environment(&words("HOP_NO_SUCH_VARIABLE")).unwrap(), []);
        for refused in ["=1", "HOP_JOB_DIR=/", "HOP_JOB_DIR"] {
            assert!(environment(&words(refused)).is_err(), "{refused}");
        }
    }
}
