//! The command line.
//!
//! `hop run` and `hop build` follow `go run` and `go build`, whose flags clap cannot read: long with one dash, and mixed
//! with ours. [`go_flags`] marks them before clap sees them.
//!
//! **Invariants:** what comes after the package is the program's, to the last byte.

mod go_flags;
mod jobs;
mod routers;
mod run;
mod shell;
mod virtual_routers;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ContextKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

pub use self::go_flags::names as go_flag_names;
pub use self::jobs::{Attach, Kill, Logs, Ps};
pub use self::routers::{Add, Key, KeyCommand, Router};
pub use self::run::{
    ArtifactOptions, Build, DEFAULT_RECONNECT_TIMEOUT, Exec, GoExec, GoOptions, JobOptions, LogMode, Run,
};
pub use self::shell::{Complete, Completions, ManPages, Shell};
pub use self::virtual_routers::{Virtual, VirtualUp};
use crate::client::connection::DEFAULT_TIMEOUT;
use crate::client::mux;
use crate::console::exit_code::ExitCode;
use crate::console::stdio;

/// The names under which Go looks for a program that executes what it has built.
pub const GO_EXEC_NAMES: [&str; 2] = ["go_linux_mips_exec", "go_linux_mipsle_exec"];

/// The variable with further options of `hop exec`, where Go writes the command line.
const GO_EXEC_FLAGS: &str = "HOP_EXEC_FLAGS";

/// Runs Go programs on MIPS routers as if they were local.
#[derive(Debug, Parser)]
#[command(name = "hop", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes of run, exec and attach: the program's own, unchanged; 128+n: killed by signal n; 124: --timeout or --idle-timeout; \
125: Hop failed, and standard error says why; 126: the router cannot execute the program.

Environment: HOP_ROUTER selects the router without -r; HOP_KEEP_CONNECTION is the default of --keep-connection; HOP_HOME is the \
directory of keys and inventory; HOP_VIRTUAL_ROUTERS is that of the kernels and files of virtual routers; HOP_EXEC_FLAGS has options of `hop exec`, separated by spaces, for when Go calls it as \
go_linux_mips_exec.";

/// What `hop` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build a Go program and run it on a router, as `go run` does here
    #[command(override_usage = "hop run [OPTIONS] [GO BUILD FLAGS] PACKAGE|FILES.go [ARGS]...")]
    Run(Run),
    /// Run an executable file on a router
    #[command(override_usage = "hop exec [OPTIONS] BINARY [ARGS]...")]
    Exec(Exec),
    /// Make plain `go test` and `go run` use a router
    #[command(subcommand)]
    GoExec(GoExec),
    /// Build a Go program for a router
    #[command(override_usage = "hop build [OPTIONS] [GO BUILD FLAGS] PACKAGE|FILES.go")]
    Build(Build),
    /// List the jobs of a router
    Ps(Ps),
    /// Reattach to a job's stdin, stdout and stderr, and exit with its status
    Attach(Attach),
    /// Print a job's unread output, and leave it unread for `hop attach`
    Logs(Logs),
    /// Send a signal to jobs
    Kill(Kill),
    /// Show a router's hardware, memory and agent capabilities
    Info(Info),
    /// Enrol, check, upgrade and remove routers
    #[command(subcommand)]
    Router(Router),
    /// Show the fingerprint of this controller's key, or rotate the key
    Key(Key),
    /// Start, stop and list virtual routers, which run on this machine under QEMU
    #[command(subcommand)]
    Virtual(Virtual),
    /// Print the script that completes hop's commands, options, routers, jobs and packages in a shell
    Completions(Completions),
    /// Print the version, as --version does
    Version,
    /// Print what completes a word of a command line; the scripts of `hop completions` call this.
    #[command(hide = true)]
    Complete(Complete),
    /// Write the man pages; packages are made with this.
    #[command(hide = true)]
    ManPages(ManPages),
    /// Hold a connection for other commands; hop starts this itself.
    #[command(hide = true)]
    KeepConnection(KeepConnection),
}

/// `hop keep-connection`.
#[derive(Args, Debug)]
pub struct KeepConnection {
    /// To which router
    pub router: String,
    /// How long without use
    #[arg(value_parser = mux::duration)]
    pub persist: Duration,
    /// How long to try to connect
    pub connect_timeout: humantime::Duration,
}

/// Which router, and how long to wait for it.
#[derive(Args, Debug)]
pub struct RouterOptions {
    /// The router (default: HOP_ROUTER, else that of `hop router use`, else the only one)
    #[arg(short, long, value_name = "ROUTER")]
    pub router: Option<String>,
    /// Time limit for connecting to the router
    #[arg(long, value_name = "DURATION", default_value_t = DEFAULT_TIMEOUT.into())]
    pub connect_timeout: humantime::Duration,
    /// Keep the connection open in the background until no command has used it for this long, as ssh's ControlPersist does: at
    /// most a day; 0 also ignores a connection that is open already (default: HOP_KEEP_CONNECTION, else keep none)
    #[arg(long, value_name = "DURATION", value_parser = mux::duration)]
    pub keep_connection: Option<Duration>,
}

/// Which router, where only one that is enrolled already is of use.
#[derive(Args, Debug)]
pub struct EnrolledOptions {
    /// The router (default: HOP_ROUTER, else that of `hop router use`, else the only one)
    #[arg(short, long, value_name = "ROUTER")]
    pub router: Option<String>,
    /// Time limit for connecting to the router
    #[arg(long, value_name = "DURATION", default_value_t = DEFAULT_TIMEOUT.into())]
    pub connect_timeout: humantime::Duration,
    /// Keep the connection open in the background until no command has used it for this long, as ssh's ControlPersist does: at
    /// most a day; 0 also ignores a connection that is open already (default: HOP_KEEP_CONNECTION, else keep none)
    #[arg(long, value_name = "DURATION", value_parser = mux::duration)]
    pub keep_connection: Option<Duration>,
}

/// `hop info`.
#[derive(Args, Debug)]
pub struct Info {
    /// Which router.
    #[command(flatten)]
    pub router: RouterOptions,
    /// The router, as with -r
    #[arg(value_name = "ROUTER", conflicts_with = "router")]
    pub name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl RouterOptions {
    /// How long to wait for it.
    pub fn timeout(&self) -> Duration {
        self.connect_timeout.into()
    }
}

/// What became of a command line.
#[derive(Debug)]
pub enum Parsed {
    /// Something to do.
    Command(Box<Command>),
    /// It has its answer: help, or what is wrong with it.
    Answered(Answer),
}

/// What clap has to say of a command line.
#[derive(Debug)]
pub struct Answer(clap::Error);

impl Answer {
    /// Prints it, in colour on a terminal.
    pub fn print(&self) {
        let Self(answer) = self;
        let is_error = answer.use_stderr();
        let is_terminal = if is_error { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        // Each fails only if there is nobody to read it.
        let _ = match is_terminal {
            true => answer.print(),
            false if is_error => stdio::stderr().write_all(answer.to_string().as_bytes()),
            false => stdio::stdout().write_all(answer.to_string().as_bytes()),
        };
    }

    /// clap's own code for a wrong command line is 2, which could be the program's.
    pub fn exit_code(&self) -> ExitCode {
        if self.0.use_stderr() { ExitCode::HopFailed } else { ExitCode::Program(0) }
    }
}

/// Under the name by which Go looks for a program that executes others (`go help run`), `hop` is `hop exec --go`.
fn for_go(mut words: Vec<OsString>) -> Vec<OsString> {
    let name = words.first().map(PathBuf::from).and_then(|path| Some(path.file_name()?.to_owned()));
    let Some(name) = name.filter(|name| GO_EXEC_NAMES.iter().any(|known| *name == **known)) else {
        return words;
    };
    let flags = std::env::var(GO_EXEC_FLAGS).unwrap_or_default();
    let exec = [name, "exec".into(), "--go".into()];
    words.splice(..1, exec.into_iter().chain(flags.split_whitespace().map(OsString::from)));
    words
}

/// The definition of the command line, with what clap adds to it: help, and -h of each command.
pub fn command() -> clap::Command {
    let mut hop = Cli::command();
    hop.build();
    hop
}

/// Rewrites what clap cannot read: flags of `go build` become values of a hidden option, and `--` is put in front of a program.
///
/// # Errors
/// Why a flag is none of `hop` or `go build`.
pub fn mark(words: Vec<OsString>) -> Result<Vec<OsString>, clap::Error> {
    go_flags::mark(&command(), words).map(jobs::mark_signals)
}

/// Reads a command line, the program's name first.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Parsed {
    let marked = mark(for_go(words.into_iter().collect()));
    match marked.and_then(|words| Cli::try_parse_from(routers::name_first(words))) {
        Ok(cli) => Parsed::Command(Box::new(cli.command)),
        Err(mut answer) => {
            // clap proposes to put `--` in front of a mistyped option, which would make it the name of a job or a router.
            answer.remove(ContextKind::Suggested);
            Parsed::Answered(Answer(answer))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parsed(line: &str) -> Command {
        match parse(line.split('|').map(OsString::from)) {
            Parsed::Command(command) => *command,
            Parsed::Answered(answer) => panic!("{line}: {answer:?}"),
        }
    }

    #[test]
    fn command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_after_package_reach_program() {
        let Command::Run(run) = parsed("hop|run|-r|desk|-tags|a b|./probe|-r|--help|--|-v") else { panic!() };
        assert_eq!(run.router.router.as_deref(), Some("desk"));
        assert_eq!(run.go.flags, ["-tags", "a b"]);
        assert_eq!(run.words, ["./probe", "-r", "--help", "--", "-v"]);
        let Command::Exec(exec) = parsed("hop|exec|-timeout|2s|./probe|--timeout|3s|-h") else { panic!() };
        assert_eq!(exec.words, ["./probe", "--timeout", "3s", "-h"]);
        assert_eq!(exec.job.timeout.unwrap().as_secs(), 2);
    }

    #[test]
    fn go_and_hop_flags_mix() {
        let line = "hop|run|-ldflags=-X main.v=1|--env|A=-b|-race|-C|dir|-o|out|--timeout=1s|-mod|vendor|.";
        let Command::Run(run) = parsed(line) else { panic!() };
        assert_eq!(run.go.flags, ["-ldflags=-X main.v=1", "-race", "-o", "out", "-mod", "vendor"]);
        assert_eq!((run.job.env, run.go.directory), (vec!["A=-b".into()], Some("dir".into())));
        assert_eq!(run.words, ["."]);
    }

    #[test]
    fn virtual_ssh_passes_its_command() {
        let Command::Virtual(Virtual::Ssh { name, command }) = parsed("hop|virtual|ssh|dir-505|ls|-l|--help")
        else {
            panic!()
        };
        assert_eq!((&*name, command), ("dir-505", ["ls", "-l", "--help"].map(OsString::from).into()));
    }

    #[test]
    fn detach_flags_of_hop_and_program() {
        let Command::Run(run) =
            parsed("hop|run|-d|-race|-reconnect-timeout|2h|./probe|-d|--detach|--reconnect-timeout|1s")
        else {
            panic!()
        };
        assert_eq!((run.job.detach, run.job.reconnect_timeout.as_secs()), (true, 7200));
        assert_eq!((run.go.flags, run.words.len()), (vec!["-race".into()], 5));
        let Command::Exec(exec) = parsed("hop|exec|--reconnect-timeout=0|-detach|./probe|-d") else {
            panic!()
        };
        assert_eq!((exec.job.detach, exec.job.reconnect_timeout), (true, Duration::ZERO));
        assert_eq!(exec.words, ["./probe", "-d"]);
        let Command::Run(run) = parsed("hop|run|.|-d") else { panic!() };
        assert_eq!((run.job.detach, run.job.reconnect_timeout), (false, DEFAULT_RECONNECT_TIMEOUT));
    }

    #[test]
    fn n_flag_means_no_stdin() {
        let Command::Run(run) = parsed("hop|run|-n|-race|./probe|-n") else { panic!() };
        assert!(run.job.no_stdin && run.go.flags == ["-race"]);
        assert_eq!(run.words, ["./probe", "-n"]);
        let Command::Exec(exec) = parsed("hop|exec|-no-stdin|./probe") else { panic!() };
        assert!(exec.job.no_stdin);
        let Command::Attach(attach) = parsed("hop|attach|-n|12ab") else { panic!() };
        assert!(attach.no_stdin);
    }

    #[test]
    fn go_exec_links_select_go_mode() {
        for name in ["/somewhere/go_linux_mips_exec", "go_linux_mipsle_exec"] {
            let Command::Exec(exec) = parsed(&format!("{name}|/tmp/x.test|-test.v=true|--go")) else {
                panic!()
            };
            assert!(exec.go && exec.job.artifacts.paths.is_empty());
            assert_eq!(exec.words, ["/tmp/x.test", "-test.v=true", "--go"]);
        }
        let Command::Exec(exec) = parsed("hop|exec|--go|-artifact|*.golden|./x.test|--artifact|x") else {
            panic!()
        };
        assert_eq!((exec.job.artifacts.paths, exec.words.len()), (vec!["*.golden".into()], 3));
    }

    #[test]
    fn connection_persists_a_day_at_most() {
        let kept = |line: &str| match parsed(line) {
            Command::Run(run) => run.router.keep_connection,
            Command::Ps(ps) => ps.router.keep_connection,
            Command::Router(Router::Info { keep_connection, .. }) => keep_connection,
            command => panic!("{command:?}"),
        };
        assert_eq!(kept("hop|run|-keep-connection|10m|."), Some(Duration::from_secs(600)));
        assert_eq!(kept("hop|ps|--keep-connection=24h"), Some(mux::MAX_PERSIST));
        assert_eq!(kept("hop|router|info|--keep-connection|0s"), Some(Duration::ZERO));
        assert_eq!(kept("hop|run|.|--keep-connection|10m"), None);
        let Command::KeepConnection(orders) = parsed("hop|keep-connection|desk|1m 30s|10s") else { panic!() };
        assert_eq!((&*orders.router, orders.persist.as_secs()), ("desk", 90));
    }

    #[test]
    fn job_arguments_are_parsed() {
        let Command::Attach(attach) = parsed("hop|attach|-r|desk|--status-file|f|12ab") else { panic!() };
        assert_eq!((attach.router.router.as_deref(), attach.job.as_deref()), (Some("desk"), Some("12ab")));
        let Command::Kill(kill) = parsed("hop|kill|12ab|34cd") else { panic!() };
        assert_eq!((&*kill.signal, &kill.jobs[..]), ("TERM", &["12ab".to_owned(), "34cd".to_owned()][..]));
        for (line, signal) in [
            ("hop|kill|-9|12ab", "KILL"),
            ("hop|kill|-r|desk|-USR1|12ab", "USR1"),
            ("hop|kill|-SIGHUP", "HUP"),
        ] {
            let Command::Kill(kill) = parsed(line) else { panic!() };
            assert_eq!(kill.signal, signal, "{line}");
        }
        let Command::Kill(kill) = parsed("hop|kill|-l") else { panic!() };
        assert!(kill.list && kill.jobs.is_empty());
        let Command::Ps(ps) = parsed("hop|ps|--json") else { panic!() };
        assert!(ps.json);
    }

    #[test]
    fn unknown_flags_are_quoted_as_typed() {
        let refused = |line: &str| match parse(line.split('|').map(OsString::from)) {
            Parsed::Answered(Answer(answer)) => answer.to_string(),
            Parsed::Command(command) => panic!("{line}: {command:?}"),
        };
        for (line, said, tip) in [
            ("hop|run|-tag|x|.", "flag provided but not defined: -tag", "'-tags'"),
            ("hop|run|--tag=x|.", "flag provided but not defined: --tag", "'-tags'"),
            ("hop|build|-n|.", "flag provided but not defined: -n", "`go build -n` prints"),
            ("hop|run|-exec|prog|.", "flag provided but not defined: -exec", "`hop go-exec env`"),
            ("hop|run|--tiemout|5s|.", "flag provided but not defined: --tiemout", "'--timeout'"),
            ("hop|exec|-frobnicate|x", "flag provided but not defined: -frobnicate", ""),
            ("hop|run|-v=maybe|.", "invalid boolean value \"maybe\" for -v", ""),
            ("hop|run|-tags", "flag needs an argument: -tags", ""),
            ("hop|run|-timeout", "flag needs an argument: -timeout", ""),
            ("hop|run|-\u{1b}[2J|.", "flag provided but not defined: -\\u{1b}[2J", ""),
            ("hop|kill|-t", "unexpected argument '-t' found", ""),
        ] {
            let answer = refused(line);
            assert!(answer.starts_with(&format!("error: {said}\n")), "{line}: {answer}");
            assert!(
                !answer.contains("'-- -") && answer.contains("tip: ") != tip.is_empty(),
                "{line}: {answer}"
            );
            assert!(answer.contains(tip) && answer.contains("Usage: hop "), "{line}: {answer}");
        }
    }

    #[test]
    fn router_is_named_with_or_without_r() {
        for line in ["hop|info|desk|--json", "hop|info|--json|-r|desk"] {
            let Command::Info(info) = parsed(line) else { panic!() };
            assert_eq!(info.name.or(info.router.router).as_deref(), Some("desk"), "{line}");
        }
        for line in ["hop|ps|desk", "hop|ps|--router=desk"] {
            let Command::Ps(ps) = parsed(line) else { panic!() };
            assert_eq!(ps.name.or(ps.router.router).as_deref(), Some("desk"), "{line}");
        }
        for line in [
            "hop|router|remove|desk|--all",
            "hop|router|rm|--all|-r|desk",
            "hop|router|remove|--router=desk|--all",
        ] {
            let Command::Router(Router::Remove { name, all, .. }) = parsed(line) else { panic!() };
            assert!(name == "desk" && all, "{line}");
        }
        let Command::Router(Router::Revoke { name, key, .. }) = parsed("hop|router|revoke|ann@work|-r|desk")
        else {
            panic!()
        };
        assert_eq!((&*name, &*key), ("desk", "ann@work"));
        let Command::Router(Router::Check { name, .. }) = parsed("hop|router|check|-r|desk") else {
            panic!()
        };
        assert_eq!(name.as_deref(), Some("desk"));
        let Command::GoExec(GoExec::Env { name, .. }) = parsed("hop|go-exec|env|desk") else { panic!() };
        assert_eq!(name.as_deref(), Some("desk"));
    }

    #[test]
    fn switches_take_values_as_in_go() {
        let Command::Run(run) = parsed("hop|run|-v=true|-detach=0|-race=false|.") else { panic!() };
        assert!(run.job.verbose && !run.job.detach && run.go.flags == ["-race=false"]);
    }

    #[test]
    fn help_exits_with_0() {
        for line in ["hop|-h", "hop|run|-h", "hop|exec|--help", "hop|build|-help", "hop|kill|-h"] {
            match parse(line.split('|').map(OsString::from)) {
                Parsed::Answered(answer) => assert_eq!(answer.exit_code(), ExitCode::Program(0), "{line}"),
                Parsed::Command(command) => panic!("{line}: {command:?}"),
            }
        }
    }

    #[test]
    fn wrong_command_line_exits_125() {
        for line in [
            "hop",
            "hop|run",
            "hop|run|-frobnicate|.",
            "hop|run|--timeout|soon|.",
            "hop|exec|--tiemout|5s|./probe",
            "hop|exec|-race|./probe",
            "hop|exec|--output|x|./probe",
            "hop|exec|--go|--detach|./probe",
            "hop|exec|-n|-t|./probe",
            "hop|build|-n|.",
            "hop|go-exec",
            "hop|run|-rdesk|./probe",
            "hop|run|-exec|prog|./probe",
            "hop|build|-r|x|--arch|mips|.",
            "hop|virtual|up|--arch|mips|--profile|dir-505",
            "hop|virtual|up|--bare",
            "hop|run|--reconnect-timeout|25h|.",
            "hop|run|--keep-connection|25h|.",
            "hop|attach|12ab|34cd",
            "hop|kill|-s|STOP|12ab",
            "hop|kill|-STOP|12ab",
            "hop|kill|--all|12ab",
            "hop|kill|-l|12ab",
            "hop|info|desk|-r|attic",
            "hop|router|remove|desk|-r|attic",
            "hop|router|remove|-r",
        ] {
            match parse(line.split('|').map(OsString::from)) {
                Parsed::Answered(answer) => assert_eq!(answer.exit_code(), ExitCode::HopFailed, "{line}"),
                Parsed::Command(command) => panic!("{line}: {command:?}"),
            }
        }
    }
}
