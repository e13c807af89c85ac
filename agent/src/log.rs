//! The agent's log: one line an event, on standard error, where procd and the shell expect it, or in a file.
//!
//! A router without a supervisor has nobody who reads standard error, and its /tmp may be a ramfs without limit. What must
//! stay true: the file and the one before it take at most twice [`LIMIT`], and a log that cannot be written stops nobody.
//!
//! Time is seconds since the agent started: a router's clock says 1970 until it has seen a network.

use std::error::Error;
use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber, span};

/// Bytes of a log file: some 300 events, the last days of an agent that works and the last hour of one that does not.
pub const LIMIT: usize = 32 * 1024;

/// Sends events to `file`, or to standard error, from now on.
///
/// Standard error becomes the file too, for the last words of [`fatal`]. An agent for a router has none when it panics: that
/// is a trap (xtask/src/toolchain.rs), and its supervisor says by which signal it ended.
pub fn start(file: Option<PathBuf>) {
    let log = file.map(LogFile::new);
    if let Some(log) = &log {
        // Standard error stays what it is if the file cannot be had, and events go there.
        let _ = log.become_stderr(0);
    }
    let write = move |line: &str| {
        let mut length = line.len();
        if let Some(log) = &log {
            length = length.min(LIMIT);
            // As above.
            let _ = log.become_stderr(length);
        }
        // A log that cannot be written (a full /tmp, a closed pipe) stops nobody.
        let _ = io::stderr().write_all(&line.as_bytes()[..length]);
    };
    // Fails if there is a log already.
    let _ = tracing::subscriber::set_global_default(Log { write, start: Instant::now() });
}

/// Makes lines of events. A subscriber of our own is 20 lines; tracing-subscriber's is 30 kB.
struct Log<Write> {
    write: Write,
    start: Instant,
}

impl<Write: Fn(&str) + Send + Sync + 'static> Subscriber for Log<Write> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn event(&self, event: &Event<'_>) {
        (self.write)(&line(self.start.elapsed(), event));
    }

    // Nobody opens a span of a level that is logged.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// An event as one line: the time, the level, what happened, and `name=value` for what it happened to.
fn line(time: Duration, event: &Event<'_>) -> String {
    let mut line = Line(format!(
        "{:4}.{:06}s {:>5}",
        time.as_secs(),
        time.subsec_micros(),
        event.metadata().level().as_str()
    ));
    event.record(&mut line);
    // A program's name may hold anything but a slash, and shall not begin a line of its own.
    let mut line = line.0.replace(|c: char| c.is_ascii_control(), "?");
    line.push('\n');
    line
}

struct Line(String);

impl Line {
    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, " {value}"),
            name => write!(self.0, " {name}={value}"),
        };
    }
}

/// In an agent for a router `{:?}` writes nothing (xtask/src/toolchain.rs): what an event shows goes through Display. tracing
/// wraps a `%value` and the message so that their Debug is that.
struct AsDisplay<'a>(&'a dyn fmt::Debug);

impl fmt::Display for AsDisplay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{}", AsDisplay(value)));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, format_args!("{value}"));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, format_args!("{value}"));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, format_args!("{value}"));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, format_args!("{value}"));
    }
    // No event has one of these, and to write them takes 13 kB of code.
    fn record_f64(&mut self, _: &Field, _: f64) {}
    fn record_i128(&mut self, _: &Field, _: i128) {}
    fn record_u128(&mut self, _: &Field, _: u128) {}
    fn record_bytes(&mut self, _: &Field, _: &[u8]) {}
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

/// What is logged on this thread as long as the second of them lives, line by line.
#[cfg(test)]
pub fn lines_of_test() -> (std::sync::Arc<std::sync::Mutex<Vec<String>>>, tracing::subscriber::DefaultGuard) {
    let lines = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
    let kept = lines.clone();
    let write = move |line: &str| {
        kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(line.to_owned());
    };
    (lines, tracing::subscriber::set_default(Log { write, start: Instant::now() }))
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
        tracing::info!(job = "x1", pid = 7_u32, %program, "job started");
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
