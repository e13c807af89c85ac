//! The signals that `hop` itself gets, which are the program's.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// How many Ctrl-C the program may ignore before it is killed, as docker counts.
pub const PATIENCE: u32 = 3;

/// The signals that are passed on, by name.
pub struct Interrupts {
    signals: [(&'static str, Signal); 4],
}

impl Interrupts {
    /// From now on these signals do not end `hop` any more.
    ///
    /// # Errors
    /// The kernel refuses a handler.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            signals: [
                ("INT", signal(SignalKind::interrupt())?),
                ("TERM", signal(SignalKind::terminate())?),
                ("QUIT", signal(SignalKind::quit())?),
                ("HUP", signal(SignalKind::hangup())?),
            ],
        })
    }

    /// The name of the next signal. Cancel safe.
    pub async fn next(&mut self) -> &'static str {
        let [(int, first), (term, second), (quit, third), (hup, fourth)] = &mut self.signals;
        tokio::select! {
            _ = first.recv() => int,
            _ = second.recv() => term,
            _ = third.recv() => quit,
            _ = fourth.recv() => hup,
        }
    }
}
