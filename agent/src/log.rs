//! The agent's log: one line an event, on standard error, where procd and the shell expect it, or in a file.
//!
//! A router without a supervisor has nobody who reads standard error, and its /tmp may be a ramfs without limit. What must
//! stay true: the file and the one before it take at most twice [`LIMIT`], and a log that cannot be written stops nobody.
//!
//! Time is seconds since the agent started: a router's clock says 1970 until it has seen a network.

use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use tracing_subscriber::fmt::time::Uptime;

/// Bytes of a log file: some 300 events, the last days of an agent that works and the last hour of one that does not.
pub const LIMIT: usize = 32 * 1024;

/// Sends events to `file`, or to standard error, from now on.
///
/// Standard error becomes the file too: the last words of a panic, of an allocation that fails, of [`fatal`].
pub fn start(file: Option<PathBuf>) {
    let log = file.map(|path| Arc::new(LogFile::new(path)));
    if let Some(log) = &log {
        // Standard error stays what it is if the file cannot be had, and events go there.
        let _ = log.become_stderr(0);
    }
    tracing_subscriber::fmt()
        .with_writer(move || Writer(log.clone()))
        .with_ansi(false)
        .with_target(false)
        .with_timer(Uptime::default())
        // Otherwise a log that cannot be written (a full /tmp, a closed pipe) is reported there too, which panics.
        .log_internal_errors(false)
        .init();
}

/// Says why the agent cannot go on: the error, then its causes, a line each.
pub fn fatal(error: &dyn Error) -> ExitCode {
    // Not eprintln!, which panics when nobody reads it.
    let mut stderr = io::stderr();
    let _ = writeln!(stderr, "error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = writeln!(stderr, "caused by: {error}");
        cause = error.source();
    }
    ExitCode::FAILURE
}

/// A file that begins anew when it is full. Two processes may write to it, the supervisor and the agent: nothing is
/// remembered from one event to the next.
pub struct LogFile {
    path: PathBuf,
    /// What the full one is renamed to.
    old: PathBuf,
}

impl LogFile {
    /// A log in `path`, and in `path` with `.old` behind it.
    pub fn new(path: PathBuf) -> Self {
        let mut old = OsString::from(&path);
        old.push(".old");
        Self { path, old: old.into() }
    }

    /// Appends an event.
    ///
    /// # Errors
    /// The kernel's.
    pub fn append(&self, event: &[u8]) -> io::Result<()> {
        let event = &event[..event.len().min(LIMIT)];
        self.open(event.len())?.write_all(event)
    }

    /// Makes standard error the file that has room for `coming` bytes.
    fn become_stderr(&self, coming: usize) -> io::Result<()> {
        Ok(rustix::stdio::dup2_stderr(self.open(coming)?)?)
    }

    fn open(&self, coming: usize) -> io::Result<fs::File> {
        // /tmp is everybody's, so no link is followed; and a pipe that nobody reads is not waited for.
        let open = || {
            OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(&self.path)
        };
        let file = open()?;
        if file.metadata()?.len() + coming as u64 <= LIMIT as u64 {
            return Ok(file);
        }
        fs::rename(&self.path, &self.old)?;
        open()
    }
}

/// Writes an event a call.
struct Writer(Option<Arc<LogFile>>);

impl Write for Writer {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        if let Some(log) = &self.0 {
            let event = &event[..event.len().min(LIMIT)];
            // See `start` for why an error does not matter.
            let _ = log.become_stderr(event.len());
            io::stderr().write_all(event)?;
        } else {
            io::stderr().write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_log_and_the_one_before_it_are_bounded_and_end_with_the_last_event() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = LogFile::new(path.clone());
        for number in 0..2000 {
            log.append(format!("{number} {}\n", "x".repeat(90)).as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let both = read("log.old") + &read("log");
        assert!(read("log").len() <= LIMIT && read("log.old").len() <= LIMIT && both.len() > LIMIT);
        let numbers: Vec<u32> =
            both.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
        let expected: Vec<u32> = (numbers[0]..2000).collect();
        assert_eq!(numbers, expected, "no event is lost between the two");
        log.append(&[b'x'; 3 * LIMIT]).unwrap();
        assert_eq!(fs::metadata(path).unwrap().len(), LIMIT as u64, "not even by one event");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_link_is_not_followed_and_a_pipe_that_nobody_reads_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, link) = (dir.path().join("victim"), dir.path().join("link"));
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(LogFile::new(link).append(b"event").is_err());
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(LogFile::new(pipe).append(b"event").is_err());
    }
}
