//! The terminal of a program that is to have one: a pair of pseudo-terminals (pty(7)), of which the program has the one and
//! the agent the other.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// What a program writes to say that its input has ended: Ctrl-D, unless it has set another character (termios(3), VEOF).
pub const END_OF_INPUT: &[u8] = b"\x04";

/// How large a window is, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// The agent's side of a terminal.
#[derive(Debug)]
pub struct Terminal(OwnedFd);

impl Terminal {
    /// Makes a terminal, and gives the program's side of it beside the agent's.
    ///
    /// # Errors
    /// There is no /dev/ptmx or /dev/pts, or no terminal is left (pts(4)).
    pub fn open(size: Size) -> io::Result<(Self, OwnedFd)> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        // Not by ptsname(3), which brings `printf` in: 10 kB.
        let mut number: libc::c_uint = 0;
        // SAFETY: the pointer is to a live value of the type that the request writes (ioctl_tty(2)).
        if unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTN as _, &raw mut number) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // By name: to ask for it by the other side needs Linux 4.13 (TIOCGPTPEER, ioctl_tty(2)).
        let theirs = rustix::fs::open(
            format!("/dev/pts/{number}"),
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let terminal = Self(ours);
        terminal.resize(size);
        Ok((terminal, theirs))
    }

    /// A further descriptor of the agent's side.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn again(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// Makes the window this large, of which the program hears by SIGWINCH.
    pub fn resize(&self, size: Size) {
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        // A terminal whose size cannot be set has the size that it has.
        let _ = tcsetwinsize(&self.0, size);
    }
}

/// Makes the calling process the leader of a session that has this terminal. Between fork and exec.
///
/// # Errors
/// It leads a group already, or the terminal is another session's.
pub fn take_control(terminal: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::ioctl_tiocsctty(terminal.as_fd())?;
    Ok(())
}
