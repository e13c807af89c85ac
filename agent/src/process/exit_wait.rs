//! How long to wait for killed processes to exit.

use std::time::Duration;

/// How long killed processes may take until another one of them exits. Hundreds of them take a router's CPU many seconds, and
/// more if they have left it without memory; only processes that the kernel itself blocks, on a dead disk or in a driver,
/// make no progress at all.
const STUCK_LIMIT: Duration = Duration::from_secs(10);

/// Polling intervals. A poll reads all of /proc, for which the CPU is needed that the processes need to exit, so polls
/// become rarer.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
const MAX_INTERVAL: Duration = Duration::from_millis(320);

/// A wait for killed processes, from its first poll on.
pub struct ExitWait {
    least: u32,
    /// When another one had last exited, since the beginning.
    progress: Duration,
    interval: Duration,
}

impl Default for ExitWait {
    fn default() -> Self {
        Self { least: u32::MAX, progress: Duration::ZERO, interval: MIN_INTERVAL }
    }
}

impl ExitWait {
    /// The time until the next poll, after one that found `left` processes `elapsed` after the beginning. `None` if all have
    /// exited, or if those that are left are stuck.
    pub fn next_interval(&mut self, left: u32, elapsed: Duration) -> Option<Duration> {
        if left < self.least {
            self.least = left;
            self.progress = elapsed;
        }
        if left == 0 || elapsed.saturating_sub(self.progress) > STUCK_LIMIT {
            return None;
        }
        let interval = self.interval;
        self.interval = (2 * interval).min(MAX_INTERVAL);
        Some(interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_goes_on_while_processes_exit() {
        let mut wait = ExitWait::default();
        let seconds = Duration::from_secs;
        assert_eq!(wait.next_interval(150, seconds(0)), Some(MIN_INTERVAL));
        for elapsed in 1..9 {
            let left = 150 - elapsed as u32;
            assert!(wait.next_interval(left, seconds(9 * elapsed)).is_some());
        }
        assert_eq!(wait.next_interval(100, seconds(80)), Some(MAX_INTERVAL));
        assert_eq!(wait.next_interval(0, seconds(81)), None);
    }

    #[test]
    fn stuck_processes_end_the_wait() {
        let mut wait = ExitWait::default();
        let seconds = Duration::from_secs;
        assert!(wait.next_interval(2, seconds(0)).is_some() && wait.next_interval(1, seconds(5)).is_some());
        assert!(wait.next_interval(1, seconds(15)).is_some());
        assert_eq!(wait.next_interval(1, seconds(16)), None);
    }
}
