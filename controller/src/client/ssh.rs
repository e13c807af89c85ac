//! The system's own `ssh`: how it is called, so that a user's configuration, agent, jump hosts and passwords work as usual.
//!
//! **Invariants:** one login serves everything that is done on a router in one go, because a login costs such a CPU
//! half a second and a user a password; and a link that is cut is noticed.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::process::{Output, Stdio};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::config::enrolment::Destination;
use crate::console::printable::printable;

/// Exit code by which ssh says that it failed itself (ssh(1)).
const FAILED: i32 = 255;

/// What is given to ssh unless the user's own options say otherwise: a link that is cut is noticed within 20 s, and the
/// first connection is given up after as long as an agent's is.
const DEFAULTS: [&str; 3] = ["ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=4"];

/// The user's configuration may name a command for an interactive login, with which ssh refuses any other.
const NO_REMOTE_COMMAND: [&str; 2] = ["-o", "RemoteCommand=none"];

/// How long the one login outlives the last use of it, should nobody end it (ssh_config(5)): seconds.
const PERSIST: &str = "ControlPersist=60";

/// Bytes that are taken of what a command prints, and of what it says on standard error. The longest answer is that of the
/// survey, some 20 kB.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// Errors of ssh itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no ssh.
    #[error("cannot run ssh")]
    Run(#[source] io::Error),
    /// The login did not succeed, or the link broke.
    #[error("ssh to {host} failed")]
    Failed {
        /// Where to.
        host: String,
        /// The command line of the login, as a user types it.
        login: String,
        /// The message of ssh.
        source: RemoteMessage,
    },
    /// It says more than any command of Hop's is answered with.
    #[error("{host} answers with more than {MAX_ANSWER_BYTES} bytes")]
    TooMuch {
        /// Who.
        host: String,
    },
}

/// The words of another program, as the cause of an error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RemoteMessage(pub String);

impl RemoteMessage {
    /// The last line of `output` that says something.
    pub fn last_line(output: &[u8]) -> Self {
        let text = String::from_utf8_lossy(output);
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
        Self(printable(line.unwrap_or("it said nothing")).into_owned())
    }
}

impl Destination {
    /// `ssh` with what the user said, up to and without the host.
    fn command(&self) -> Command {
        let mut command = Command::new("ssh");
        command.kill_on_drop(true).args(self.arguments());
        command
    }

    /// The host's name or address as ssh understands it: aliases and `HostName` of the user's configuration resolved.
    ///
    /// # Errors
    /// [`Error::Run`], or ssh cannot read its configuration.
    pub async fn host_name(&self) -> Result<String, Error> {
        let output = self.command().arg("-G").arg(&self.host).output().await.map_err(Error::Run)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let name = text.lines().find_map(|line| line.strip_prefix("hostname "));
        name.map(str::to_owned).ok_or_else(|| self.failed(&output.stderr))
    }

    /// A channel to `address` as seen from the router: bytes written to the child arrive there (`ssh -W`).
    ///
    /// # Errors
    /// [`Error::Run`]. That nobody listens there shows in what the child says on standard error.
    pub fn channel(&self, address: &str) -> Result<Child, Error> {
        let mut ssh = Command::new("ssh");
        ssh.kill_on_drop(true)
            .args(NO_REMOTE_COMMAND)
            .args(self.arguments())
            .args(DEFAULTS.iter().flat_map(|option| ["-o", option]))
            .args(["-o", "LogLevel=ERROR", "-W", address])
            .arg(&self.host)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::Run)
    }

    /// The login as a user types it.
    fn login(&self) -> String {
        let arguments = self.arguments();
        let words = arguments.iter().map(|argument| word(&argument.to_string_lossy()));
        ["ssh".to_owned()].into_iter().chain(words).chain([word(&self.host)]).collect::<Vec<_>>().join(" ")
    }

    fn failed(&self, stderr: &[u8]) -> Error {
        // By way of a login that was there, ssh ends without a word when the link breaks.
        let said = if stderr.is_empty() {
            RemoteMessage("the connection broke".to_owned())
        } else {
            RemoteMessage::last_line(stderr)
        };
        Error::Failed { host: self.host.clone(), login: self.login(), source: said }
    }
}

/// One login, over which several things are done.
pub struct Login {
    destination: Destination,
    directory: TempDir,
    /// `ssh`, or the program by which a test replaces it.
    program: OsString,
}

impl Login {
    /// Prepares; the first command logs in, and asks on the terminal what it must.
    ///
    /// # Errors
    /// There is no place for a socket.
    pub fn new(destination: &Destination) -> io::Result<Self> {
        // Short: a socket's path has 107 bytes at most (unix(7)), and ssh appends 17 of its own while it makes one.
        let directory = tempfile::Builder::new().prefix("hop-").rand_bytes(8).tempdir_in("/tmp")?;
        Ok(Self { destination: destination.clone(), directory, program: "ssh".into() })
    }

    /// Runs a command of the router's shell, with `input` as its standard input, and waits for its end.
    ///
    /// # Errors
    /// The login failed or the link broke; a command that fails is in the output's status.
    pub async fn run(&self, command: &str, input: &[u8]) -> Result<Output, Error> {
        let log = self.directory.path().join("stderr");
        // A file and not a pipe: the process that keeps the login open inherits it and would keep a pipe from its end.
        let stderr = File::create(&log).map_err(Error::Run)?;
        let mut child = self.shell(command).stderr(stderr).spawn().map_err(Error::Run)?;
        let stdin = child.stdin.take();
        let write = async {
            if let Some(mut stdin) = stdin {
                // A command that does not read all of its input reports by its exit code whether that was right.
                let _ = stdin.write_all(input).await;
            }
            Ok(())
        };
        let printed = child.stdout.take();
        let read = async {
            let mut answer = Vec::new();
            if let Some(printed) = printed {
                // One more than there may be.
                let reading = printed.take(MAX_ANSWER_BYTES + 1).read_to_end(&mut answer).await;
                reading.map_err(Error::Run)?;
            }
            match answer.len() as u64 > MAX_ANSWER_BYTES {
                true => Err(Error::TooMuch { host: self.destination.host.clone() }),
                false => Ok(answer),
            }
        };
        // Dropped before its end, ssh is killed.
        let ((), stdout) = tokio::try_join!(write, read)?;
        let status = child.wait().await.map_err(Error::Run)?;
        let mut stderr = Vec::new();
        let said = File::open(&log).and_then(|log| log.take(MAX_ANSWER_BYTES).read_to_end(&mut stderr));
        said.map_err(Error::Run)?;
        let output = Output { status, stdout, stderr };
        if output.status.code() == Some(FAILED) {
            return Err(self.destination.failed(&output.stderr));
        }
        Ok(output)
    }

    /// Starts a command of the router's shell whose input and output the caller holds, and which a Ctrl-C here does not
    /// reach. There must have been a login: one that asks for a password could not ask.
    ///
    /// # Errors
    /// [`Error::Run`].
    pub fn start_apart(&self, command: &str) -> Result<Child, Error> {
        self.shell(command).process_group(0).stderr(Stdio::piped()).spawn().map_err(Error::Run)
    }

    /// A command of the router's shell, with pipes for its input and output.
    fn shell(&self, command: &str) -> Command {
        let mut ssh = self.command();
        ssh.args(NO_REMOTE_COMMAND)
            .args(["-o", "ControlMaster=auto", "-o", PERSIST])
            .args(self.destination.arguments())
            .args(DEFAULTS.iter().flat_map(|option| ["-o", option]))
            // No warning may be taken for what the router says.
            .args(["-o", "LogLevel=ERROR", "-T"])
            .arg(&self.destination.host)
            .arg(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        ssh
    }

    /// Logs out. A command after this logs in again.
    pub async fn end(&self) {
        let mut ssh = self.command();
        ssh.args(self.destination.arguments()).args(["-O", "exit"]).arg(&self.destination.host);
        ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // If there was no login, there is none to end.
        let _ = ssh.status().await;
    }

    /// `ssh` by way of the one login. This comes before the user's options: of two, ssh takes the first.
    fn command(&self) -> Command {
        let mut path = OsString::from("ControlPath=");
        path.push(self.directory.path().join("c"));
        let mut command = Command::new(&self.program);
        command.kill_on_drop(true).arg("-o").arg(path);
        command
    }
}

/// A word that the router's shell reads as `text`, with any characters.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A word that a shell reads as `text`, quoted only if it must be.
pub fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) { text.to_owned() } else { quoted(text) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn quoting_keeps_one_word() {
        assert_eq!(quoted("it's a $HOME"), r"'it'\''s a $HOME'");
    }

    #[test]
    fn last_line_of_ssh_is_cause() {
        assert_eq!(RemoteMessage::last_line(b"banner\r\nPermission denied.\r\n\n").0, "Permission denied.");
    }

    #[tokio::test]
    async fn endless_ssh_output_is_cut_off() {
        // Instead of ssh, a shell prints zeros, and ignores its arguments.
        let directory = tempfile::tempdir().unwrap();
        let shell = directory.path().join("endless");
        std::fs::write(&shell, "#!/bin/sh\nexec cat /dev/zero\n").unwrap();
        std::fs::set_permissions(&shell, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut login = Login::new(&Destination::parse("desk").unwrap()).unwrap();
        login.program = shell.into();
        assert!(matches!(login.run("sh -s", b"").await, Err(Error::TooMuch { .. })));
    }
}
