//! The agent's log: one line per event, on standard error, in a file, or in the router's system log.
//!
//! On a router without a service supervisor nobody reads standard error, and /tmp may be a ramfs without a limit: there
//! the agent logs to a file of bounded size. procd reads standard error, but logs every line of it as an error, and
//! loses the lines that a service writes just before it exits: below procd the agent uses the system log.
//!
//! **Invariants:** the log file and its predecessor take at most twice [`LIMIT`]; the agent goes on if it cannot write
//! its log, and never waits for a reader of the log.
//!
//! Timestamps are seconds since the agent started: a router's clock says 1970 until it has reached a network.

mod subscriber;

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::panic;
use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::Level;

use self::subscriber::LineSubscriber;

/// Bytes of a log file: some 300 events, which are the last days of a healthy agent and the last hour of a failing one.
pub const LIMIT: usize = 32 * 1024;

/// Where the system log takes its lines (syslog(3)).
const SYSTEM_LOG: &str = "/dev/log";

/// Bytes of a line in the system log: logd cuts longer ones at 1,024 (ubox, log/syslog.h).
const SYSTEM_LINE: usize = 1000;

/// The facility `daemon` and the severities of the agent's lines, as syslog(3) numbers them.
const DAEMON: u8 = 3 << 3;
const SEVERITY_ERROR: u8 = 3;
const SEVERITY_WARNING: u8 = 4;
const SEVERITY_INFO: u8 = 6;

/// Where the log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Destination {
    /// To standard error.
    #[default]
    StandardError,
    /// To this file.
    File(PathBuf),
    /// To the router's system log, each line with its severity.
    System,
}

impl Destination {
    /// Writes a line for the supervisor, a process without tracing.
    pub fn note(&self, text: &str) {
        let written = match self {
            Self::StandardError => false,
            Self::File(path) => LogFile::new(path.clone()).append(format!("{text}\n").as_bytes()).is_ok(),
            Self::System => SystemLog::new(SYSTEM_LOG.into()).send(SEVERITY_WARNING, text).is_ok(),
        };
        if !written {
            // Fails if nobody reads standard error, which is no reason to exit.
            let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
        }
    }
}

/// The system log, for the messages of [`fatal`] and of a panic; set if events go there.
static SYSTEM: OnceLock<SystemLog> = OnceLock::new();

/// Logs events to `destination` from now on. If that is a file, redirects standard error to it too, for the messages of
/// [`fatal`] and of a panic.
pub fn start(destination: Destination) {
    let sink = match destination {
        Destination::StandardError => Sink::StandardError,
        Destination::File(path) => {
            let log = LogFile::new(path);
            // If the file cannot be opened, standard error stays as it is, and gets the events.
            let _ = log.become_stderr(0);
            Sink::File(log)
        }
        Destination::System => {
            // Set once, by the first call.
            let _ = SYSTEM.set(SystemLog::new(SYSTEM_LOG.into()));
            Sink::System
        }
    };
    // Fails if a subscriber has been set already.
    let _ = tracing::subscriber::set_global_default(LineSubscriber::new(sink));
}

/// Makes every panic log its location and reason in one line, like that of [`fatal`], and abort the process with
/// SIGABRT. That includes builds that unwind, where only the task that panicked would end.
pub fn report_panics() {
    panic::set_hook(Box::new(|panic| {
        to_system(SEVERITY_ERROR, &format!("error: {}", panic.to_string().replace('\n', " ")));
        process::abort();
    }));
}

/// Where lines go.
enum Sink {
    StandardError,
    File(LogFile),
    System,
    #[cfg(test)]
    Test(std::sync::Arc<std::sync::Mutex<Vec<String>>>),
}

impl Sink {
    /// Writes an event, as one line. Never fails: the agent goes on if it cannot write its log (a closed pipe, a full
    /// /tmp).
    fn event(&self, level: Level, line: &str) {
        match self {
            Self::System => to_system(severity(level), line.trim_start()),
            sink => sink.write(&format!("{line}\n")),
        }
    }

    fn write(&self, line: &str) {
        let length = line.len().min(LIMIT);
        match self {
            #[cfg(test)]
            Self::Test(lines) => {
                lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(line.to_owned());
                return;
            }
            Self::File(log) => _ = log.become_stderr(length),
            Self::StandardError | Self::System => {}
        }
        let _ = io::stderr().write_all(&line.as_bytes()[..length]);
    }
}

fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => SEVERITY_ERROR,
        Level::WARN => SEVERITY_WARNING,
        _ => SEVERITY_INFO,
    }
}

/// Sends a line to the system log, or to standard error if there is no system log.
fn to_system(severity: u8, text: &str) {
    let sent = SYSTEM.get().is_some_and(|log| match log.send(severity, text) {
        Ok(()) => true,
        // logd's queue is full. Waiting for it would block the agent, so the line is lost.
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    });
    if !sent {
        // Fails if nobody reads standard error, which is no reason to exit.
        let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
    }
}

/// Sends the datagrams of syslog(3), but never waits for the reader, as syslog(3) itself does.
struct SystemLog {
    /// `None` if the kernel could not create a socket.
    socket: Option<UnixDatagram>,
    path: PathBuf,
}

impl SystemLog {
    fn new(path: PathBuf) -> Self {
        let socket = UnixDatagram::unbound().ok().filter(|socket| socket.set_nonblocking(true).is_ok());
        Self { socket, path }
    }

    fn send(&self, severity: u8, text: &str) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let mut line = format!("<{}>{}hopd[{}]: {text}", DAEMON | severity, timestamp(), process::id());
        line.truncate(line.floor_char_boundary(SYSTEM_LINE));
        match socket.send(line.as_bytes()) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            // The socket is not connected yet, or logd has restarted.
            Err(_) => {
                socket.connect(&self.path)?;
                socket.send(line.as_bytes()).map(|_| ())
            }
        }
    }
}

/// `Jan  1 00:00:12 `, in UTC, as musl's syslog(3) writes it. logd removes it by its length.
fn timestamp() -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    // Converts to the C library's time_t, which has 32 bits on a router, and which the libc crate marks as deprecated
    // there.
    let seconds = now.try_into().unwrap_or(0);
    // SAFETY: a `tm` may be all zeros; the pointers are to live values of the types that gmtime_r(3) names.
    let time = unsafe {
        let mut time: libc::tm = std::mem::zeroed();
        libc::gmtime_r(&raw const seconds, &raw mut time);
        time
    };
    let month = usize::try_from(time.tm_mon).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&MONTHS[0]);
    format!("{month} {:2} {:02}:{:02}:{:02} ", time.tm_mday, time.tm_hour, time.tm_min, time.tm_sec)
}

/// Logs in one line why the agent cannot go on: the error and its causes. `hop` searches for that line.
pub fn fatal(error: &dyn Error) -> ExitCode {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string does not fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    to_system(SEVERITY_ERROR, &text);
    ExitCode::FAILURE
}

/// A log file that is rotated when it is full. Two processes may write to it, the supervisor and the agent, so it keeps
/// no state from one event to the next.
pub struct LogFile {
    path: PathBuf,
    /// Name of the full file after its rotation.
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

    /// Redirects standard error to the log file, which is rotated first if `coming` bytes would exceed [`LIMIT`].
    fn become_stderr(&self, coming: usize) -> io::Result<()> {
        Ok(rustix::stdio::dup2_stderr(self.open(coming)?)?)
    }

    fn open(&self, coming: usize) -> io::Result<fs::File> {
        // Anybody can write to /tmp: the open must not follow a link, or wait for the reader of a pipe.
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

/// Collects the lines that this thread logs, as long as the guard lives.
#[cfg(test)]
pub fn lines_of_test() -> (std::sync::Arc<std::sync::Mutex<Vec<String>>>, tracing::subscriber::DefaultGuard) {
    let lines = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
    let subscriber = LineSubscriber::new(Sink::Test(lines.clone()));
    (lines, tracing::subscriber::set_default(subscriber))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rotated_logs_are_bounded_and_gapless() {
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

    /// The datagrams that wait at a socket.
    fn received(socket: &UnixDatagram) -> Vec<String> {
        socket.set_nonblocking(true).unwrap();
        let mut datagram = [0; 2048];
        let mut read = || {
            let length = socket.recv(&mut datagram).ok()?;
            Some(String::from_utf8_lossy(&datagram[..length]).into_owned())
        };
        std::iter::from_fn(&mut read).collect()
    }

    #[test]
    fn system_log_lines_have_severity() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = SystemLog::new(path.clone());
        assert!(log.send(SEVERITY_INFO, "nobody reads yet").is_err());
        let logd = UnixDatagram::bind(&path).unwrap();
        log.send(severity(Level::INFO), "job started job=x1").unwrap();
        log.send(severity(Level::ERROR), &"x".repeat(5000)).unwrap();
        let lines = received(&logd);
        assert_eq!(lines.len(), 2);
        let (priority, rest) = lines[0].split_at(4);
        // logd removes 16 bytes, of which the last is a space.
        let (time, rest) = rest.split_at(16);
        assert_eq!((priority, &time[15..], time.matches(':').count()), ("<30>", " ", 2));
        assert_eq!(rest, format!("hopd[{}]: job started job=x1", process::id()));
        assert!(lines[1].starts_with("<27>") && lines[1].len() == SYSTEM_LINE);
    }

    #[test]
    fn full_system_log_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = SystemLog::new(path.clone());
        let logd = UnixDatagram::bind(&path).unwrap();
        // The kernel's queue has a length of its own (net.unix.max_dgram_qlen).
        let full = std::iter::repeat_with(|| log.send(SEVERITY_INFO, "line")).find_map(Result::err).unwrap();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop(logd);
        fs::remove_file(&path).unwrap();
        let logd = UnixDatagram::bind(&path).unwrap();
        log.send(SEVERITY_INFO, "logd was started again").unwrap();
        assert_eq!(received(&logd).len(), 1);
    }

    #[test]
    fn log_refuses_links_and_unread_pipes() {
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
