//! The signals that `hop` receives and forwards to the program.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IsTerminal};
use std::task::Poll;
use std::time::{Duration, Instant};

use hop_proto::v1;
use rustix::process::{getppid, getsid};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::say;

/// How many Ctrl-C the program may ignore before it is killed, as docker counts.
pub const MAX_INTERRUPTS: u32 = 3;

/// The signals that `hop` forwards, by name. `None` for those that the process that started `hop` has set to be
/// ignored, as `nohup` does and a shell for its background jobs: `hop` and the program ignore them as well.
pub struct Interrupts {
    signals: [(&'static str, Option<Signal>); 6],
    /// Ctrl-Z.
    stop: Option<Signal>,
    /// What to say when it comes.
    stop_notice: Option<String>,
    longest_stop: Duration,
    /// What [`Remote`] sends.
    remote: Option<mpsc::UnboundedReceiver<&'static str>>,
    /// The last signal by which the user ends `hop`.
    ended_by: watch::Sender<Option<&'static str>>,
}

/// Signals for the program of a session from another part of `hop`, which also learns whether the user ends `hop`.
pub struct Remote {
    signals: mpsc::UnboundedSender<&'static str>,
    ended_by: watch::Receiver<Option<&'static str>>,
}

impl Remote {
    /// Sends a signal to the program, as if the user had.
    pub fn send(&self, name: &'static str) {
        // Fails when nobody listens any more, because there is no program.
        let _ = self.signals.send(name);
    }

    /// The signal by which the user ends `hop`, once there is one. Cancel safe.
    pub async fn ended(&mut self) -> &'static str {
        match self.ended_by.wait_for(Option::is_some).await.map(|name| *name) {
            Ok(Some(name)) => name,
            _ => std::future::pending().await,
        }
    }
}

impl Interrupts {
    /// Installs handlers: from now on these signals do not kill `hop`.
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
                listen("USR1", SignalKind::user_defined1())?,
                listen("USR2", SignalKind::user_defined2())?,
            ],
            stop: listen("TSTP", SignalKind::from_raw(libc::SIGTSTP))?.1,
            stop_notice: None,
            longest_stop: Duration::ZERO,
            remote: None,
            ended_by: watch::Sender::new(None),
        })
    }

    /// What the user hears when Ctrl-Z stops this `hop`.
    pub fn set_stop_notice(&mut self, notice: Option<String>) {
        self.stop_notice = notice;
    }

    /// Takes signals also from this remote, and from no earlier one.
    pub fn remote(&mut self) -> Remote {
        let (signals, remote) = mpsc::unbounded_channel();
        self.remote = Some(remote);
        Remote { signals, ended_by: self.ended_by.subscribe() }
    }

    /// The longest time for which Ctrl-Z has stopped this `hop`.
    pub fn longest_stop(&self) -> Duration {
        self.longest_stop
    }

    /// The name of the next signal. Cancel safe.
    pub async fn next(&mut self) -> &'static str {
        poll_fn(|context| {
            while self.stop.as_mut().is_some_and(|stop| stop.poll_recv(context).is_ready()) {
                self.longest_stop = self.longest_stop.max(stop(self.stop_notice.as_deref()));
            }
            let mut signals = self.signals.iter_mut();
            let received = signals.find_map(|(name, signal)| {
                let is_received = signal.as_mut().is_some_and(|signal| signal.poll_recv(context).is_ready());
                is_received.then_some(*name)
            });
            if let Some(name) = received {
                if !name.starts_with("USR") {
                    self.ended_by.send_replace(Some(name));
                }
                return Poll::Ready(name);
            }
            match self.remote.as_mut().map(|remote| remote.poll_recv(context)) {
                Some(Poll::Ready(Some(name))) => Poll::Ready(name),
                _ => Poll::Pending,
            }
        })
        .await
    }
}

/// Stops this process, as Ctrl-Z does without a handler, until the shell lets it go on. Returns after how long that was.
fn stop(notice: Option<&str>) -> Duration {
    // The kernel stops no process whose group no shell looks after (setpgid(2)), because nobody would let it go on.
    let has_shell = getppid().is_some_and(|parent| getsid(Some(parent)).ok() == getsid(None).ok());
    if !has_shell {
        return Duration::ZERO;
    }
    if let Some(notice) = notice.filter(|_| io::stderr().is_terminal()) {
        say!("\n{notice}");
    }
    let since = Instant::now();
    // SAFETY: raise sends a signal to this thread, and touches no memory.
    unsafe { libc::raise(libc::SIGSTOP) };
    since.elapsed()
}

/// The signals on their way to the program. They wait while there is no connection, and until the agent has acknowledged them
/// if it does so: a connection that breaks neither loses one nor brings it twice.
#[derive(Debug, Default)]
pub struct Signals {
    /// The agent counts and acknowledges them.
    are_counted: bool,
    /// Signals that the agent has not acknowledged, the oldest first.
    waiting: VecDeque<&'static str>,
    /// How many of them were sent on this connection. Of the others each is there once, as the kernel keeps them.
    sent: usize,
    /// How many the agent had before them.
    acknowledged: u64,
    /// The number of the last one that was ever sent.
    last_number: u64,
    interruptions: u32,
    last: Option<&'static str>,
}

impl Signals {
    /// For an agent that counts and acknowledges them, or for an older one.
    pub fn new(are_counted: bool) -> Self {
        Self { are_counted, ..Self::default() }
    }

    /// Takes a signal that `hop` got. False if the user has had enough: KILL was not answered; or, without a connection,
    /// would be next.
    #[must_use]
    pub fn take(&mut self, name: &'static str, is_connected: bool) -> bool {
        if self.interruptions >= MAX_INTERRUPTS {
            return false;
        }
        self.last = Some(name);
        self.interruptions += u32::from(name == "INT");
        let kills = self.interruptions >= MAX_INTERRUPTS;
        let name = if kills { "KILL" } else { name };
        if !self.waiting.range(self.sent..).any(|waiting| *waiting == name) {
            self.waiting.push_back(name);
        }
        is_connected || !kills
    }

    /// True if the next Ctrl-C kills the program.
    pub fn kills_next(&self) -> bool {
        self.last == Some("INT") && self.interruptions + 1 == MAX_INTERRUPTS
    }

    /// The next one to pass on. It counts as sent.
    pub fn next_signal(&mut self) -> Option<v1::Signal> {
        if !self.are_counted {
            return self.waiting.pop_front().map(|name| v1::Signal { name: name.to_owned(), number: 0 });
        }
        let name = *self.waiting.get(self.sent)?;
        self.sent += 1;
        let number = self.acknowledged + self.sent as u64;
        self.last_number = self.last_number.max(number);
        Some(v1::Signal { name: name.to_owned(), number })
    }

    /// Whether there is a next one.
    pub fn has_next(&self) -> bool {
        self.waiting.len() > self.sent
    }

    /// The agent has the signals up to this number.
    ///
    /// # Errors
    /// They were not sent.
    pub fn acknowledged(&mut self, number: u64) -> Result<(), &'static str> {
        let count = number
            .checked_sub(self.acknowledged)
            .and_then(|count| usize::try_from(count).ok())
            .filter(|count| *count <= self.sent)
            .ok_or("a signal is acknowledged that was not sent")?;
        self.waiting.drain(..count);
        self.sent -= count;
        self.acknowledged = number;
        Ok(())
    }

    /// On a new connection: the agent has so many, and is sent those that follow.
    ///
    /// # Errors
    /// It had more before.
    pub fn continue_at(&mut self, number: u64) -> Result<(), &'static str> {
        if !self.are_counted {
            return Ok(());
        }
        let count =
            number.checked_sub(self.acknowledged).ok_or("signals are to continue where they never were")?;
        // With a number that this `hop` has not reached, the last ones were another's.
        if number <= self.last_number {
            let count = usize::try_from(count).unwrap_or(usize::MAX).min(self.waiting.len());
            self.waiting.drain(..count);
        }
        (self.acknowledged, self.last_number, self.sent) = (number, number, 0);
        Ok(())
    }

    /// The last one that `hop` got.
    pub fn last(&self) -> Option<&'static str> {
        self.last
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
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn next(signals: &mut Signals) -> Option<(String, u64)> {
        signals.next_signal().map(|signal| (signal.name, signal.number))
    }

    #[test]
    fn third_interrupt_kills_fourth_exits() {
        for are_counted in [false, true] {
            let mut signals = Signals::new(are_counted);
            let expected = [("INT", "INT"), ("TERM", "TERM"), ("INT", "INT"), ("INT", "KILL")];
            for (number, (name, passed_on)) in (1..).zip(expected) {
                assert!(signals.take(name, true));
                let number = if are_counted { number } else { 0 };
                assert_eq!(next(&mut signals), Some((passed_on.into(), number)));
                assert_eq!(next(&mut signals), None);
            }
            assert!(!signals.take("INT", true));
            assert_eq!(signals.last(), Some("INT"));
        }
    }

    #[test]
    fn offline_signals_are_queued() {
        let mut signals = Signals::default();
        for name in ["INT", "TERM", "INT", "TERM"] {
            assert!(signals.take(name, false));
        }
        assert!(!signals.take("INT", false));
        let names = [next(&mut signals), next(&mut signals)].map(|signal| signal.unwrap().0);
        assert_eq!(names, ["INT", "TERM"]);
    }

    #[test]
    fn unacknowledged_signals_are_sent_again() {
        let mut signals = Signals::new(true);
        signals.continue_at(5).unwrap();
        for name in ["HUP", "TERM", "QUIT"] {
            assert!(signals.take(name, true));
        }
        assert_eq!(next(&mut signals), Some(("HUP".into(), 6)));
        assert_eq!(next(&mut signals), Some(("TERM".into(), 7)));
        signals.acknowledged(6).unwrap();
        assert!(signals.acknowledged(8).is_err(), "it was not sent");
        assert!(signals.acknowledged(5).is_err(), "it was acknowledged before");
        // One that was sent may have arrived, so another one is another.
        assert!(signals.take("TERM", false));
        for (arrived, rest) in [(6, &["TERM", "QUIT", "TERM"][..]), (7, &["QUIT", "TERM"])] {
            let mut signals = Signals { waiting: signals.waiting.clone(), ..signals };
            signals.continue_at(arrived).unwrap();
            for (number, name) in (arrived + 1..).zip(rest) {
                assert_eq!(next(&mut signals), Some(((*name).into(), number)));
            }
            assert_eq!(next(&mut signals), None);
        }
        assert!(signals.continue_at(4).is_err());
        // Another hop has had the job in between.
        signals.continue_at(20).unwrap();
        assert_eq!(next(&mut signals), Some(("TERM".into(), 21)));
    }
}
