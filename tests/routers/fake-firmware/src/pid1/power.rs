//! Shutdown: `reboot`, `poweroff` and `halt`, which signal PID 1 as busybox's do, and the last steps of PID 1.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{WaitOptions, wait};
use rustix::system::{RebootCommand, reboot};

use crate::console::{fail, log, report};
use crate::pid1::mounts;
use crate::pid1::spawn::{signal, signal_all};

/// The time between TERM and KILL.
const GRACE: Duration = Duration::from_secs(2);
/// The time limit for killed processes to exit.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// What happens after shutdown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Reboot,
    PowerOff,
    Halt,
}

impl End {
    /// The meaning of a signal to PID 1, as busybox's commands send it.
    pub fn of_signal(signal: u32) -> Option<Self> {
        match i32::try_from(signal).ok()? {
            libc::SIGTERM => Some(Self::Reboot),
            libc::SIGUSR1 => Some(Self::Halt),
            libc::SIGUSR2 => Some(Self::PowerOff),
            _ => None,
        }
    }

    /// Calls reboot(2). It returns only if the kernel refuses.
    fn now(self) {
        report(
            "end",
            reboot(match self {
                Self::Reboot => RebootCommand::Restart,
                Self::PowerOff => RebootCommand::PowerOff,
                Self::Halt => RebootCommand::Halt,
            }),
        );
    }
}

/// `reboot [-d SECONDS] [-n] [-f]`
pub fn main(name: &str, arguments: &[String]) -> ExitCode {
    let (end, number) = match name {
        "reboot" => (End::Reboot, libc::SIGTERM),
        "poweroff" => (End::PowerOff, libc::SIGUSR2),
        _ => (End::Halt, libc::SIGUSR1),
    };
    let delay = arguments.iter().position(|word| word == "-d").and_then(|index| arguments.get(index + 1));
    if let Some(seconds) = delay.and_then(|word| word.parse().ok()) {
        sleep(Duration::from_secs(seconds));
    }
    if arguments.iter().any(|word| word == "-f") {
        rustix::fs::sync();
        end.now();
    }
    if signal(1, number) { ExitCode::SUCCESS } else { fail(&format!("{name}: not permitted")) }
}

/// Kills all processes, calls `last`, and reboots or stops the router.
pub fn finish(end: End, last: impl FnOnce()) -> ! {
    signal_all(libc::SIGTERM);
    reap_until(GRACE);
    signal_all(libc::SIGKILL);
    reap_until(KILL_TIMEOUT);
    last();
    rustix::fs::sync();
    mounts::release();
    rustix::fs::sync();
    log(match end {
        End::Reboot => "reboot",
        End::PowerOff => "power off",
        End::Halt => "halt",
    });
    loop {
        end.now();
        // A kernel that cannot switch the power off returns. Nothing is left to do.
        sleep(Duration::from_secs(3600));
    }
}

/// Waits until no child is left. It polls, because PID 1 no longer reads signals; 20 ms is short in a shutdown.
fn reap_until(limit: Duration) {
    let started = Instant::now();
    while started.elapsed() < limit {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => sleep(Duration::from_millis(20)),
            Err(_) => return,
        }
    }
}
