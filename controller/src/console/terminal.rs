//! Our terminal while the program has one of its own: every key is the program's.
//!
//! **Invariants:** however this ends, but by a signal that nobody can handle, the terminal is as it was.

use std::io::{self, IsTerminal};

use hop_proto::v1::WindowSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::stdio::is_in_background;

/// The terminal on standard input, raw as long as this lives.
pub struct Terminal {
    before: Termios,
    resized: Signal,
}

impl Terminal {
    /// True if standard input is one.
    pub fn is_there() -> bool {
        io::stdin().is_terminal()
    }

    /// How large its window is; 80 by 24 characters, if it does not say.
    pub fn size() -> WindowSize {
        match tcgetwinsize(io::stdin()) {
            Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
                WindowSize { rows: size.ws_row.into(), columns: size.ws_col.into() }
            }
            _ => WindowSize { rows: 24, columns: 80 },
        }
    }

    /// Takes it, if it is one and this process may read it.
    ///
    /// # Errors
    /// The kernel refuses a handler, or the terminal its mode.
    pub fn take() -> io::Result<Option<Self>> {
        if !Self::is_there() || is_in_background(io::stdin()) {
            return Ok(None);
        }
        let terminal =
            Self { before: tcgetattr(io::stdin())?, resized: signal(SignalKind::window_change())? };
        terminal.resume()?;
        Ok(Some(terminal))
    }

    /// Waits until its window has another size. Cancel safe.
    pub async fn resized(&mut self) {
        // The stream of a signal does not end.
        self.resized.recv().await;
    }

    /// Gives the keys their usual meaning, so that Ctrl-C interrupts `hop` while no program reads it.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn suspend(&self) -> io::Result<()> {
        set(&self.before)
    }

    /// The opposite of [`Terminal::suspend`].
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn resume(&self) -> io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        set(&raw)
    }
}

/// Gives the terminal a mode; while another job of the shell has it, the shell does so when this one comes back, and to set it
/// would stop this process (SIGTTOU, termios(3)).
fn set(mode: &Termios) -> io::Result<()> {
    if is_in_background(io::stdin()) {
        return Ok(());
    }
    Ok(tcsetattr(io::stdin(), OptionalActions::Drain, mode)?)
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // If it is gone, there is nothing to put back.
        let _ = self.suspend();
    }
}
