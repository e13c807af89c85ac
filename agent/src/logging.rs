//! The agent's log: one line an event, on standard error, in a file, or in the router's system log.
//!
//! A router without a supervisor has nobody who reads standard error, and its /tmp may be a ramfs without limit: that one
//! has a file. procd reads standard error, but logs every line of it as an error and loses those that were written just
//! before the end: below procd it is the system log.
//!
//! **Invariants:** the file and the one before it take at most twice [`LIMIT`]; a log that cannot be written stops nobody,
//! and nothing here waits for whoever reads the log.
//!
//! Time is seconds since the agent started: a router's clock says 1970 until it has seen a network.

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{panic, str};

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::fmt::time::{FormatTime, Uptime, uptime};
use tracing_subscriber::fmt::{self, MakeWriter};

/// Bytes of a log file: some 300 events, the last days of an agent that works and the last hour of one that does not.
pub const LIMIT: usize = 32 * 1024;

/// Where the system log takes its lines (syslog(3)).
const SYSTEM_LOG: &str = "/dev/log";

/// Bytes of a line in the system log: logd cuts longer ones at 1,024 (ubox, log/syslog.h).
const SYSTEM_LINE: usize = 1000;

/// The facility `daemon` and the severities that are used, as syslog(3) numbers them.
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
    /// Writes a line from a process that has no events, the supervisor.
    pub fn note(&self, text: &str) {
        let written = match self {
            Self::StandardError => false,
            Self::File(path) => LogFile::new(path.clone()).append(format!("{text}\n").as_bytes()).is_ok(),
            Self::System => SystemLog::new(SYSTEM_LOG.into()).send(SEVERITY_WARNING, text).is_ok(),
        };
        if !written {
            // Nobody may be reading, and that is no reason to end.
            let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
        }
    }
}

/// The system log, for the last words of [`fatal`] and of a panic, if events go there.
static SYSTEM: OnceLock<SystemLog> = OnceLock::new();

/// Logs events to `destination` from now on. If that is a file, standard error becomes it too, for the last words of [`fatal`]
/// and of a panic.
pub fn start(destination: Destination) {
    let sink = match destination {
        Destination::StandardError => Sink::StandardError,
        Destination::File(path) => {
            let log = LogFile::new(path);
            // Standard error stays what it is if the file cannot be had, and events go there.
            let _ = log.become_stderr(0);
            Sink::File(log)
        }
        Destination::System => {
            // Set once, by the first call.
            let _ = SYSTEM.set(SystemLog::new(SYSTEM_LOG.into()));
            Sink::System
        }
    };
    // Fails if there is a log already.
    let _ = tracing::subscriber::set_global_default(subscriber(sink));
}

fn subscriber(sink: Sink) -> impl Subscriber {
    // The system log has a time and a severity of its own.
    let is_system = matches!(sink, Sink::System);
    let events = tracing_subscriber::fmt().with_max_level(Level::INFO).with_target(false);
    events
        .with_timer(Timer((!is_system).then(uptime)))
        .with_level(!is_system)
        .with_writer(Writer(sink))
        .finish()
}

/// Seconds since the log began, or nothing.
struct Timer(Option<Uptime>);

impl FormatTime for Timer {
    fn format_time(&self, line: &mut fmt::format::Writer<'_>) -> std::fmt::Result {
        self.0.as_ref().map_or(Ok(()), |uptime| uptime.format_time(line))
    }
}

/// Makes a panic say where it was and why, in one line like that of [`fatal`], and end the process by SIGABRT, in a build that
/// could go on without the task that panicked too.
pub fn report_panics() {
    panic::set_hook(Box::new(|panic| {
        to_system(SEVERITY_ERROR, &format!("error: {}", panic.to_string().replace('\n', " ")));
        process::abort();
    }));
}

/// Where tracing-subscriber writes events: each is one call with one line.
struct Writer(Sink);

/// Where lines go.
enum Sink {
    StandardError,
    File(LogFile),
    System,
    #[cfg(test)]
    Test(std::sync::Arc<std::sync::Mutex<Vec<String>>>),
}

/// Takes one event.
struct EventWriter<'a> {
    sink: &'a Sink,
    severity: u8,
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = EventWriter<'a>;

    fn make_writer(&'a self) -> EventWriter<'a> {
        EventWriter { sink: &self.0, severity: SEVERITY_INFO }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> EventWriter<'a> {
        EventWriter { sink: &self.0, severity: severity(*event.level()) }
    }
}

impl Write for EventWriter<'_> {
    /// Never fails: a log that cannot be written (a closed pipe, a full /tmp) stops nobody.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = str::from_utf8(event.strip_suffix(b"\n").unwrap_or(event)).unwrap_or_default();
        // A program's name may hold anything but a slash, and shall not begin a line of its own.
        let mut line = text.replace(|c: char| c.is_ascii_control(), "?");
        match self.sink {
            Sink::System => to_system(self.severity, line.trim_start()),
            sink => {
                line.push('\n');
                sink.write(&line);
            }
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
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
        // logd has not kept up with its queue. To wait for it would stop the agent, so the line is lost.
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    });
    if !sent {
        // Nobody may be reading, and that is no reason to end.
        let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
    }
}

/// Writes datagrams as syslog(3) does, which itself waits if nobody reads them.
struct SystemLog {
    /// `None` if there are no sockets to be had.
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
            // It was not connected yet, or logd was started again.
            Err(_) => {
                socket.connect(&self.path)?;
                socket.send(line.as_bytes()).map(|_| ())
            }
        }
    }
}

/// `Jan  1 00:00:12 `, in UTC as musl's syslog(3) writes it. logd takes it off by its length.
fn timestamp() -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    // Of the C library's type, which has 32 bits on a router and is called deprecated there.
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

/// Says in one line why the agent cannot go on: the error, and its causes. `hop` looks for that line.
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

/// A file that begins again when it is full. Two processes may write to it, the supervisor and the agent: nothing is
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

/// What is logged on this thread as long as the second of them lives, line by line.
#[cfg(test)]
pub fn lines_of_test() -> (std::sync::Arc<std::sync::Mutex<Vec<String>>>, tracing::subscriber::DefaultGuard) {
    let lines = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
    let subscriber = subscriber(Sink::Test(lines.clone()));
    (lines, tracing::subscriber::set_default(subscriber))
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
    fn an_event_is_one_line_whatever_is_in_it() {
        let (lines, logging) = lines_of_test();
        let program = "a\nb";
        tracing::info!(job = %"x1", pid = 7_u32, %program, "job started");
        tracing::warn!(error = %io::Error::from_raw_os_error(2), "cannot tidy {}", 3);
        drop(logging);
        let lines = lines.lock().unwrap();
        let expected = [
            "s  INFO job started job=x1 pid=7 program=a?b\n",
            "s  WARN cannot tidy 3 error=No such file or directory (os error 2)\n",
        ];
        for (line, expected) in lines.iter().zip(expected) {
            let (time, event) = line.split_at(line.find('s').unwrap());
            assert!(time.trim().parse::<f64>().is_ok_and(|seconds| seconds < 60.0), "{line}");
            assert_eq!(event, expected);
        }
        assert_eq!(lines.len(), expected.len());
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
        // What logd takes off: 16 bytes, of which the last is a space.
        let (time, rest) = rest.split_at(16);
        assert_eq!((priority, &time[15..], time.matches(':').count()), ("<30>", " ", 2));
        assert_eq!(rest, format!("hopd[{}]: job started job=x1", process::id()));
        assert!(lines[1].starts_with("<27>") && lines[1].len() == SYSTEM_LINE);
    }

    #[test]
    fn full_system_log_blocks_nobody() {
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
