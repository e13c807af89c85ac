//! Where an agent's files are, and how it is started there.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hop_proto::identity::Fingerprint;
use serde_json::Value;

use crate::Shell;
use crate::machine::pool::PooledMachine;
use crate::machine::shell::word;
use crate::process::{Lines, with_default_signals};

/// Where the agent's files are.
pub(super) enum Workspace {
    /// In the test's directory.
    Here,
    /// In a directory of its own on a machine.
    There {
        /// The machine, with the login by which all is done there.
        machine: Box<PooledMachine>,
        directory: PathBuf,
        pid: String,
        /// The port of this machine that leads to the agent, and its own.
        ports: [u16; 2],
    },
}

/// Starts an agent by these words, which say nothing of where its files are: the process, its address, who it is.
pub(super) fn launch_here(
    directory: &Path,
    words: &[OsString],
    listen: &str,
) -> (Child, String, Fingerprint) {
    let path = |name: &str| directory.join(name);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(["--listen", listen]);
    for (flag, name) in [("--dir", "ram"), ("--key", "key"), ("--authorized", "authorized")] {
        command.arg(flag).arg(path(name));
    }
    let log = fs::File::create(path("log")).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut agent = with_default_signals(&mut command).spawn().unwrap();
    let line = Lines::of(agent.stdout.take().unwrap()).next();
    let (address, fingerprint) =
        ready(&line).unwrap_or_else(|| panic!("it said {:?}", fs::read_to_string(path("log"))));
    (agent, address, fingerprint)
}

/// Starts an agent on a router: the ssh in which it runs, its number, its port, who it is.
pub(super) fn launch_there(
    shell: &Shell,
    there: &Path,
    port: u16,
    more: &str,
) -> (Child, String, u16, Fingerprint) {
    let place = word(there);
    let mut ssh = shell.start(&format!(
        "umask 077; cd {place} && echo $$; exec /tmp/hopd --listen 0.0.0.0:{port} --dir {place}/ram \
        --key {place}/key --authorized {place}/authorized {more} 2>log"
    ));
    let (pid, line) = (ssh.line().trim().to_owned(), ssh.line());
    let said = || shell.run(&format!("cat {place}/log")).stdout().to_owned();
    let (address, fingerprint) = ready(&line).unwrap_or_else(|| panic!("it said {:?}", said()));
    let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
    (ssh.into_process(), pid, port, fingerprint)
}

/// The address and the key in the line by which an agent says that it listens.
fn ready(line: &str) -> Option<(String, Fingerprint)> {
    let ready: Value = serde_json::from_str(line).ok()?;
    Some((ready["address"].as_str()?.to_owned(), ready["fingerprint"].as_str()?.parse().ok()?))
}
