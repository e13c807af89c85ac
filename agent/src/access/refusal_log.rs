//! Logs refused peers in one line a minute.
//!
//! **Invariants:** a further refused peer adds no more than a count: strangers cannot push important lines out of a
//! bounded log. The first refusal after a quiet time is logged at once, with its reason.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::system::runtime;

/// Time between two lines.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// Number of addresses in a line, each with the number of its refusals; all other addresses share one count.
const MAX_ADDRESSES: usize = 4;

/// Maximum length of a reason in bytes. Its text may come from an error that the peer caused.
const MAX_REASON_BYTES: usize = 120;

/// The log of refused peers.
#[derive(Default)]
pub struct RefusalLog(Mutex<Option<Minute>>);

/// The refusals since the last line.
#[derive(Default)]
struct Minute {
    addresses: Vec<(IpAddr, u32)>,
    others: u32,
    last_reason: String,
}

impl Minute {
    fn count(&mut self, address: IpAddr, why: &str) {
        match self.addresses.iter().position(|(known, _)| *known == address) {
            Some(index) => self.addresses[index].1 = self.addresses[index].1.saturating_add(1),
            None if self.addresses.len() < MAX_ADDRESSES => self.addresses.push((address, 1)),
            None => self.others = self.others.saturating_add(1),
        }
        self.last_reason.clear();
        self.last_reason.extend(why.chars().take(MAX_REASON_BYTES));
    }

    /// For the log: the addresses, and how often each was refused.
    fn peers(&self) -> String {
        let named = self.addresses.iter().map(|(address, count)| format!("{address} {count} times"));
        let others = (self.others > 0).then(|| format!("others {} times", self.others));
        named.chain(others).collect::<Vec<_>>().join(", ")
    }
}

impl RefusalLog {
    /// Records a refused peer. Must be called within the runtime.
    pub fn record(self: &Arc<Self>, peer: SocketAddr, why: &str) {
        let mut minute = self.minute();
        if let Some(minute) = &mut *minute {
            minute.count(peer.ip().to_canonical(), why);
            return;
        }
        *minute = Some(Minute::default());
        drop(minute);
        let why: String = why.chars().take(MAX_REASON_BYTES).collect();
        tracing::warn!(%peer, %why, "refused a peer; more within a minute are counted");
        let log = self.clone();
        runtime::spawn(async move {
            loop {
                tokio::time::sleep(INTERVAL).await;
                let mut minute = log.minute();
                match minute.take() {
                    Some(of_minute) if !of_minute.addresses.is_empty() => {
                        *minute = Some(Minute::default());
                        drop(minute);
                        let (peers, why) = (of_minute.peers(), &of_minute.last_reason);
                        tracing::warn!(%peers, last = %why, "refused peers in the last minute");
                    }
                    _ => return,
                }
            }
        });
    }

    fn minute(&self) -> MutexGuard<'_, Option<Minute>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::logging::lines_of_test;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn refused_strangers_log_once_a_minute() {
        let (lines, _logging) = lines_of_test();
        let log = Arc::<RefusalLog>::default();
        for second in 0..150_u32 {
            for stranger in 0..10 {
                log.record(([10, 0, 0, stranger], 1).into(), &"x".repeat(1000));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            let lines = lines.lock().unwrap();
            assert!(lines.len() as u32 <= 1 + second.div_ceil(60), "{lines:?}");
            assert!(lines.iter().all(|line| line.len() < 400), "{lines:?}");
        }
        tokio::time::sleep(3 * INTERVAL).await;
        log.record(([10, 0, 0, 1], 7).into(), "why");
        let lines = lines.lock().unwrap();
        let [first, minutes @ .., last] = &lines[..] else { panic!("{lines:?}") };
        assert!(first.contains("refused a peer; more within a minute are counted peer=10.0.0.0:1 why=xxx"));
        assert_eq!(minutes.len(), 3, "as long as there are any: {minutes:?}");
        assert!(minutes[1].contains("peers=10.0.0.0 60 times, 10.0.0.1 60 times"), "{minutes:?}");
        assert!(minutes[1].contains("others 360 times last=xxx"), "{minutes:?}");
        assert!(last.ends_with("peer=10.0.0.1:7 why=why\n"), "after a quiet time at once: {last}");
    }
}
