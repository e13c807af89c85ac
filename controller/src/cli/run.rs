//! `hop run`, `hop exec`, `hop build` and `hop go-exec`: what to build, how to run it, what to bring back.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use hop_proto::limits::{MAX_GRACE_MS, MAX_LINGER_MS, MAX_LOG_BYTES};

use super::{RouterOptions, go_flags};
use crate::program::embedded::Arch;
use crate::session::artifacts::Policy;

/// How long to try to come back to a job unless told otherwise: a router that reboots or a link that is plugged in again
/// takes less, and nobody waits longer without asking what is wrong.
pub const DEFAULT_RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// As nice(1) without a number.
const DEFAULT_NICE: u8 = 10;

/// Bytes of the smallest log that can be asked for: a few lines.
const MIN_LOG_BYTES: u32 = 1024;

/// How to run, whatever the program is.
#[derive(Args, Debug)]
pub struct JobOptions {
    /// Kill the program when it has run this long (exit code 124): 500ms, 2s, 1m30s; 0 is no limit
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<humantime::Duration>,
    /// Kill the program when it has written no output for this long (exit code 124); 0 is no limit
    #[arg(long, value_name = "DURATION")]
    pub idle_timeout: Option<humantime::Duration>,
    /// Time between SIGTERM and SIGKILL when the agent kills the program: at most 1m; 0 sends SIGKILL at once
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = grace)]
    pub grace: Duration,
    /// How long the program keeps running, and hop tries to reconnect, after the connection breaks: at most a day; with 0 the
    /// program is killed when its connection breaks
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = reconnect_timeout)]
    pub reconnect_timeout: Duration,
    /// Print the job's id and exit once the program runs; see hop ps, hop attach and hop kill. Its standard input is empty
    #[arg(short, long)]
    pub detach: bool,
    /// How much of each output the router keeps of a detached program; older output is dropped: 1K to 1M (default: 256K)
    #[arg(long, value_name = "SIZE", value_parser = log_size)]
    pub log_size: Option<u32>,
    /// What a detached program does whose output nobody reads: run on, while older output is dropped; or wait for a reader
    #[arg(long, value_name = "MODE", default_value = "drop", conflicts_with = "log_size")]
    pub log: LogMode,
    /// Allocate a terminal for the program, as `ssh -t` does: it gets every key, Ctrl-C included. On a new line, `~d` leaves the
    /// program running as --detach does, and `~?` lists further escapes
    #[arg(short, long, conflicts_with = "detach")]
    pub tty: bool,
    /// Give the program an empty standard input, and leave hop's own unread, as `ssh -n` does. A loop such as `while read x; do
    /// hop run -n ./probe $x; done` needs this, or hop reads the loop's input
    #[arg(short, long, conflicts_with = "tty")]
    pub no_stdin: bool,
    /// Run the program as this user of the router; it cannot gain privileges (no_new_privs)
    #[arg(short, long, value_name = "NAME|UID[:GID]")]
    pub user: Option<String>,
    /// The program's nice value, 0 to 19: other processes of the router come first
    #[arg(long, value_name = "N", default_value_t = DEFAULT_NICE, value_parser = clap::value_parser!(u8).range(0..=19))]
    pub nice: u8,
    /// Set an environment variable of the program; without =VALUE, hop passes on its own value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<OsString>,
    /// What to fetch.
    #[command(flatten)]
    pub artifacts: ArtifactOptions,
    /// If a signal kills the program, write its core dump to FILE and the program with its symbols to FILE.program, for
    /// `gdb-multiarch FILE.program FILE`. Sets GOTRACEBACK=crash, without which a Go program dumps no core
    #[arg(long, value_name = "FILE", conflicts_with = "detach")]
    pub core: Option<PathBuf>,
    /// Print how long the build took, what was uploaded, and when the program started
    #[arg(short, long)]
    pub verbose: bool,
    /// Write the outcome to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    pub status_file: Option<PathBuf>,
}

/// Which files hop fetches when the program has exited, and how.
#[derive(Args, Debug)]
pub struct ArtifactOptions {
    /// Fetch a file or a directory from the program's working directory when it has exited; `*` and `?` match within a name.
    /// LOCAL is where it goes (default: the same path here); a pattern, or `.` for everything, needs LOCAL, a directory. Names
    /// that begin with a dot are fetched only if PATH has the dot, and `.git` never. With --go, PATH is below the package's
    /// directory and needs no LOCAL
    #[arg(long = "artifact", value_name = "PATH[:LOCAL]")]
    pub paths: Vec<OsString>,
    /// Let files from a directory or a pattern replace existing ones; without this, only a file that --artifact names in full
    /// does
    #[arg(long)]
    pub artifact_overwrite: bool,
    /// Keep the executable bit of fetched files
    #[arg(long)]
    pub artifact_executable: bool,
}

impl ArtifactOptions {
    /// The policy for all artifacts; `needs_places` if this `hop` fetches them.
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
    /// Build and run again whenever a source file of the program changes, until Ctrl-C. A new program replaces the running one:
    /// SIGTERM, and SIGKILL after --grace. Standard input is empty, and the connection is kept as if by --keep-connection
    #[arg(long, conflicts_with_all = ["detach", "tty", "status_file"])]
    pub watch: bool,
    /// What to build.
    #[command(flatten)]
    pub go: GoOptions,
    /// The package or the .go files, then the program's arguments
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
    /// Act as the -exec program of `go test` and `go run`: upload the files of the package, fetch what Go's flags write
    /// (coverage, profiles), and queue programs that Go starts at once
    #[arg(long, conflicts_with_all = ["detach", "tty"])]
    pub go: bool,
    /// The program, a static ELF file for the router, then its arguments
    #[arg(required = true, last = true, value_name = "BINARY [ARGS]", hide = true)]
    pub words: Vec<OsString>,
}

/// `hop go-exec`.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum GoExec {
    /// Link go_linux_mips_exec and go_linux_mipsle_exec in a directory, and print it for PATH
    Install {
        /// The directory (default: one in Hop's cache)
        directory: Option<PathBuf>,
    },
    /// Print the variables under which `go test` and `go run` use a router, for a shell: vars=$(hop go-exec env) && eval "$vars"
    Env {
        /// The router (default: HOP_ROUTER, else that of `hop router use`, else the only one)
        #[arg(short, long, value_name = "ROUTER")]
        router: Option<String>,
        /// The router, as with -r
        #[arg(value_name = "ROUTER", conflicts_with = "router")]
        name: Option<String>,
    },
}

/// `hop build`.
#[derive(Args, Debug)]
pub struct Build {
    /// Build for this architecture (default: the selected router's, else mips)
    #[arg(long)]
    pub arch: Option<Arch>,
    /// Build for this router of the inventory
    #[arg(short, long, value_name = "ROUTER", conflicts_with = "arch")]
    pub router: Option<String>,
    /// Write the program to FILE (default: where `go build` writes it)
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
    /// Change to DIR first, as `go -C` does
    #[arg(short = 'C', value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Build cgo parts with this C compiler for the router, linked statically: 'zig cc -target mips-linux-musleabi'
    #[arg(long, value_name = "COMMAND")]
    pub cc: Option<OsString>,
    /// A flag of `go build`, put here by [`go_flags`].
    #[arg(long = go_flags::MARK, hide = true, allow_hyphen_values = true)]
    pub flags: Vec<OsString>,
}

/// What becomes of the output of a detached program while nobody reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogMode {
    /// The router keeps its end, and drops the rest.
    Drop,
    /// The program waits.
    Wait,
}

/// Reads a number of bytes, with K or M behind it for units of 1,024 or 1,048,576, which a router bounds.
fn log_size(text: &str) -> Result<u32, String> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1024),
        None => text.strip_suffix(['m', 'M']).map_or((text, 1), |digits| (digits, 1024 * 1024)),
    };
    let number: u32 =
        digits.parse().map_err(|_| "it is a number with K, M or nothing behind it".to_owned())?;
    let size = number.checked_mul(unit).filter(|size| (MIN_LOG_BYTES..=MAX_LOG_BYTES).contains(size));
    size.ok_or_else(|| "it is at least 1K and at most 1M".to_owned())
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
