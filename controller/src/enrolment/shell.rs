//! The shell of a router, over one ssh login: scripts with their variables, files, and the guard that undoes an
//! enrolment which does not come to its end.

use std::process::Output;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin};
use tokio::task::JoinHandle;

use super::Error;
use crate::client::ssh::{Login, RemoteMessage, quoted};
use crate::config::enrolment::Destination;
use crate::console::note;

/// What is root's alone, and what is not: functions that come before every script.
pub const OWNERSHIP: &str = include_str!("scripts/ownership.sh");
/// Functions that end an agent, for the scripts that need them.
pub const STOP: &str = include_str!("scripts/stop.sh");
/// Functions that tell what an agent does, for the scripts that need them.
pub const STATE: &str = include_str!("scripts/state.sh");
/// Removes all of Hop.
pub const REMOVE: &str = include_str!("scripts/remove.sh");
const GUARD: &str = include_str!("scripts/guard.sh");
const ASK: &str = include_str!("scripts/ask.sh");

/// How often the guard on the router hears from us, and how long it does without: half a dozen signs of life may be lost.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
const GUARD_TIMEOUT_S: u32 = 60;

/// How long to wait for the guard's own work: it waits for an upgrade that is under way (40 s at most), ends an agent (15 s),
/// and writes to flash.
const UNDO_TIMEOUT: Duration = Duration::from_secs(90);

/// Bytes that are read of what the guard says when it stands, and of its complaint in the end.
const GUARD_SAYS: u64 = 256;
const GUARD_COMPLAINS: u64 = 4096;

/// Variables of a script, as the shell reads them.
#[derive(Clone, Debug, Default)]
pub struct Variables(String);

impl Variables {
    /// Adds one.
    pub fn set(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.0.push_str(&format!("{name}={}\n", quoted(value.as_ref())));
        self
    }
}

/// A router that one is logged in to.
pub struct Shell {
    host: String,
    login: Login,
}

impl Shell {
    /// Prepares a login; the first script logs in.
    ///
    /// # Errors
    /// There is no place for its socket.
    pub fn new(destination: &Destination) -> Result<Self, Error> {
        let login = Login::new(destination).map_err(Error::NoPlace)?;
        // On a line of its own, because ssh may ask for a password.
        note!("hop: logging in to {} by ssh", destination.host);
        Ok(Self { host: destination.host.clone(), login })
    }

    /// Where it is, as ssh names it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Runs a script and returns its output; `step` names its purpose, as a noun.
    ///
    /// # Errors
    /// [`Error::Step`] with its last words, or ssh's failure.
    pub async fn script(
        &self,
        step: &'static str,
        variables: &Variables,
        body: &[&str],
    ) -> Result<Vec<u8>, Error> {
        let output = self.attempt(&script(variables, body)).await?;
        self.succeeded(step, output)
    }

    /// Runs a script that takes back what was done, which may be repeated: once more over a login of its own if this one
    /// breaks. A channel that ends early can take others with it (dropbear 2022.82, openwrt/openwrt#11208), and
    /// something has ended early when something is taken back.
    ///
    /// # Errors
    /// [`Error::Step`] with the last line of its output, or ssh's failure.
    pub async fn take_back(
        &self,
        step: &'static str,
        variables: &Variables,
        body: &[&str],
    ) -> Result<Vec<u8>, Error> {
        match self.script(step, variables, body).await {
            Err(Error::Ssh(_)) => {
                self.login.end().await;
                self.script(step, variables, body).await
            }
            said => said,
        }
    }

    /// Runs one command with `input`, and returns its output. Whatever root's login shell is, `sh` reads the command.
    ///
    /// # Errors
    /// [`Error::Step`] with the last line of its output, or ssh's failure.
    pub async fn command(&self, step: &'static str, command: &str, input: &[u8]) -> Result<Vec<u8>, Error> {
        let output = self.login.run(&format!("sh -c {}", quoted(command)), input).await?;
        self.succeeded(step, output)
    }

    /// Runs a script, and returns its output and exit status, successful or not. It reads no input of its own.
    ///
    /// # Errors
    /// ssh's failure.
    pub async fn attempt(&self, script: &str) -> Result<Output, Error> {
        Ok(self.login.run("sh -s", script.as_bytes()).await?)
    }

    /// Asks the agent that is there `question`, as `ask.sh` has it, and gives what was said and how that ended.
    ///
    /// # Errors
    /// ssh's failure.
    pub async fn ask(&self, question: &str, variables: &Variables) -> Result<Output, Error> {
        let variables = variables.clone().set("question", question);
        self.attempt(&script(&variables, &[ASK])).await
    }

    /// The output of a command that succeeded; `step` names its purpose, as a noun.
    ///
    /// # Errors
    /// [`Error::Step`] with its last words.
    pub fn succeeded(&self, step: &'static str, output: Output) -> Result<Vec<u8>, Error> {
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
        let source = missing_tool(said).unwrap_or_else(|| RemoteMessage::last_line(said));
        Err(Error::Step { step, host: self.host.clone(), source })
    }

    /// Makes the directory `stage` and starts a guard there, which undoes hop's changes by the scripts `undo`.
    ///
    /// # Errors
    /// [`Error::Step`] with the last line of its output, or ssh's failure.
    pub async fn guard(&self, variables: Variables, stage: &str, undo: &[&str]) -> Result<Guard, Error> {
        let variables = variables.set("stage", stage).set("patience", GUARD_TIMEOUT_S.to_string());
        // The directory is on its command line, by which other scripts know it.
        let mut child = self.login.start_apart(&format!("sh -s {stage}"))?;
        let failed = |said: &[u8]| Error::Step {
            step: "making a directory in /tmp",
            host: self.host.clone(),
            source: RemoteMessage::last_line(said),
        };
        let (Some(mut stdin), Some(stdout), Some(mut stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed(b"ssh has no pipes"));
        };
        // In braces, so that the shell has read all of it before it runs it: what comes after are the signs of life. A shell that
        // is not there says so on its standard error.
        let guard = format!("{{\n{}\n}}; exit\n", script(&variables, &[&[GUARD], undo].concat()));
        let _ = stdin.write_all(guard.as_bytes()).await;
        let mut line = String::new();
        // An empty line is as good as an error here.
        let _ = BufReader::new(stdout.take(GUARD_SAYS)).read_line(&mut line).await;
        if line.trim() != "ready" {
            let mut said = Vec::new();
            let _ = (&mut stderr).take(GUARD_SAYS).read_to_end(&mut said).await;
            return Err(failed(&said));
        }
        let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
        let signs = tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = &mut stopped => return Some(stdin),
                    () = tokio::time::sleep(SIGN_OF_LIFE) => {}
                }
                // Other calls report a broken link, with more detail.
                stdin.write_all(b"alive\n").await.ok()?;
            }
        });
        Ok(Guard { child, stderr, signs, stop })
    }

    /// Logs out.
    pub async fn end(self) {
        self.login.end().await;
    }
}

/// The guard on the router: when this is dropped, or the connection breaks, the guard undoes hop's changes there.
pub struct Guard {
    child: Child,
    stderr: ChildStderr,
    signs: JoinHandle<Option<ChildStdin>>,
    stop: tokio::sync::oneshot::Sender<()>,
}

impl Guard {
    /// Keeps the changes. False if the guard cannot be reached, and so will undo them.
    pub async fn commit(self) -> bool {
        self.finish(b"commit\n").await.is_ok()
    }

    /// Undoes the changes now.
    ///
    /// # Errors
    /// Why hop does not know that all of them are undone.
    pub async fn undo(self) -> Result<(), RemoteMessage> {
        self.finish(b"undo\n").await
    }

    async fn finish(mut self, word: &[u8]) -> Result<(), RemoteMessage> {
        let lost = || RemoteMessage("the connection to its guard there broke".to_owned());
        // The task runs until it gets this message, or until its pipe breaks.
        let _ = self.stop.send(());
        let Ok(Some(mut stdin)) = self.signs.await else { return Err(lost()) };
        stdin.write_all(word).await.map_err(|_| lost())?;
        drop(stdin);
        let mut said = Vec::new();
        let mut stderr = self.stderr.take(GUARD_COMPLAINS);
        let ended = async { tokio::join!(stderr.read_to_end(&mut said), self.child.wait()).1 };
        match tokio::time::timeout(UNDO_TIMEOUT, ended).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(_)) if !said.is_empty() => Err(RemoteMessage::last_line(&said)),
            _ => Err(lost()),
        }
    }
}

/// What a shell says of a command that it does not find (`sh: mv: not found`, `sh: line 3: mv: command not found`), in words. The
/// script's own message may come after it, and blame something else.
fn missing_tool(said: &[u8]) -> Option<RemoteMessage> {
    let text = String::from_utf8_lossy(said);
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-[".contains(c);
    let tool = text.lines().find_map(|line| {
        let line = line.trim().strip_suffix(" not found")?;
        let tool = line.strip_suffix(": command").or(line.strip_suffix(':'))?.rsplit(": ").next()?;
        (!tool.is_empty() && tool.chars().all(is_name)).then_some(tool)
    })?;
    Some(RemoteMessage(format!("this router has no `{tool}`")))
}

/// A script, as `sh` reads it from its standard input.
fn script(variables: &Variables, body: &[&str]) -> String {
    format!("{}{OWNERSHIP}{}", variables.0, body.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_quoted_for_shell() {
        let variables = Variables::default().set("a", "it's").set("b", "two\nlines");
        assert_eq!(variables.0, "a='it'\\''s'\nb='two\nlines'\n");
    }

    #[test]
    fn missing_command_is_named() {
        let cause = |said: &str| missing_tool(said.as_bytes()).map(|message| message.0);
        let mv = Some("this router has no `mv`".to_owned());
        assert_eq!(cause("sh: mv: not found\ncannot write /tmp/hop/hopd\n"), mv);
        assert_eq!(cause("sh: line 3: mv: command not found"), mv);
        for other in
            ["", "cannot write /tmp/x", "modprobe: module ip_tables not found", "ls: /a b: not found"]
        {
            assert_eq!(cause(other), None, "{other}");
        }
    }

    #[test]
    fn zombie_does_not_live() {
        let lives = |pid: u32| {
            let script = format!("{OWNERSHIP}lives {pid}");
            std::process::Command::new("sh")
                .args(["-c", &script])
                .status()
                .is_ok_and(|status| status.success())
        };
        let own = std::process::id();
        assert!(lives(own));
        let mut child = std::process::Command::new("true").spawn().expect("true runs");
        let is_zombie = || {
            std::fs::read_to_string(format!("/proc/{}/stat", child.id()))
                .is_ok_and(|stat| stat.contains(") Z "))
        };
        while !is_zombie() {
            std::thread::yield_now();
        }
        assert!(!lives(child.id()));
        child.wait().expect("it can be reaped");
        assert!(!lives(child.id()));
    }
}
