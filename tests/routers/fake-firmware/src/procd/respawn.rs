//! procd's rule for restarting a service that exited, with exit code 0 too.

use std::time::Duration;

/// `procd_set_param respawn THRESHOLD TIMEOUT RETRY`, and the count of crashes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Respawn {
    /// A run that is shorter than this is a crash.
    pub threshold: Duration,
    /// Pause before the next start.
    pub timeout: Duration,
    /// Crashes in a row after which the service stays down; 0 or less: never.
    pub retry: i64,
    crashes: i64,
}

impl Respawn {
    /// From threshold and timeout in seconds, and retries. Missing values are 3600, 5 and 5.
    pub fn new(values: &[i64]) -> Self {
        let seconds = |index: usize, default| {
            Duration::from_secs(values.get(index).map_or(default, |v| (*v).max(0) as u64))
        };
        Self {
            threshold: seconds(0, 3600),
            timeout: seconds(1, 5),
            retry: values.get(2).copied().unwrap_or(5),
            crashes: 0,
        }
    }

    /// A service has ended after this time: the pause before the next start, or none if it stays down.
    pub fn ended(&mut self, ran: Duration) -> Option<Duration> {
        self.crashes = if ran < self.threshold { self.crashes + 1 } else { 0 };
        if self.retry > 0 && self.crashes > self.retry { None } else { Some(self.timeout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_secs(1);

    #[test]
    fn six_crashes_in_a_row_stop_a_service() {
        let mut respawn = Respawn::new(&[]);
        for _ in 0..5 {
            assert_eq!(respawn.ended(SHORT), Some(Duration::from_secs(5)));
        }
        assert_eq!(respawn.ended(SHORT), None);
    }

    #[test]
    fn long_runs_reset_the_count() {
        let mut respawn = Respawn::new(&[60, 2, 1]);
        assert!(respawn.ended(SHORT).is_some());
        assert!(respawn.ended(Duration::from_secs(60)).is_some());
        assert!(respawn.ended(SHORT).is_some());
        assert!(respawn.ended(SHORT).is_none());
    }

    #[test]
    fn zero_retries_means_no_limit() {
        let mut respawn = Respawn::new(&[3600, 0, 0]);
        assert!((0..1000).all(|_| respawn.ended(SHORT) == Some(Duration::ZERO)));
    }
}
