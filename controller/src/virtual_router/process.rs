//! The processes that are virtual routers, told apart from later ones with their numbers.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::config::inventory::ProcessId;

/// Time for an agent to end its jobs and itself, beyond its own limit of 3 s for the jobs. QEMU takes a moment.
const STOP_TIMEOUT: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// The program with this name, as the shell would find it.
pub(super) fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// The process with this number, if it lives.
pub(super) fn find(pid: u32) -> Option<ProcessId> {
    let pid = i32::try_from(pid).ok()?;
    started(pid).map(|started| ProcessId { pid, started })
}

/// True if it lives.
pub(super) fn is_running(process: ProcessId) -> bool {
    started(process.pid) == Some(process.started)
}

/// The first line of a pipe, empty if it ends before, if it comes in time. A read from a pipe has no time limit, so a
/// thread reads.
pub(super) fn first_line(pipe: impl Read + Send + 'static, limit: Duration) -> io::Result<String> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(pipe).read_line(&mut line);
        // Fails if nobody waits any more.
        let _ = send.send(read.map(|_| line));
    });
    receive.recv_timeout(limit).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// When the process started, in clock ticks since the boot: field 22 of /proc/PID/stat (proc(5)). `None` if it is gone
/// or a zombie.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, which may itself hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (state != "Z").then_some(started)
}

/// Stops the process if it is still the same one: by SIGTERM, and by SIGKILL if that does not help.
pub(super) fn stop(process: ProcessId) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(process.pid) else { return Ok(()) };
    // From here on the descriptor names the process, even if another one gets its id later.
    let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        opened => opened?,
    };
    if started(process.pid) != Some(process.started) {
        return Ok(());
    }
    for signal in [Signal::TERM, Signal::KILL] {
        match pidfd_send_signal(&descriptor, signal) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            result => result?,
        }
        if poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&STOP_TIMEOUT))? > 0 {
            return Ok(());
        }
    }
    Err(io::Error::from(io::ErrorKind::TimedOut))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reused_pid_is_not_killed() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let started = started(pid).unwrap();
        stop(ProcessId { pid, started: started + 1 }).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "another process is left alone");
        stop(ProcessId { pid, started }).unwrap();
        assert!(child.wait().unwrap().code().is_none());
        assert_eq!(super::started(pid), None);
    }
}
