//! The agent's command line.

use std::ffi::OsString;
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::str::FromStr;

use hop_proto::limits::DEFAULT_PORT;
use lexopt::prelude::*;

use crate::logging::Destination;

const HELP: &str = "\
hopd: runs programs on this router for an authorized hop, in RAM

Usage: hopd [OPTIONS]

Options:
  --listen ADDR:PORT   address to listen on (default 0.0.0.0:4670; port 0 selects a free port)
  --interface NAME     listen only on this network interface and, for connections that ssh forwards, on the loopback;
                       `any` for all interfaces (default: any)
  --dir DIR            directory on tmpfs in which hopd stores and runs programs (default /tmp/hop)
  --key FILE           the agent's key, created if FILE does not exist (default /etc/hopd/key)
  --authorized FILE    fingerprints of the authorized controllers, one per line (default /etc/hopd/authorized)
  --quota BYTES        maximum total size of stored programs (default: the space of the file system)
  --cache-dir DIR      disk cache: also keep programs in DIR, on a medium that survives a reboot and may be removed at
                       any time, and copy them from there into --dir to run. hopd does not create DIR, and never
                       fills the medium by more than 7/8
  --launcher COMMAND   start every program through COMMAND, which is split at spaces into its arguments
  --log FILE           log to FILE instead of standard error: at most 32 KiB, and as much in FILE.old
  --syslog             log to the system log instead of standard error, each line with its severity
  --pid-file FILE      write the PID to FILE, and remove FILE on exit; a second hopd with the same FILE refuses to start
  --supervise          start the agent as a child, and restart it whenever it fails; SIGTERM stops both
  --interface-to ADDR  print the network interface through which the router reaches ADDR, then exit
  --fingerprint        print the fingerprint of the key, which is created if it does not exist, then exit
  --digest             print the SHA-256 of this executable, for routers without sha256sum, then exit
  --check-options      check the other options, print the first error, then exit
  --panic              panic once the agent serves, to test the log and the supervisor
  --self-test          check for known defects of toolchains and kernels, then exit
  --version            print the version
  --help               print this

When it listens, hopd prints one line of JSON with its address and fingerprint on standard output. On SIGTERM it kills
its jobs, removes their files and exits. After kill -9 the pid file remains: before you send a signal to the PID in it,
check in /proc/PID/cmdline that it is hopd.";

/// The command that the options select.
#[derive(Debug)]
pub enum Command {
    /// Print a text and exit.
    Print(String),
    /// Test this machine, with files in `directory`.
    SelfTest {
        /// Where the test may write; it leaves nothing there.
        directory: PathBuf,
    },
    /// Print the fingerprint of a key and exit.
    Fingerprint {
        /// Key file, which the agent creates if it does not exist.
        key: PathBuf,
    },
    /// Print the network interface through which the router reaches this address, and exit.
    InterfaceTo(String),
    /// Print the SHA-256 of this executable and exit.
    Digest,
    /// Exit: `--check-options` was given, and all options are valid.
    OptionsAreGood,
    /// Keep an agent running until SIGTERM.
    Supervise(Supervision),
    /// Serve until SIGTERM.
    Serve(Options),
}

/// How to supervise.
#[derive(Debug)]
pub struct Supervision {
    /// The agent: this executable, by the name that it was started with.
    pub program: OsString,
    /// The agent's options: all but the supervisor's own.
    pub args: Vec<OsString>,
    /// Where to log; the agent logs there too.
    pub log: Destination,
    /// File to which the supervisor writes its PID.
    pub pid_file: Option<PathBuf>,
}

/// How to serve.
#[derive(Debug)]
pub struct Options {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// The network interface to listen on, or `any`. `None`: any.
    pub interface: Option<String>,
    /// Directory of the agent, which the agent creates if it does not exist.
    pub directory: PathBuf,
    /// Key file, which the agent creates if it does not exist.
    pub key: PathBuf,
    /// File with one fingerprint on each line. The agent shows the name after a fingerprint in its log, and ignores
    /// comments, which begin with `#`.
    pub authorized: PathBuf,
    /// Most bytes of programs at a time. `None`: as many as the file system has.
    pub quota: Option<u64>,
    /// Directory of the disk cache, on a medium that survives a reboot.
    pub disk_cache: Option<PathBuf>,
    /// Command and arguments with which the agent starts every program.
    pub launcher: Vec<OsString>,
    /// Where to log.
    pub log: Destination,
    /// File to which the agent writes its PID.
    pub pid_file: Option<PathBuf>,
    /// Panic once it serves.
    pub panics: bool,
}

/// Reads a command line, the program's name first.
///
/// # Errors
/// An unknown option, or a value that cannot be read.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, lexopt::Error> {
    let mut arguments = arguments.into_iter();
    let program = arguments.next().unwrap_or_else(|| "hopd".into());
    let arguments: Vec<OsString> = arguments.collect();
    let mut options = Options {
        listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)),
        interface: None,
        directory: "/tmp/hop".into(),
        key: "/etc/hopd/key".into(),
        authorized: "/etc/hopd/authorized".into(),
        quota: None,
        disk_cache: None,
        launcher: Vec::new(),
        log: Destination::StandardError,
        pid_file: None,
        panics: false,
    };
    let (mut self_test, mut fingerprint, mut supervise, mut check) = (false, false, false, false);
    // The arguments that a supervised agent gets.
    let mut passed_on = Vec::new();
    let mut parser = lexopt::Parser::from_args(arguments.iter().cloned());
    loop {
        let rest = parser.raw_args()?.as_slice().len();
        let Some(argument) = parser.next()? else { break };
        let is_the_agents = !matches!(argument, Long("supervise" | "pid-file"));
        match argument {
            Long("listen") => options.listen = value(&mut parser, "listen")?,
            Long("interface") => options.interface = Some(parser.value()?.string()?),
            Long("interface-to") => return Ok(Command::InterfaceTo(parser.value()?.string()?)),
            Long("dir") => options.directory = parser.value()?.into(),
            Long("key") => options.key = parser.value()?.into(),
            Long("authorized") => options.authorized = parser.value()?.into(),
            Long("quota") => options.quota = Some(value(&mut parser, "quota")?),
            Long("cache-dir") => options.disk_cache = Some(parser.value()?.into()),
            Long("launcher") => options.launcher = words(&parser.value()?),
            Long("log") => options.log = Destination::File(parser.value()?.into()),
            Long("syslog") => options.log = Destination::System,
            Long("pid-file") => options.pid_file = Some(parser.value()?.into()),
            Long("supervise") => supervise = true,
            Long("fingerprint") => fingerprint = true,
            Long("digest") => return Ok(Command::Digest),
            Long("check-options") => check = true,
            Long("panic") => options.panics = true,
            Long("self-test") => self_test = true,
            Long("version") => {
                return Ok(Command::Print(concat!("hopd ", env!("CARGO_PKG_VERSION")).to_owned()));
            }
            Long("help") | Short('h') => return Ok(Command::Print(HELP.to_owned())),
            _ => return Err(argument.unexpected()),
        }
        if is_the_agents {
            let used = rest - parser.raw_args()?.as_slice().len();
            passed_on.extend(arguments.iter().skip(arguments.len() - rest).take(used).cloned());
        }
    }
    Ok(if check {
        Command::OptionsAreGood
    } else if self_test {
        Command::SelfTest { directory: options.directory }
    } else if fingerprint {
        Command::Fingerprint { key: options.key }
    } else if supervise {
        let Options { log, pid_file, .. } = options;
        Command::Supervise(Supervision { program, args: passed_on, log, pid_file })
    } else {
        Command::Serve(options)
    })
}

/// Parses the value of an option. An error names the option, because its value often comes from a router's settings,
/// and the reader of the error has not typed it.
fn value<T: FromStr<Err: Display>>(parser: &mut lexopt::Parser, option: &str) -> Result<T, lexopt::Error> {
    let text = parser.value()?.string()?;
    text.parse().map_err(|error| format!("--{option} {text}: {error}").into())
}

fn words(command: &OsString) -> Vec<OsString> {
    command
        .as_bytes()
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn serve(line: &str) -> Options {
        match parse(line.split('|').map(OsString::from)).unwrap() {
            Command::Serve(options) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn default_port_is_4670() {
        assert_eq!(serve("hopd").listen.port(), 4670);
        assert_eq!(serve("hopd|--listen|127.0.0.1:0").listen.port(), 0);
    }

    #[test]
    fn launcher_is_split_at_spaces() {
        assert_eq!(serve("hopd|--launcher| nice  -n 5 ").launcher, ["nice", "-n", "5"]);
    }

    #[test]
    fn invalid_command_lines_are_refused() {
        for line in [
            "hopd|--listen|nowhere",
            "hopd|--quota|-1",
            "hopd|--dir",
            "hopd|--frobnicate",
            "hopd|file",
            "hopd|--supervise=1",
        ] {
            assert!(parse(line.split('|').map(OsString::from)).is_err(), "{line}");
        }
    }

    #[test]
    fn supervisor_passes_remaining_options_to_agent() {
        let line = "./hopd|--supervise|--dir|--supervise|--pid-file|/p|--log=/l|--quota|5|--pid-file=/q|--cache-dir|/s";
        let Command::Supervise(supervision) = parse(line.split('|').map(OsString::from)).unwrap() else {
            panic!("it supervises");
        };
        assert_eq!(supervision.program, "./hopd");
        assert_eq!(
            supervision.args,
            ["--dir", "--supervise", "--log=/l", "--quota", "5", "--cache-dir", "/s"]
        );
        assert_eq!(supervision.log, Destination::File("/l".into()));
        assert_eq!(supervision.pid_file.as_deref(), Some("/q".as_ref()));
    }

    #[test]
    fn invalid_value_error_names_option() {
        for check in ["", "|--check-options"] {
            let line = format!("hopd|--listen|nowhere{check}");
            let error = parse(line.split('|').map(OsString::from)).unwrap_err().to_string();
            assert_eq!(error, "--listen nowhere: invalid socket address syntax");
        }
        let good = parse("hopd|--check-options|--listen|[::]:1".split('|').map(OsString::from)).unwrap();
        assert!(matches!(good, Command::OptionsAreGood));
    }

    #[test]
    fn help_names_default_port() {
        assert!(HELP.contains(&format!("0.0.0.0:{DEFAULT_PORT}")));
    }
}
