//! The command line.
//!
//! `hop run` and `hop build` follow `go run` and `go build`, whose flags clap cannot read: long with one dash, and mixed
//! with ours. [`go_flags`] marks them before clap sees them. What must stay true: what comes after the package is the
//! program's, to the last byte.

mod go_flags;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use hop_proto::identity::Fingerprint;
use hop_proto::limits::{DEFAULT_PORT, MAX_GRACE_MS, MAX_LINGER_MS};
use hop_proto::signal;

use crate::client::connection::DEFAULT_TIMEOUT;
use crate::client::mux;
use crate::console::exit_code::ExitCode;
use crate::console::stdio;
use crate::program::embedded::Arch;
use crate::session::artifacts::Policy;

/// How long to try to come back to a job unless told otherwise: a router that reboots or a link that is plugged in again
/// takes less, and nobody waits longer without asking what is wrong.
pub const DEFAULT_LINGER: Duration = Duration::from_secs(60);

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
Exit codes of run, exec and attach: the program's own, unchanged; 128+n: signal n ended it; 124: --timeout or --idle-timeout; \
125: Hop failed, and standard error says why; 126: the program cannot be executed on that router.

Environment: HOP_ROUTER is the router if -r is not given; HOP_KEEP_CONNECTION is how long connections are \
kept if --keep-connection is not given; HOP_HOME is where keys and the inventory are kept; HOP_EXEC_FLAGS has options of \
`hop exec`, separated by spaces, for when Go calls it as go_linux_mips_exec.";

/// What `hop` can do.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Command {
    /// Build a Go program and run it on a router, as `go run` does here
    #[command(override_usage = "hop run [OPTIONS] [GO BUILD FLAGS] PACKAGE|FILES.go [ARGS]...")]
    Run(Run),
    /// Run a finished program on a router
    #[command(override_usage = "hop exec [OPTIONS] BINARY [ARGS]...")]
    Exec(Exec),
    /// Let plain `go test` and `go run` use a router
    #[command(subcommand)]
    GoExec(GoExec),
    /// Build a Go program for a router
    #[command(override_usage = "hop build [OPTIONS] [GO BUILD FLAGS] PACKAGE|FILES.go")]
    Build(Build),
    /// List the jobs of a router
    Ps(Ps),
    /// Come back to a job: get its output, be its input, and end as it does
    Attach(Attach),
    /// Print the output of a job that nobody has read yet, and leave it for `hop attach`
    Logs(Logs),
    /// Send a signal to jobs
    Kill(Kill),
    /// Show what a router is and what its agent can do
    Info(Info),
    /// Enrol routers, and look after those that are enrolled
    #[command(subcommand)]
    Router(Router),
    /// Show the fingerprint of this controller's key, or exchange the key
    Key(Key),
    /// Start, end and list virtual routers, which run on this machine under QEMU
    #[command(subcommand)]
    Virtual(Virtual),
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
    pub lasting: Duration,
    /// How long to try to connect
    pub connect_timeout: humantime::Duration,
}

/// Which router, and how long to wait for it.
#[derive(Args, Debug)]
pub struct RouterOptions {
    /// The router; if there is only one, it need not be named, and if there is none, a virtual one is started
    #[arg(short, long, value_name = "ROUTER")]
    pub router: Option<String>,
    /// Give up if the router has not answered in this time
    #[arg(long, value_name = "DURATION", default_value_t = DEFAULT_TIMEOUT.into())]
    pub connect_timeout: humantime::Duration,
    /// Leave the connection open for the commands that come next, until none has used it for this long: at most a day; 0 uses
    /// none that was left, either (default: HOP_KEEP_CONNECTION, or leave none)
    #[arg(long, value_name = "DURATION", value_parser = mux::duration)]
    pub keep_connection: Option<Duration>,
}

/// Which router, where only one that is enrolled already is of use.
#[derive(Args, Debug)]
pub struct EnrolledOptions {
    /// The router; if there is only one, it need not be named
    #[arg(short, long, value_name = "ROUTER")]
    pub router: Option<String>,
    /// Give up if the router has not answered in this time
    #[arg(long, value_name = "DURATION", default_value_t = DEFAULT_TIMEOUT.into())]
    pub connect_timeout: humantime::Duration,
    /// Leave the connection open for the commands that come next, until none has used it for this long: at most a day; 0 uses
    /// none that was left, either (default: HOP_KEEP_CONNECTION, or leave none)
    #[arg(long, value_name = "DURATION", value_parser = mux::duration)]
    pub keep_connection: Option<Duration>,
}

/// As nice(1) without a number.
const DEFAULT_NICE: u8 = 10;

/// How to run, whatever the program is.
#[derive(Args, Debug)]
pub struct JobOptions {
    /// End the program when it has run this long (exit code 124): 500ms, 2s, 1m30s; 0 is no limit
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<humantime::Duration>,
    /// End the program when it has written nothing for this long (exit code 124); 0 is no limit
    #[arg(long, value_name = "DURATION")]
    pub idle_timeout: Option<humantime::Duration>,
    /// When the program must end, the time between SIGTERM and SIGKILL: at most 1m; 0 kills at once
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = grace)]
    pub grace: Duration,
    /// When the connection breaks, the time for which the program goes on and hop tries to come back to it: at most a day;
    /// 0 ends the program with its connection
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = linger)]
    pub linger: Duration,
    /// Print the job's id and leave once the program runs; see hop ps, hop attach and hop kill. Its standard input is empty
    #[arg(short, long)]
    pub detach: bool,
    /// Give the program a terminal, as `ssh -t` does: every key is its own, Ctrl-C too
    #[arg(short, long, conflicts_with = "detach")]
    pub tty: bool,
    /// Give the program an empty standard input and read nothing of hop's own, as `ssh -n`: in a loop such as `while read x; do
    /// hop run -n ./probe $x; done`, hop would read what the loop is to read next
    #[arg(short, long, conflicts_with = "tty")]
    pub no_stdin: bool,
    /// Run the program as this user of the router, without a way to more rights
    #[arg(short, long, value_name = "NAME|UID[:GID]")]
    pub user: Option<String>,
    /// The program's nice value, 0 to 19: what the router does for others comes first
    #[arg(long, value_name = "N", default_value_t = DEFAULT_NICE, value_parser = clap::value_parser!(u8).range(0..=19))]
    pub nice: u8,
    /// Set a variable in the program's environment; without =VALUE, to its value here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<OsString>,
    /// What to bring back.
    #[command(flatten)]
    pub output: OutputOptions,
    /// If a signal ends the program, write its core to FILE and the program with its symbols to FILE.program, for `gdb-multiarch
    /// FILE.program FILE`. A Go program gets GOTRACEBACK=crash, without which it leaves none
    #[arg(long, value_name = "FILE", conflicts_with = "detach")]
    pub core: Option<PathBuf>,
    /// Say what is done: how long it took to build, what was sent, when the program started
    #[arg(short, long)]
    pub verbose: bool,
    /// Write how it ended to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    pub status_file: Option<PathBuf>,
}

/// Which files come back, and how.
#[derive(Args, Debug)]
pub struct OutputOptions {
    /// When the program has ended, bring back a file or a directory that it has left where it started; `*` and `?` may stand
    /// for names. LOCAL is where to put it (default: the same path here); for a pattern, or `.` for all there is, it is a
    /// directory and must be named. Names that begin with a dot come only if PATH has the dot, and `.git` never
    #[arg(long = "output", value_name = "PATH[:LOCAL]")]
    pub paths: Vec<OsString>,
    /// Let files from a directory or a pattern replace others here; without this, only a file that --output names in full
    /// does
    #[arg(long)]
    pub output_overwrite: bool,
    /// Let output files be executable here if they are on the router
    #[arg(long)]
    pub output_executable: bool,
}

impl OutputOptions {
    /// What they say of every output file; `needs_places` if those come to this `hop`.
    pub fn policy(&self, needs_places: bool) -> Policy {
        Policy {
            overwrites: self.output_overwrite,
            keeps_executability: self.output_executable,
            needs_places,
        }
    }
}

/// `hop run`.
#[derive(Args, Debug)]
pub struct Run {
    /// Which router.
    #[command(flatten)]
    pub router: RouterOptions,
    /// How to run.
    #[command(flatten)]
    pub job: JobOptions,
    /// What to build.
    #[command(flatten)]
    pub go: GoOptions,
    /// The package or the .go files, then what goes to the program untouched
    #[arg(required = true, last = true, value_name = "PACKAGE|FILES.go [ARGS]", hide = true)]
    pub words: Vec<OsString>,
}

/// `hop exec`.
#[derive(Args, Debug)]
pub struct Exec {
    /// Which router.
    #[command(flatten)]
    pub router: RouterOptions,
    /// How to run.
    #[command(flatten)]
    pub job: JobOptions,
    /// Serve `go test` and `go run`, whose -exec this is: the program finds the files of its package, and what it writes by
    /// Go's flags (coverage, profiles) comes back; several programs take turns
    #[arg(long, conflicts_with_all = ["detach", "tty"])]
    pub go: bool,
    /// With --go, bring back what a test has written in its package's directory: a file, a directory, or a pattern with `*`
    /// and `?`. What is there already needs --output-overwrite, as with --output
    #[arg(long, value_name = "PATTERN", requires = "go")]
    pub bring: Vec<OsString>,
    /// The program, a static ELF file for the router, then what goes to it untouched
    #[arg(required = true, last = true, value_name = "BINARY [ARGS]", hide = true)]
    pub words: Vec<OsString>,
}

/// `hop go-exec`.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum GoExec {
    /// Put go_linux_mips_exec and go_linux_mipsle_exec into a directory, and print that for PATH
    Install {
        /// Where (default: a directory of Hop's own)
        directory: Option<PathBuf>,
    },
}

/// `hop build`.
#[derive(Args, Debug)]
pub struct Build {
    /// Build for this machine (default: that of the router that is meant, else mips)
    #[arg(long)]
    pub arch: Option<Arch>,
    /// Build for this router, as the inventory knows it
    #[arg(short, long, value_name = "ROUTER", conflicts_with = "arch")]
    pub router: Option<String>,
    /// Write the program to FILE (default: where `go build` puts it)
    #[arg(short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What to build.
    #[command(flatten)]
    pub go: GoOptions,
    /// The package or the .go files
    #[arg(required = true, last = true, value_name = "PACKAGE|FILES.go", hide = true)]
    pub packages: Vec<OsString>,
}

/// What concerns Go.
#[derive(Args, Debug)]
pub struct GoOptions {
    /// Change to DIR before anything else
    #[arg(short = 'C', value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Build the parts in C (cgo) with this compiler for the router, into one static file: 'zig cc -target mips-linux-musleabi'
    #[arg(long, value_name = "COMMAND")]
    pub cc: Option<OsString>,
    /// A flag of `go build`, put here by [`go_flags`].
    #[arg(long = go_flags::MARK, hide = true, allow_hyphen_values = true)]
    pub flags: Vec<OsString>,
}

/// `hop ps`.
#[derive(Args, Debug)]
pub struct Ps {
    /// Which router.
    #[command(flatten)]
    pub router: EnrolledOptions,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `hop attach`.
#[derive(Args, Debug)]
pub struct Attach {
    /// Which router.
    #[command(flatten)]
    pub router: EnrolledOptions,
    /// What to bring back; what is not named is lost.
    #[command(flatten)]
    pub output: OutputOptions,
    /// If the program has a terminal, let it be this one, as `hop run --tty` does: every key is its own, Ctrl-C too
    #[arg(short, long)]
    pub tty: bool,
    /// Do not attach to the program's standard input, which stays open, and read nothing of hop's own
    #[arg(short, long)]
    pub no_stdin: bool,
    /// Write how it ended to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    pub status_file: Option<PathBuf>,
    /// Its id, or the beginning of it
    pub job: String,
}

/// `hop logs`.
#[derive(Args, Debug)]
pub struct Logs {
    /// Which router.
    #[command(flatten)]
    pub router: EnrolledOptions,
    /// Its id, or the beginning of it
    pub job: String,
}

/// `hop kill`.
#[derive(Args, Debug)]
pub struct Kill {
    /// Which router.
    #[command(flatten)]
    pub router: EnrolledOptions,
    /// The signal: a name, with or without SIG, or the number that it has on this machine
    #[arg(short, long, value_name = "SIGNAL", default_value = "TERM", value_parser = signal_name)]
    pub signal: String,
    /// Their ids, or the beginnings of them
    #[arg(required = true, value_name = "JOB")]
    pub jobs: Vec<String>,
}

/// `hop info`.
#[derive(Args, Debug)]
pub struct Info {
    /// Which router.
    #[command(flatten)]
    pub router: RouterOptions,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `hop key`.
#[derive(Args, Debug)]
pub struct Key {
    /// What to do with it, if not to show it.
    #[command(subcommand)]
    pub command: Option<KeyCommand>,
}

/// What can be done with this controller's key.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum KeyCommand {
    /// Make a new key, and exchange it for the old one on all routers. If it is cut off, or a router is away, do it again
    Rotate {
        /// Leave this router out: `hop router add` lets the new key in there later
        #[arg(long, value_name = "ROUTER")]
        skip: Vec<String>,
    },
}

/// `hop router`.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Router {
    /// Enrol a router over ssh: put an agent on it and exchange keys; again, without further words, after its reboot
    Add(Box<Add>),
    /// List the routers that are enrolled
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a router is and what its agent can do, as `hop info` does
    Info {
        /// Which one
        name: Option<String>,
        /// Give up if the router has not answered in this time
        #[arg(long, value_name = "DURATION", default_value_t = DEFAULT_TIMEOUT.into())]
        connect_timeout: humantime::Duration,
        /// Leave the connection open for the commands that come next, as `hop info` does
        #[arg(long, value_name = "DURATION", value_parser = mux::duration)]
        keep_connection: Option<Duration>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Look at a router by ssh and by its agent, and say what is wrong (exit code 1) and what to do
    Check {
        /// Which one
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Replace a router's agent by that of this hop; its jobs end, its key stays
    Upgrade {
        /// Which one
        name: Option<String>,
    },
    /// Take the agent off a router, so that nothing of Hop is left there, and forget the router
    Remove {
        /// Which one
        name: String,
        /// Also if other controllers use the agent
        #[arg(long)]
        all: bool,
        /// Only forget it here; the router is not asked
        #[arg(long, conflicts_with = "all")]
        forget: bool,
    },
    /// Close the connection to a router that --keep-connection has left; commands that use it may end first
    Disconnect {
        /// Which one
        name: Option<String>,
    },
    /// Let another controller use a router
    Authorize {
        /// Which router
        name: String,
        /// What `hop key` shows there
        fingerprint: Fingerprint,
        /// Whose it is, for people
        comment: Option<String>,
    },
    /// Take a controller off the list of those that may use a router; its connections and jobs there end at once
    Revoke {
        /// Which router
        name: String,
        /// Whose key: a fingerprint, or the name behind it on the router's list
        key: String,
        /// Also if it is this controller's own key, or the only one
        #[arg(long)]
        force: bool,
    },
    /// Give a router's agent another key; what runs there goes on. If it is cut off, do it again
    Rekey {
        /// Which router
        name: String,
    },
}

/// `hop router add`.
#[derive(Args, Debug)]
#[command(after_help = ADD_AFTER_HELP)]
pub struct Add {
    /// What to call it
    pub name: String,
    /// [user@]host[:port], or a Host of ~/.ssh/config (default: as it was enrolled before)
    #[arg(value_name = "DESTINATION")]
    pub destination: Option<String>,
    /// Where this machine reaches the agent, if not at ssh's host
    #[arg(long, value_name = "HOST:PORT")]
    pub at: Option<String>,
    /// Let connections ride in ssh; the agent listens on the router's loopback only
    #[arg(long)]
    pub via_ssh: bool,
    /// The port on which the agent listens
    #[arg(long, default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Let the agent listen on this network interface of the router, or on `any` (default: the one by which ssh comes there),
    /// and on its loopback
    #[arg(long, value_name = "INTERFACE", conflicts_with = "via_ssh", value_parser = interface)]
    pub listen_interface: Option<String>,
    /// Keep everything in RAM: nothing is written to flash, and a reboot ends it
    #[arg(long)]
    pub until_reboot: bool,
    /// Put the agent on flash, from where it comes back after a reboot
    #[arg(long, conflicts_with = "until_reboot")]
    pub install: bool,
    /// Keep programs in this directory of a stick or a card too, so that they need not be sent again after a reboot; they
    /// are copied into RAM to run
    #[arg(long, value_name = "DIRECTORY", value_parser = store)]
    pub store: Option<String>,
    /// An option for ssh, as ssh's own -o
    #[arg(short = 'o', value_name = "SSH_OPTION")]
    pub options: Vec<String>,
    /// A key for ssh, as ssh's own -i
    #[arg(short = 'i', value_name = "KEY")]
    pub identity: Option<PathBuf>,
    /// Without ssh: the key of an agent that knows this controller already, reached --at HOST:PORT
    #[arg(long, requires = "at", conflicts_with_all = ["destination", "store", "via_ssh", "listen_interface", "until_reboot", "install", "options", "identity"])]
    pub fingerprint: Option<Fingerprint>,
}

const ADD_AFTER_HELP: &str = "\
Without --install and --until-reboot the agent is installed if flash has room for it. ssh is the system's: its \
configuration, agent, jump hosts and passwords work as usual.";

/// Reads the name of a network interface: what Linux allows (dev_valid_name) and a script takes as a word.
fn interface(text: &str) -> Result<String, String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    if (1..16).contains(&text.len()) && text.chars().all(is_name) && !text.starts_with(['-', '.']) {
        return Ok(text.to_owned());
    }
    Err("it has at most 15 letters, digits and -_.@".to_owned())
}

/// Reads a grace, which a router bounds.
fn grace(text: &str) -> Result<Duration, String> {
    let grace: Duration = text.parse::<humantime::Duration>().map_err(|error| error.to_string())?.into();
    if grace > Duration::from_millis(MAX_GRACE_MS) {
        return Err("it is at most a minute".to_owned());
    }
    Ok(grace)
}

/// Reads a time to linger, which a router bounds.
fn linger(text: &str) -> Result<Duration, String> {
    let linger: Duration = text.parse::<humantime::Duration>().map_err(|error| error.to_string())?.into();
    if linger > Duration::from_millis(MAX_LINGER_MS) {
        return Err("it is at most a day".to_owned());
    }
    Ok(linger)
}

/// Reads a signal as kill(1) does, and gives the name under which it travels.
fn signal_name(text: &str) -> Result<String, String> {
    let name = match text.parse() {
        Ok(number) => signal::name(number),
        Err(_) => {
            let name = text.to_ascii_uppercase();
            name.strip_prefix("SIG").unwrap_or(&name).to_owned()
        }
    };
    match signal::sendable(&name) {
        Some(_) => Ok(name),
        None => Err(format!("it is none of {}", signal::SENDABLE.join(", "))),
    }
}

/// Reads a directory of a router that its shells and its configuration can name.
fn store(text: &str) -> Result<String, String> {
    let path = text.trim_end_matches('/');
    if path.len() < 2 || !path.starts_with('/') || path.contains(|c: char| c.is_control() || c == '\'') {
        return Err("it must be an absolute path on the router, without a quote".to_owned());
    }
    Ok(path.to_owned())
}

/// `hop virtual`.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum Virtual {
    /// Start a virtual router, if it does not run already
    Up(VirtualUp),
    /// End a virtual router, or all of them; what was written to its flash is gone
    Down {
        /// Which one
        name: Option<String>,
    },
    /// List the virtual routers
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Log in to a virtual router, or run a command there, with ssh
    Ssh {
        /// Which one
        name: String,
        /// What to run instead of a shell; the exit code is ssh's
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Print what the serial console of a virtual router said
    Console {
        /// Which one
        name: String,
        /// Go on with what it says next, until it is ended
        #[arg(short, long)]
        follow: bool,
    },
    /// Reboot a virtual router, and wait until it is back, with its agent if that is installed
    Reboot {
        /// Which one
        name: String,
        /// Press the reset button, instead of typing `reboot` there
        #[arg(long)]
        hard: bool,
    },
}

/// `hop virtual up`.
#[derive(Args, Debug)]
pub struct VirtualUp {
    /// Only the agent, under qemu-user, for this machine
    #[arg(long, default_value = "mips", conflicts_with = "profile")]
    pub arch: Arch,
    /// A whole router, as this profile describes it: archer-a6, dir-505, f7d7302, fritzbox-7362sl, rut955, or one of
    /// your own in profiles/NAME.toml of the configuration directory
    #[arg(long)]
    pub profile: Option<String>,
    /// What to call it (default: as the profile is called)
    #[arg(long, requires = "profile")]
    pub name: Option<String>,
    /// Do not enrol it; print how to log in
    #[arg(long, requires = "profile")]
    pub bare: bool,
    /// Let its clock count instructions, 500 million a second, so that measurements repeat on a busy machine
    #[arg(long, requires = "profile")]
    pub counted_clock: bool,
}

impl RouterOptions {
    /// How long to wait for it.
    pub fn patience(&self) -> Duration {
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

/// Reads a command line, the program's name first.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Parsed {
    let mut hop = Cli::command();
    // Until then it does not know its own -h.
    hop.build();
    let words = go_flags::mark(&hop, for_go(words.into_iter().collect()));
    match Cli::try_parse_from(words) {
        Ok(cli) => Parsed::Command(Box::new(cli.command)),
        Err(answer) => Parsed::Answered(Answer(answer)),
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
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_comes_after_the_package_is_the_programs() {
        let Command::Run(run) = parsed("hop|run|-r|desk|-tags|a b|./probe|-r|--help|--|-v") else { panic!() };
        assert_eq!(run.router.router.as_deref(), Some("desk"));
        assert_eq!(run.go.flags, ["-tags", "a b"]);
        assert_eq!(run.words, ["./probe", "-r", "--help", "--", "-v"]);
        let Command::Exec(exec) = parsed("hop|exec|-timeout|2s|./probe|--timeout|3s|-h") else { panic!() };
        assert_eq!(exec.words, ["./probe", "--timeout", "3s", "-h"]);
        assert_eq!(exec.job.timeout.unwrap().as_secs(), 2);
    }

    #[test]
    fn go_flags_and_ours_may_be_mixed() {
        let line = "hop|run|-ldflags=-X main.v=1|--env|A=-b|-race|-C|dir|-o|out|--timeout=1s|-mod|vendor|.";
        let Command::Run(run) = parsed(line) else { panic!() };
        assert_eq!(run.go.flags, ["-ldflags=-X main.v=1", "-race", "-o", "out", "-mod", "vendor"]);
        assert_eq!((run.job.env, run.go.directory), (vec!["A=-b".into()], Some("dir".into())));
        assert_eq!(run.words, ["."]);
    }

    #[test]
    fn what_comes_after_the_name_of_a_virtual_router_is_for_its_shell() {
        let Command::Virtual(Virtual::Ssh { name, command }) = parsed("hop|virtual|ssh|dir-505|ls|-l|--help")
        else {
            panic!()
        };
        assert_eq!((&*name, command), ("dir-505", ["ls", "-l", "--help"].map(OsString::from).into()));
    }

    #[test]
    fn a_job_may_be_left_alone_and_so_may_a_program_with_the_same_flags() {
        let Command::Run(run) = parsed("hop|run|-d|-race|-linger|2h|./probe|-d|--detach|--linger|1s") else {
            panic!()
        };
        assert_eq!((run.job.detach, run.job.linger.as_secs()), (true, 7200));
        assert_eq!((run.go.flags, run.words.len()), (vec!["-race".into()], 5));
        let Command::Exec(exec) = parsed("hop|exec|--linger=0|-detach|./probe|-d") else { panic!() };
        assert_eq!((exec.job.detach, exec.job.linger), (true, Duration::ZERO));
        assert_eq!(exec.words, ["./probe", "-d"]);
        let Command::Run(run) = parsed("hop|run|.|-d") else { panic!() };
        assert_eq!((run.job.detach, run.job.linger), (false, DEFAULT_LINGER));
    }

    #[test]
    fn no_stdin_is_hops_and_not_gos() {
        let Command::Run(run) = parsed("hop|run|-n|-race|./probe|-n") else { panic!() };
        assert!(run.job.no_stdin && run.go.flags == ["-race"]);
        assert_eq!(run.words, ["./probe", "-n"]);
        let Command::Exec(exec) = parsed("hop|exec|-no-stdin|./probe") else { panic!() };
        assert!(exec.job.no_stdin);
        let Command::Attach(attach) = parsed("hop|attach|-n|12ab") else { panic!() };
        assert!(attach.no_stdin);
    }

    #[test]
    fn go_calls_hop_by_another_name() {
        for name in ["/somewhere/go_linux_mips_exec", "go_linux_mipsle_exec"] {
            let Command::Exec(exec) = parsed(&format!("{name}|/tmp/x.test|-test.v=true|--go")) else {
                panic!()
            };
            assert!(exec.go && exec.bring.is_empty());
            assert_eq!(exec.words, ["/tmp/x.test", "-test.v=true", "--go"]);
        }
        let Command::Exec(exec) = parsed("hop|exec|--go|-bring|*.golden|./x.test|--bring|x") else {
            panic!()
        };
        assert_eq!((exec.bring, exec.words.len()), (vec!["*.golden".into()], 3));
    }

    #[test]
    fn a_connection_is_kept_for_a_day_at_most() {
        let kept = |line: &str| match parsed(line) {
            Command::Run(run) => run.router.keep_connection,
            Command::Ps(ps) => ps.router.keep_connection,
            Command::Router(Router::Info { keep_connection, .. }) => keep_connection,
            command => panic!("{command:?}"),
        };
        assert_eq!(kept("hop|run|-keep-connection|10m|."), Some(Duration::from_secs(600)));
        assert_eq!(kept("hop|ps|--keep-connection=24h"), Some(mux::LONGEST));
        assert_eq!(kept("hop|router|info|--keep-connection|0s"), Some(Duration::ZERO));
        assert_eq!(kept("hop|run|.|--keep-connection|10m"), None);
        let Command::KeepConnection(orders) = parsed("hop|keep-connection|desk|1m 30s|10s") else { panic!() };
        assert_eq!((&*orders.router, orders.lasting.as_secs()), ("desk", 90));
    }

    #[test]
    fn jobs_are_named_by_words() {
        let Command::Attach(attach) = parsed("hop|attach|-r|desk|--status-file|f|12ab") else { panic!() };
        assert_eq!((attach.router.router.as_deref(), &*attach.job), (Some("desk"), "12ab"));
        let Command::Kill(kill) = parsed("hop|kill|12ab|34cd") else { panic!() };
        assert_eq!((&*kill.signal, &kill.jobs[..]), ("TERM", &["12ab".to_owned(), "34cd".to_owned()][..]));
        let Command::Ps(ps) = parsed("hop|ps|--json") else { panic!() };
        assert!(ps.json);
    }

    #[test]
    fn signals_are_named_as_kill_names_them() {
        for (text, name) in
            [("TERM", "TERM"), ("SIGTERM", "TERM"), ("sigint", "INT"), ("9", "KILL"), ("1", "HUP")]
        {
            assert_eq!(signal_name(text).unwrap(), name, "{text}");
        }
        assert_eq!(signal_name(&signal::number("USR1").unwrap().to_string()).unwrap(), "USR1");
        for text in ["STOP", "19", "0", "-9", "64", "", "SIG", "FOO"] {
            assert!(signal_name(text).unwrap_err().starts_with("it is none of HUP, INT"), "{text}");
        }
    }

    #[test]
    fn help_is_no_failure() {
        for line in ["hop|-h", "hop|run|-h", "hop|exec|--help", "hop|build|-help", "hop|kill|-h"] {
            match parse(line.split('|').map(OsString::from)) {
                Parsed::Answered(answer) => assert_eq!(answer.exit_code(), ExitCode::Program(0), "{line}"),
                Parsed::Command(command) => panic!("{line}: {command:?}"),
            }
        }
    }

    #[test]
    fn a_wrong_command_line_is_hops_failure() {
        for line in [
            "hop",
            "hop|run",
            "hop|run|-frobnicate|.",
            "hop|run|--timeout|soon|.",
            "hop|exec|--tiemout|5s|./probe",
            "hop|exec|-race|./probe",
            "hop|exec|--bring|x|./probe",
            "hop|exec|--go|--detach|./probe",
            "hop|exec|-n|-t|./probe",
            "hop|build|-n|.",
            "hop|go-exec",
            "hop|run|-rdesk|./probe",
            "hop|run|-exec|prog|./probe",
            "hop|build|-r|x|--arch|mips|.",
            "hop|virtual|up|--arch|mips|--profile|dir-505",
            "hop|virtual|up|--bare",
            "hop|run|--linger|25h|.",
            "hop|run|--keep-connection|25h|.",
            "hop|attach",
            "hop|attach|12ab|34cd",
            "hop|kill",
            "hop|kill|-s|STOP|12ab",
        ] {
            match parse(line.split('|').map(OsString::from)) {
                Parsed::Answered(answer) => assert_eq!(answer.exit_code(), ExitCode::HopFailed, "{line}"),
                Parsed::Command(command) => panic!("{line}: {command:?}"),
            }
        }
    }
}
