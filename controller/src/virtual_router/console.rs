//! The serial console of a machine, which shows that it has booted, or why it has not; and its reboots, which hop
//! follows on the console.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::Error;
use super::machine::{CONSOLE, Machine, POLL_INTERVAL, QEMU_LOG};
use super::process;
/// Time to boot. It takes two to five seconds, and on a busy machine longer.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);

/// Time to boot with a counted clock, which is ten times slower.
const COUNTED_BOOT_TIMEOUT: Duration = Duration::from_secs(180);

/// Time limit for the login that runs `reboot`.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(20);

/// The line that the guest's init prints once a boot, when dropbear listens.
const READY: &str = "virtual router: ready";

/// The last message of the kernel.
const PANIC: &str = "Kernel panic";

/// How many lines of the console an error shows.
const CONSOLE_LINES: usize = 4;

/// How much of a log an error looks at, in bytes.
const CONSOLE_TAIL: u64 = 4 << 10;

impl Machine {
    /// Runs `reboot` there, and waits until it is back.
    ///
    /// # Errors
    /// Nobody can log in, or it does not come back.
    pub fn reboot(&self) -> Result<(), Error> {
        let from = self.console_length()?;
        let mut command = self.ssh()?;
        // A guest that reboots does not close its connections, so hop kills this ssh. The guest waits until hop has
        // read its line, which the reboot would overtake on a busy machine.
        command.args(["-o", "BatchMode=yes", "echo rebooting; read heard; reboot"]);
        let mut ssh = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::io("run", Path::new("ssh")))?;
        let heard = match ssh.stdout.take() {
            Some(stdout) => process::first_line(stdout, LOGIN_TIMEOUT),
            None => Ok(String::new()),
        };
        let heard = heard.is_ok_and(|line| line == "rebooting\n");
        drop(ssh.stdin.take());
        let back = if heard {
            self.wait(from, || match ssh.try_wait() {
                // 255 is ssh's own exit code: the connection was lost, as it should be.
                Ok(Some(status)) if !matches!(status.code(), Some(0 | 255)) => Some("`reboot` failed there"),
                _ => None,
            })
        } else {
            Err(self.failure("nobody can log in to reboot it".to_owned()))
        };
        // Both fail only if it has exited.
        let _ = ssh.kill();
        let said = ssh.wait_with_output().map(|output| output.stderr).unwrap_or_default();
        back.map_err(|error| match error {
            Error::VirtualRouter { name, why } => {
                let said = String::from_utf8_lossy(&said);
                let said = said.lines().last().map(|line| format!("; ssh said: {line}")).unwrap_or_default();
                Error::NotBack { name, why: why + &said }
            }
            error => error,
        })
    }

    /// Presses its reset button, and waits until it is back.
    ///
    /// # Errors
    /// QEMU does not answer, or it does not come back.
    pub fn reset(&self) -> Result<(), Error> {
        let from = self.console_length()?;
        self.monitor()?.reset()?;
        self.wait_until_ready(from).map_err(|error| match error {
            Error::VirtualRouter { name, why } => Error::NotBack { name, why },
            error => error,
        })
    }

    /// How much its console has printed, in bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn console_length(&self) -> Result<u64, Error> {
        let path = self.console_log();
        fs::metadata(&path).map(|metadata| metadata.len()).map_err(Error::io("read", &path))
    }

    /// Waits until its console has said that it is ready, somewhere after the first `from` bytes.
    ///
    /// # Errors
    /// [`Error::VirtualRouter`] if it has ended or takes too long.
    pub fn wait_until_ready(&self, from: u64) -> Result<(), Error> {
        self.wait(from, || None)
    }

    /// Waits until the console has printed that the guest is ready, behind its first `from` bytes, or `hopeless` gives a reason to
    /// stop.
    fn wait(&self, from: u64, mut hopeless: impl FnMut() -> Option<&'static str>) -> Result<(), Error> {
        let limit = if self.state.counted_clock { COUNTED_BOOT_TIMEOUT } else { BOOT_TIMEOUT };
        let deadline = Instant::now() + limit;
        loop {
            // Before the look at the log, so that what it said last is seen.
            let running = self.is_running();
            if self.console_says(from, READY)? {
                return Ok(());
            }
            if !running {
                return Err(self.failure("QEMU exited".to_owned()));
            }
            if let Some(why) = hopeless() {
                return Err(self.failure(why.to_owned()));
            }
            if self.console_says(from, PANIC)? {
                return Err(self.failure("its kernel gave up".to_owned()));
            }
            if Instant::now() > deadline {
                return Err(self.failure(format!("it was not ready within {} s", limit.as_secs())));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// True if the console printed `text` somewhere after its first `from` bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn console_says(&self, from: u64, text: &str) -> Result<bool, Error> {
        let path = self.console_log();
        let mut said = Vec::new();
        File::open(&path)
            .and_then(|mut file| {
                file.seek(SeekFrom::Start(from))?;
                file.read_to_end(&mut said)
            })
            .map_err(Error::io("read", &path))?;
        Ok(said.windows(text.len()).any(|window| window == text.as_bytes()))
    }

    /// What went wrong, with what QEMU and the console said last, in one line.
    pub(super) fn failure(&self, why: String) -> Error {
        let logs = [("QEMU", QEMU_LOG, 1), ("its console", CONSOLE, CONSOLE_LINES)];
        let said = logs.map(|(who, log, lines)| (who, tail(&self.directory.join(log), lines)));
        let said = said.iter().filter(|(_, said)| !said.is_empty());
        let why = said.fold(why, |why, (who, said)| format!("{why}; {who} said last: {said}"));
        Error::VirtualRouter { name: self.name.clone(), why }
    }
}

/// The last lines of a file that are not empty, as one. Nothing if it cannot be read.
pub(super) fn tail(path: &Path, lines: usize) -> String {
    let mut end = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(CONSOLE_TAIL)))?;
        file.read_to_end(&mut end)
    });
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&end);
    let all: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join(" / ")
}
