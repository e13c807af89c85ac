//! The agent's command line.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use hop_proto::limits::DEFAULT_PORT;
use lexopt::prelude::*;

const HELP: &str = "\
hopd: runs programs on this router for an authorized hop, in RAM

Usage: hopd [OPTIONS]

Options:
  --listen ADDR:PORT   where to listen (default 0.0.0.0:4670; port 0 takes a free one)
  --dir DIR            where programs are kept and run, on tmpfs (default /tmp/hop)
  --key FILE           the agent's key, made if there is none (default /etc/hopd/key)
  --authorized FILE    fingerprints of the controllers that may connect, one a line (default /etc/hopd/authorized)
  --quota BYTES        most bytes of programs to keep (default: what the file system has)
  --launcher COMMAND   put COMMAND in front of every program; words are split at spaces
  --self-test          check what a bad toolchain or kernel breaks, then exit
  --version            print the version
  --help               print this

When it listens, hopd prints one line of JSON with its address and fingerprint on standard output. It logs to standard
error. SIGTERM ends its jobs, removes their files and exits.";

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Print a text and exit.
    Print(String),
    /// Test this machine, with files in `directory`.
    SelfTest {
        /// Where the test may write; it leaves nothing there.
        directory: PathBuf,
    },
    /// Serve until told to stop.
    Serve(Options),
}

/// How to serve.
#[derive(Debug)]
pub struct Options {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Directory of the agent; made if it is not there.
    pub directory: PathBuf,
    /// Key file; made if it is not there.
    pub key: PathBuf,
    /// File with a fingerprint a line; what follows the fingerprint, and lines with `#` in front, are for people.
    pub authorized: PathBuf,
    /// Most bytes of programs at a time. `None`: what the file system has.
    pub quota: Option<u64>,
    /// Words in front of every program.
    pub launcher: Vec<OsString>,
}

/// Reads a command line, the program's name first.
///
/// # Errors
/// An unknown option, or a value that cannot be read.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, lexopt::Error> {
    let mut options = Options {
        listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)),
        directory: "/tmp/hop".into(),
        key: "/etc/hopd/key".into(),
        authorized: "/etc/hopd/authorized".into(),
        quota: None,
        launcher: Vec::new(),
    };
    let mut self_test = false;
    let mut parser = lexopt::Parser::from_iter(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("listen") => options.listen = parser.value()?.parse()?,
            Long("dir") => options.directory = parser.value()?.into(),
            Long("key") => options.key = parser.value()?.into(),
            Long("authorized") => options.authorized = parser.value()?.into(),
            Long("quota") => options.quota = Some(parser.value()?.parse()?),
            Long("launcher") => options.launcher = words(&parser.value()?),
            Long("self-test") => self_test = true,
            Long("version") => {
                return Ok(Command::Print(concat!("hopd ", env!("CARGO_PKG_VERSION")).to_owned()));
            }
            Long("help") | Short('h') => return Ok(Command::Print(HELP.to_owned())),
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(if self_test { Command::SelfTest { directory: options.directory } } else { Command::Serve(options) })
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
    fn the_port_is_4670_unless_told_otherwise() {
        assert_eq!(serve("hopd").listen.port(), 4670);
        assert_eq!(serve("hopd|--listen|127.0.0.1:0").listen.port(), 0);
    }

    #[test]
    fn a_launcher_is_split_into_words() {
        assert_eq!(serve("hopd|--launcher| nice  -n 5 ").launcher, ["nice", "-n", "5"]);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for line in
            ["hopd|--listen|nowhere", "hopd|--quota|-1", "hopd|--dir", "hopd|--frobnicate", "hopd|file"]
        {
            assert!(parse(line.split('|').map(OsString::from)).is_err(), "{line}");
        }
    }

    #[test]
    fn the_help_names_the_default_port() {
        assert!(HELP.contains(&format!("0.0.0.0:{DEFAULT_PORT}")));
    }
}
