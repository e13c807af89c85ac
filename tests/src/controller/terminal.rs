//! A terminal, and somebody who sits in front of it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::TIMEOUT;
use crate::process::{wait, with_default_signals};

/// A terminal in which a command runs.
pub struct Terminal {
    screen: File,
    theirs: OwnedFd,
    process: Child,
    /// What was printed and nobody has waited for.
    seen: String,
}

impl Terminal {
    /// Starts a command in a terminal of this size.
    pub(crate) fn start(command: &mut Command, [rows, columns]: [u16; 2]) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = open(&*name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        set_size(&ours, rows, columns);
        let stream = || Stdio::from(theirs.try_clone().unwrap());
        command.stdin(stream()).stdout(stream()).stderr(stream());
        let lead = || {
            rustix::process::setsid()?;
            rustix::process::ioctl_tiocsctty(std::io::stdin().as_fd())?;
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes system calls and touches no memory.
        unsafe { command.pre_exec(lead) };
        let process = with_default_signals(command).spawn().unwrap();
        Self { screen: File::from(ours), theirs, process, seen: String::new() }
    }

    /// Types this.
    pub fn type_in(&mut self, keys: &str) {
        self.screen.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this is printed, and gives all that was printed up to it since the last such wait.
    #[track_caller]
    pub fn shows(&mut self, text: &str) -> String {
        let limit = Timespec { tv_sec: TIMEOUT.as_secs() as i64, tv_nsec: 0 };
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let ready = poll(&mut [PollFd::new(&self.screen, PollFlags::IN)], Some(&limit)).unwrap();
            assert!(ready > 0, "{text:?} is shown, and not only {:?}", self.seen);
            let mut buffer = [0; 4096];
            let count = self.screen.read(&mut buffer).unwrap();
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }

    /// Sets O_NONBLOCK on the streams of the command, as another process may that shares the terminal.
    pub fn set_nonblocking(&self) {
        set_nonblocking(&self.theirs);
    }

    /// Makes its window this large.
    pub fn resize(&self, [rows, columns]: [u16; 2]) {
        set_size(&self.screen, rows, columns);
    }

    /// True if lines are edited and keys echoed in it, as a shell leaves it.
    pub fn is_cooked(&self) -> bool {
        tcgetattr(&self.theirs).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Waits for the end of the command and gives its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        wait(&mut self.process).code()
    }
}

/// Sets O_NONBLOCK on an open file description, which others may share.
pub fn set_nonblocking(stream: impl AsFd) {
    let flags = fcntl_getfl(&stream).unwrap();
    fcntl_setfl(&stream, flags | OFlags::NONBLOCK).unwrap();
}

fn set_size(terminal: impl AsFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
}
