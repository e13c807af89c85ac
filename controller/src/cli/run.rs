//! `hop run`, `hop exec`, `hop build` and `hop go-exec`: what to build, how to run it, what to bring back.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use hop_proto::limits::{MAX_GRACE_MS, MAX_LINGER_MS};

use super::{RouterOptions, go_flags};
use crate::program::embedded::Arch;
use crate::session::artifacts::Policy;

/// How long to try to come back to a job unless told otherwise: a router that reboots or a link that is plugged in again
/// takes less, and nobody waits longer without asking what is wrong.
pub const DEFAULT_RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);

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
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = reconnect_timeout)]
    pub reconnect_timeout: Duration,
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
    pub artifacts: ArtifactOptions,
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
pub struct ArtifactOptions {
    /// When the program has ended, bring back a file or a directory that it has left where it started; `*` and `?` may stand
    /// for names. LOCAL is where to put it (default: the same path here); for a pattern, or `.` for all there is, it is a
    /// directory and must be named. Names that begin with a dot come only if PATH has the dot, and `.git` never
    #[arg(long = "artifact", value_name = "PATH[:LOCAL]")]
    pub paths: Vec<OsString>,
    /// Let files from a directory or a pattern replace others here; without this, only a file that --artifact names in full
    /// does
    #[arg(long)]
    pub artifact_overwrite: bool,
    /// Let output files be executable here if they are on the router
    #[arg(long)]
    pub artifact_executable: bool,
}

impl ArtifactOptions {
    /// What they say of every output file; `needs_places` if those come to this `hop`.
    pub fn policy(&self, needs_places: bool) -> Policy {
        Policy {
            overwrites: self.artifact_overwrite,
            keeps_executability: self.artifact_executable,
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

/// Reads a grace, which a router bounds.
fn grace(text: &str) -> Result<Duration, String> {
    let grace: Duration = text.parse::<humantime::Duration>().map_err(|error| error.to_string())?.into();
    if grace > Duration::from_millis(MAX_GRACE_MS) {
        return Err("it is at most a minute".to_owned());
    }
    Ok(grace)
}

/// Reads a time to reconnect, which a router bounds.
fn reconnect_timeout(text: &str) -> Result<Duration, String> {
    let reconnect_timeout: Duration =
        text.parse::<humantime::Duration>().map_err(|error| error.to_string())?.into();
    if reconnect_timeout > Duration::from_millis(MAX_LINGER_MS) {
        return Err("it is at most a day".to_owned());
    }
    Ok(reconnect_timeout)
}
