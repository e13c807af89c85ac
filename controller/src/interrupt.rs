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
