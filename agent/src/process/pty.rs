//! The terminal of a program that requests one: a pair of pseudo-terminals (pty(7)), one side for the program and the
//! other for the agent.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// The character that ends the input of a terminal: Ctrl-D, unless the program has set another one (termios(3), VEOF).
pub const END_OF_INPUT: &[u8] = b"\x04";

/// Size of a terminal window, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Number of lines.
    pub rows: u16,
    /// Number of characters in a line.
    pub columns: u16,
}

/// The agent's side of a terminal.
#[derive(Debug)]
pub struct Terminal(OwnedFd);

impl Terminal {
    /// Opens a terminal. Returns the agent's side and the program's side.
    ///
    /// # Errors
    /// There is no /dev/ptmx or /dev/pts, or no terminal is left (pts(4)).
    pub fn open(size: Size) -> io::Result<(Self, OwnedFd)> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        // Not by ptsname(3), which needs `printf`: 10 kB.
        let mut number: libc::c_uint = 0;
        // SAFETY: the pointer is to a live value of the type that the request writes (ioctl_tty(2)).
        if unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTN as _, &raw mut number) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // By name: opening it through the other side needs Linux 4.13 (TIOCGPTPEER, ioctl_tty(2)).
        let theirs = rustix::fs::open(
            format!("/dev/pts/{number}"),
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let terminal = Self(ours);
        terminal.resize(size);
        Ok((terminal, theirs))
    }

    /// Duplicates the descriptor of the agent's side.
    ///
    /// # Errors
    /// The agent has no descriptors left.
    pub fn again(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// Sets the size of the window. The program gets SIGWINCH.
    pub fn resize(&self, size: Size) {
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        // If this fails, the terminal keeps its size.
        let _ = tcsetwinsize(&self.0, size);
    }
}

/// Makes the calling process the leader of a session with this terminal. Safe between fork and exec.
///
/// # Errors
/// The process leads a group already, or the terminal belongs to another session.
pub fn take_control(terminal: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::ioctl_tiocsctty(terminal.as_fd())?;
    Ok(())
}
