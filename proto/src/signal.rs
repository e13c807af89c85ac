//! The names by which messages identify signals (RFC 4254, section 6.9), and their numbers in each side's own kernel.
//!
//! Messages contain no numbers: MIPS has its own (signal(7)), where SIGUSR1 is 16 and not 10.

use rustix::process::Signal;

/// Signals that a controller may send to a job.
///
/// SIGKILL is one of them, for a controller whose SIGTERM had no effect. SIGSTOP is not: a stopped program would hold
/// its memory on the router forever.
pub const SENDABLE: [&str; 10] =
    ["HUP", "INT", "QUIT", "ABRT", "KILL", "USR1", "USR2", "PIPE", "TERM", "WINCH"];

/// All signals that every Linux has.
const SIGNALS: [(&str, Signal); 29] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("ILL", Signal::ILL),
    ("TRAP", Signal::TRAP),
    ("ABRT", Signal::ABORT),
    ("BUS", Signal::BUS),
    ("FPE", Signal::FPE),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("SEGV", Signal::SEGV),
    ("USR2", Signal::USR2),
    ("PIPE", Signal::PIPE),
    ("ALRM", Signal::ALARM),
    ("TERM", Signal::TERM),
    ("CHLD", Signal::CHILD),
    ("CONT", Signal::CONT),
    ("STOP", Signal::STOP),
    ("TSTP", Signal::TSTP),
    ("TTIN", Signal::TTIN),
    ("TTOU", Signal::TTOU),
    ("URG", Signal::URG),
    ("XCPU", Signal::XCPU),
    ("XFSZ", Signal::XFSZ),
    ("VTALRM", Signal::VTALARM),
    ("PROF", Signal::PROF),
    ("WINCH", Signal::WINCH),
    ("IO", Signal::IO),
    ("SYS", Signal::SYS),
];

/// The signal with this name, if a controller may send it.
pub fn sendable(name: &str) -> Option<Signal> {
    if SENDABLE.contains(&name) { find(name) } else { None }
}

/// The number of a signal on this machine; `None` for a signal that only the other machine has.
pub fn number(name: &str) -> Option<i32> {
    find(name).map(Signal::as_raw)
}

/// The name of a signal of this machine. Real-time signals, and those that only one architecture has, are named by
/// their number: `SIG34`.
pub fn name(number: i32) -> String {
    match SIGNALS.iter().find(|(_, signal)| signal.as_raw() == number) {
        Some((name, _)) => (*name).to_owned(),
        None => format!("SIG{number}"),
    }
}

fn find(name: &str) -> Option<Signal> {
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_protocol_signals_are_sendable() {
        assert_eq!(sendable("TERM"), Some(Signal::TERM));
        assert_eq!(sendable("STOP"), None);
        assert_eq!(sendable("SIGTERM"), None);
        for name in SENDABLE {
            assert!(sendable(name).is_some(), "{name}");
        }
    }

    #[test]
    fn signal_names_and_numbers_round_trip() {
        for (name, signal) in SIGNALS {
            assert_eq!(super::name(signal.as_raw()), name);
            assert_eq!(number(name), Some(signal.as_raw()));
        }
        assert_eq!((name(99), number("SIG99")), ("SIG99".to_owned(), None));
    }
}
