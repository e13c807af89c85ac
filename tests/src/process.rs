//! Processes and their outputs, none of which is waited for longer than [`TIMEOUT`].

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::TIMEOUT;

/// A process that the test did not start itself: a program of the agent.
pub struct Process(std::os::fd::OwnedFd);

impl Process {
    /// The process with this number, which must be alive.
    pub fn open(number: u32) -> Self {
        Self(pidfd_open(pid(number), PidfdFlags::empty()).unwrap())
    }

    /// Waits for its end.
    pub fn wait_until_gone(&self) {
        let limit = Timespec { tv_sec: TIMEOUT.as_secs() as i64, tv_nsec: 0 };
        assert_eq!(
            poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&limit)).unwrap(),
            1,
            "the process ends"
        );
    }
}

/// An output that is read line by line, as far as it is wanted.
pub(crate) struct Lines(pub(crate) BufReader<ChildStdout>);

impl Lines {
    pub(crate) fn of(output: ChildStdout) -> Self {
        Self(BufReader::new(output))
    }

    /// The next line with its end, or nothing at the end. What does not come in time is as if it had never been printed.
    pub(crate) fn next(&mut self) -> String {
        let mut line = String::new();
        self.wait();
        self.0.read_line(&mut line).unwrap();
        line
    }

    /// Fills the buffer with what comes next, of which there must be as much.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        let mut filled = 0;
        while filled < buffer.len() {
            self.wait();
            let count = self.0.read(&mut buffer[filled..]).unwrap();
            assert!(count > 0, "the output goes on");
            filled += count;
        }
    }

    fn wait(&self) {
        let output = self.0.get_ref();
        let mut ready = [PollFd::new(output, PollFlags::IN)];
        let limit = Timespec { tv_sec: TIMEOUT.as_secs() as i64, tv_nsec: 0 };
        let is_ready = !self.0.buffer().is_empty() || poll(&mut ready, Some(&limit)).unwrap() > 0;
        assert!(is_ready, "output comes within {TIMEOUT:?}");
    }
}

/// Starts a command with the signals of a terminal as they are by default. A shell without job control starts what is in its
/// background with SIGINT and SIGQUIT ignored (POSIX, *Shell Command Language*, 2.11), and a process hands that on to its children.
pub fn with_default_signals(command: &mut Command) -> &mut Command {
    let reset = || {
        for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: signal(2) is async-signal-safe, and the default disposition refers to no code.
            if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls, and allocates no memory.
    unsafe { command.pre_exec(reset) }
}

pub(crate) fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
}

/// Reads to the end in a thread, so that no pipe is ever full.
pub(crate) fn collect(mut from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut content = Vec::new();
        from.read_to_end(&mut content).unwrap();
        // Fails if the test has ended.
        let _ = send.send(content);
    });
    receive
}

/// The shortest pause between two looks at what nobody tells of.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until it is so, and fails with `what` if that does not come within [`TIMEOUT`]. At most half of the time is spent looking,
/// because a look at a router takes its CPU from what is waited for.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    loop {
        let look = Instant::now();
        if is_so() {
            return;
        }
        assert!(since.elapsed() < TIMEOUT, "{what}");
        thread::sleep(look.elapsed().max(POLL_INTERVAL));
    }
}

/// Waits for the end of a process that a test has started by itself, and gives its exit code.
pub fn wait_for_exit(mut process: Child) -> Option<i32> {
    wait(&mut process).code()
}

/// Waits for a process, and kills it if it takes longer than anything may.
pub(crate) fn wait(process: &mut Child) -> std::process::ExitStatus {
    let (ended, watch) = mpsc::channel::<()>();
    let watched = pid(process.id());
    let watchdog = thread::spawn(move || {
        // Not reaped before the channel is closed, so the number is still this process's.
        if watch.recv_timeout(TIMEOUT) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("killing a process that does not end");
            let _ = kill_process(watched, Signal::KILL);
        }
    });
    let status = process.wait().unwrap();
    drop(ended);
    watchdog.join().unwrap();
    status
}
