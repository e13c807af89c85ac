//! The signals that `hop` itself gets, which are the program's.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// How many Ctrl-C the program may ignore before it is killed, as docker counts.
pub const PATIENCE: u32 = 3;

/// The signals that are passed on, by name. `None` for those that whoever started `hop` told it to ignore, as `nohup` and
/// a shell's background jobs do: they stay ignored, here and for the program.
pub struct Interrupts {
    signals: [(&'static str, Option<Signal>); 4],
}

impl Interrupts {
    /// From now on these signals do not end `hop` any more.
    ///
    /// # Errors
    /// The kernel refuses a handler.
    pub fn listen() -> io::Result<Self> {
        let ignored = ignored_signals();
        let listen = |name, kind: SignalKind| {
            let is_ignored = ignored & 1 << (kind.as_raw_value() - 1) != 0;
            Ok::<_, io::Error>((name, if is_ignored { None } else { Some(signal(kind)?) }))
        };
        Ok(Self {
            signals: [
                listen("INT", SignalKind::interrupt())?,
                listen("TERM", SignalKind::terminate())?,
                listen("QUIT", SignalKind::quit())?,
                listen("HUP", SignalKind::hangup())?,
            ],
        })
    }

    /// The name of the next signal. Cancel safe.
    pub async fn next(&mut self) -> &'static str {
        let [(int, first), (term, second), (quit, third), (hup, fourth)] = &mut self.signals;
        tokio::select! {
            () = received(first) => int,
            () = received(second) => term,
            () = received(third) => quit,
            () = received(fourth) => hup,
        }
    }
}

/// The signals on their way to the program. They wait while there is no connection.
#[derive(Debug, Default)]
pub struct Signals {
    /// Each once, as the kernel keeps them.
    waiting: Vec<&'static str>,
    interruptions: u32,
    last: Option<&'static str>,
}

impl Signals {
    /// Takes a signal that `hop` got. False if the user has had enough: KILL was not answered; or, without a connection,
    /// would be next.
    #[must_use]
    pub fn take(&mut self, name: &'static str, is_connected: bool) -> bool {
        if self.interruptions >= PATIENCE {
            return false;
        }
        self.last = Some(name);
        self.interruptions += u32::from(name == "INT");
        let kills = self.interruptions >= PATIENCE;
        let name = if kills { "KILL" } else { name };
        if !self.waiting.contains(&name) {
            self.waiting.push(name);
        }
        is_connected || !kills
    }

    /// The next one to pass on.
    pub fn next_name(&mut self) -> Option<&'static str> {
        self.has_next().then(|| self.waiting.remove(0))
    }

    /// Whether there is a next one.
    pub fn has_next(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The last one that `hop` got.
    pub fn last(&self) -> Option<&'static str> {
        self.last
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        // The stream of a signal does not end.
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

/// A bit for each signal that is ignored, signal 1 the lowest (`SigIgn` in /proc/self/status, proc(5)).
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_interrupt_kills_and_the_fourth_gives_up() {
        let mut signals = Signals::default();
        for (name, passed_on) in [("INT", "INT"), ("TERM", "TERM"), ("INT", "INT"), ("INT", "KILL")] {
            assert!(signals.take(name, true));
            assert_eq!((signals.next_name(), signals.next_name()), (Some(passed_on), None));
        }
        assert!(!signals.take("INT", true));
        assert_eq!(signals.last(), Some("INT"));
    }

    #[test]
    fn without_a_connection_signals_are_kept_and_the_third_interrupt_gives_up() {
        let mut signals = Signals::default();
        for name in ["INT", "TERM", "INT", "TERM"] {
            assert!(signals.take(name, false));
        }
        assert!(!signals.take("INT", false));
        assert_eq!((signals.next_name(), signals.next_name()), (Some("INT"), Some("TERM")));
    }
}
