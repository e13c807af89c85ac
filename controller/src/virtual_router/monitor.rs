//! QEMU's monitor: what a hand would do to a router, and to its cables. QMP, a line of JSON each way
//! (qemu.org/docs/master/interop/qmp-spec.html).
//!
//! **Invariants:** QEMU can hang, so nothing here waits without a limit.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Error;

/// Time for QEMU to answer. It answers within a millisecond, or on a busy machine within a second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest answer. Those to the commands here are below 1 kB.
const MAX_ANSWER: usize = 1 << 20;

/// The id of the network in QEMU's command line.
pub(super) const NETWORK: &str = "n0";

/// A connection to the monitor of one QEMU. QEMU talks to one at a time; others wait.
#[derive(Debug)]
pub struct Monitor {
    path: PathBuf,
    stream: UnixStream,
    read: Vec<u8>,
}

/// How ports of this machine lead to ports of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The port of this machine.
    pub host: u16,
    /// The port of the guest.
    pub guest: u16,
}

impl Monitor {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if nobody listens there, [`Error::Monitor`] if what listens is no monitor or does not answer.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        let stream = connect(path).map_err(Error::io("connect to", path))?;
        let mut monitor = Self { path: path.to_owned(), stream, read: Vec::new() };
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let greeting = monitor.message(deadline)?;
        if greeting.get("QMP").is_none() {
            return Err(monitor.error(format!("it greets with {greeting}")));
        }
        monitor.execute("qmp_capabilities", Value::Null)?;
        Ok(monitor)
    }

    /// Plugs the network cable in, or out.
    ///
    /// # Errors
    /// [`Error::Monitor`].
    pub fn set_link(&mut self, up: bool) -> Result<(), Error> {
        self.execute("set_link", json!({ "name": NETWORK, "up": up })).map(drop)
    }

    /// Presses the reset button.
    ///
    /// # Errors
    /// [`Error::Monitor`].
    pub fn reset(&mut self) -> Result<(), Error> {
        self.execute("system_reset", Value::Null).map(drop)
    }

    /// Pulls the plug: QEMU exits without a signal to the guest.
    ///
    /// # Errors
    /// [`Error::Monitor`].
    pub fn quit(&mut self) -> Result<(), Error> {
        self.execute("quit", Value::Null).map(drop)
    }

    /// Stops the CPU: what runs there is frozen, but not dead.
    ///
    /// # Errors
    /// [`Error::Monitor`].
    pub fn freeze(&mut self) -> Result<(), Error> {
        self.execute("stop", Value::Null).map(drop)
    }

    /// Lets the CPU run again.
    ///
    /// # Errors
    /// [`Error::Monitor`].
    pub fn thaw(&mut self) -> Result<(), Error> {
        self.execute("cont", Value::Null).map(drop)
    }

    /// Runs a command of QEMU's human monitor (HMP), and returns its output.
    ///
    /// # Errors
    /// [`Error::Monitor`]. An invalid command is no error: the output says so.
    pub fn human(&mut self, command: &str) -> Result<String, Error> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": command }))?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// The ports of this machine that lead into the guest.
    ///
    /// # Errors
    /// [`Error::Monitor`].
    pub fn forwards(&mut self) -> Result<Vec<Forward>, Error> {
        Ok(forwards(&self.human("info usernet")?))
    }

    fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Error> {
        let mut request = json!({ "execute": command });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        self.stream
            .set_write_timeout(Some(ANSWER_TIMEOUT))
            .and_then(|()| self.stream.write_all(format!("{request}\n").as_bytes()))
            .map_err(|error| self.error(format!("{command} cannot be sent: {error}")))?;
        loop {
            let mut message = self.message(deadline)?;
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
            if let Some(error) = message.get("error") {
                let why = error["desc"].as_str().unwrap_or("it does not say why");
                return Err(self.error(format!("{command} failed: {why}")));
            }
            // An event of the guest, for which no caller waits.
        }
    }

    /// The next line.
    fn message(&mut self, deadline: Instant) -> Result<Value, Error> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(|error| self.error(error.to_string()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.error(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())));
            }
            let mut buffer = [0; 4096];
            let read = self.stream.set_read_timeout(Some(left)).and_then(|()| self.stream.read(&mut buffer));
            match read {
                Ok(0) => return Err(self.error("QEMU has exited".into())),
                Ok(count) if self.read.len() + count > MAX_ANSWER => {
                    return Err(self.error(format!("an answer of more than {MAX_ANSWER} bytes")));
                }
                Ok(count) => self.read.extend_from_slice(&buffer[..count]),
                // A timeout, which the check above reports; or a signal.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(self.error(error.to_string())),
            }
        }
    }

    fn error(&self, why: String) -> Error {
        Error::Monitor { path: self.path.clone(), why }
    }
}

/// Connects to a Unix socket, whose path may be longer than the 107 bytes that the kernel takes.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = File::open(directory)?;
    UnixStream::connect(Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
}

/// Reads what `info usernet` prints: a line a connection, of which those that listen are
/// `TCP[HOST_FORWARD] FD HOST_ADDRESS HOST_PORT GUEST_ADDRESS GUEST_PORT …`.
fn forwards(text: &str) -> Vec<Forward> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().strip_prefix("TCP[HOST_FORWARD]")?.split_whitespace();
            let host = fields.nth(2)?.parse().ok()?;
            let guest = fields.nth(1)?.parse().ok()?;
            Some(Forward { host, guest })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    #[test]
    fn forwarded_ports_are_found() {
        // Of QEMU 7.2.
        let text = "Hub -1 (n0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  \
                    TCP[HOST_FORWARD]  16       127.0.0.1 33907     192.168.1.1    22     0     0\r\n  \
                    TCP[ESTABLISHED]   17       127.0.0.1 33907     192.168.1.1    22     0     0\r\n  \
                    TCP[HOST_FORWARD]  15       127.0.0.1 44083     192.168.1.1  4670     0     0\r\n";
        let expected = [(33907, 22), (44083, 4670)].map(|(host, guest)| Forward { host, guest });
        assert_eq!(forwards(text), expected);
    }

    /// A QEMU that greets, and then answers each line with one of `answers`.
    fn qemu(path: &Path, answers: &'static [&'static str]) -> thread::JoinHandle<Vec<String>> {
        let listener = UnixListener::bind(path).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"{\"QMP\": {}}\r\n").unwrap();
            let mut asked = Vec::new();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for answer in answers {
                asked.push(lines.next().unwrap().unwrap());
                stream.write_all(answer.as_bytes()).unwrap();
            }
            asked
        })
    }

    #[test]
    fn monitor_skips_events() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp.sock");
        let asked = qemu(
            &path,
            &[
                "{\"return\": {}}\n",
                "{\"event\": \"RESET\"}\n{\"return\": {}}\n",
                "{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"no n0\"}}\n",
            ],
        );
        let mut monitor = Monitor::connect(&path).unwrap();
        monitor.reset().unwrap();
        let error = monitor.set_link(false).unwrap_err();
        assert!(error.to_string().contains("set_link failed: no n0"), "{error}");
        let asked = asked.join().unwrap();
        assert_eq!(asked[1], r#"{"execute":"system_reset"}"#);
        assert!(asked[2].contains(r#""up":false"#), "{}", asked[2]);
        let error = monitor.reset().unwrap_err();
        assert!(matches!(error, Error::Monitor { .. }), "{error}");
    }

    #[test]
    fn long_socket_path_connects() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let near = dir.path().join("s");
        let _listener = UnixListener::bind(&near).unwrap();
        std::fs::rename(&near, deep.join("s")).unwrap();
        assert!(UnixStream::connect(deep.join("s")).is_err());
        connect(&deep.join("s")).unwrap();
    }
}
