//! What the OOM guard polls several times a second: free memory and threads, both by one sysinfo(2).
//!
//! **Invariants:** the kernel's settings, which four files of /proc have, are at most [`SETTINGS_AGE`] old: to read them
//! at each poll took more time than everything else that the agent does while a program is silent.

use std::time::{Duration, Instant};

use hop_formats::meminfo;
use rustix::system::Sysinfo;

use crate::system::memory;
use crate::system::resources::{self, Level};

/// How old the settings may be. Nobody who changes them expects more of programs that run.
const SETTINGS_AGE: Duration = Duration::from_secs(1);

/// Polls, and remembers the kernel's settings.
#[derive(Default)]
pub struct Poller(Option<Settings>);

struct Settings {
    read: Instant,
    memory: meminfo::Settings,
    max_threads: Option<u64>,
}

/// What one poll found.
#[derive(Debug)]
pub struct Pressure {
    /// Bytes that are certainly available: the free memory above the kernel's lowest watermark. This leaves out the memory
    /// that the kernel could reclaim from its caches, and so takes a fraction of the time of [`memory::Memory::read`]. It
    /// is 0 with strict overcommit, because only /proc/meminfo has the commit limit.
    pub surely_available: u64,
    /// The threads of all processes; `None` if the kernel does not tell.
    pub threads: Option<Level>,
}

impl Poller {
    /// Reads the current state.
    pub fn poll(&mut self) -> Pressure {
        let settings = self.settings(Instant::now());
        let known = rustix::system::sysinfo();
        Pressure {
            surely_available: surely_available(&known, settings.memory),
            threads: settings.max_threads.and_then(|max| resources::threads(max, known.procs)),
        }
    }

    fn settings(&mut self, now: Instant) -> &mut Settings {
        let known = self.0.take().filter(|settings| now - settings.read < SETTINGS_AGE);
        self.0.insert(known.unwrap_or_else(|| Settings {
            read: now,
            memory: memory::settings(),
            max_threads: resources::max_threads(),
        }))
    }
}

fn surely_available(known: &Sysinfo, settings: meminfo::Settings) -> u64 {
    // A long is 32 bits on MIPS.
    #[allow(clippy::useless_conversion)]
    let free = u64::from(known.freeram).saturating_mul(u64::from(known.mem_unit));
    if settings.is_strict { 0 } else { free.saturating_sub(settings.lowest) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn polls_agree_with_proc_files() {
        let pressure = Poller::default().poll();
        assert!(pressure.surely_available <= memory::Memory::read().unwrap().total);
        assert_eq!(pressure.threads.unwrap().total, resources::max_threads().unwrap());
    }

    #[test]
    fn settings_are_read_once_a_second() {
        let (mut poller, now) = (Poller::default(), Instant::now());
        let threads = poller.settings(now).max_threads;
        poller.settings(now).max_threads = Some(7);
        assert_eq!(poller.settings(now + SETTINGS_AGE - Duration::from_millis(1)).max_threads, Some(7));
        assert_eq!(poller.settings(now + SETTINGS_AGE).max_threads, threads);
    }

    #[test]
    fn watermark_and_commit_limit_bound_free_memory() {
        let mut known = rustix::system::sysinfo();
        (known.freeram, known.mem_unit) = (5_000, 4_096);
        let available = |lowest, is_strict| surely_available(&known, meminfo::Settings { lowest, is_strict });
        assert_eq!(available(0, false), 5_000 * 4_096);
        assert_eq!(available(4_999 * 4_096, false), 4_096);
        assert_eq!(available(5_001 * 4_096, false), 0);
        assert_eq!(available(0, true), 0);
    }
}
