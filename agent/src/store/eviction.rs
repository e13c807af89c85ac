//! Which blobs go that no job uses, and when: for the space of others, for the router, or because they are old.
//!
//! **Invariants:** the least recently used goes first; a blob that a job uses stays; and nothing is evicted for a request that would
//! be refused all the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::store::accounting::Kept;
use crate::store::blobs::Store;
use crate::store::error::Error;
use crate::system::error as system;
use crate::system::memory::{Memory, RESERVE};
use crate::system::runtime;

/// Bytes of memory that are available while blobs stay which no job uses: twice what no program gets.
const SPARE: u64 = 2 * RESERVE;

/// The part of the router's memory that such blobs take at most: one of this many.
const CACHE_FRACTION: u64 = 4;

/// How many of them there are at most: each costs some 2 kB beside its content, an inode and its entry.
pub(super) const MAX_EVICTABLE: usize = 64;

/// How long a blob stays that nobody uses.
pub(super) const KEEP_TIME: Duration = Duration::from_secs(60 * 60);

/// Between two looks at the memory, and at the time, while no job runs and blobs are kept. A look costs 0.2 ms of such a CPU.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(30);

impl Store {
    /// Lets go of what nobody uses until the file system can have so many files more.
    pub(super) fn make_inodes(&self, needed: u64) -> Result<(), Error> {
        loop {
            let available = self.spare_inodes()?;
            if needed <= available {
                return Ok(());
            }
            let evictable = self.accounting().evictable().count() as u64;
            if needed > available + evictable || !self.evict_oldest() {
                return Err(Error::NoInodes { needed, available, directory: self.directory.clone() });
            }
        }
    }

    /// Lets go of what nobody uses until so many bytes are free; then of what jobs that have ended keep in memory.
    pub(super) fn make_room(&self, size: u64) -> Result<(), Error> {
        while let Some(refusal) = self.refusal(size)? {
            let evictable = self.evictable();
            let (most, is_for_memory) = match refusal {
                Error::NoSpace { available, .. }
                | Error::System(system::Error::NoPromise { available, .. }) => (available + evictable, false),
                Error::System(system::Error::NoMemory { available, .. }) => {
                    (available + evictable + self.reclaimable(), true)
                }
                _ => (0, false),
            };
            let give_up_oldest = || self.others.get().is_some_and(|others| others.give_up_oldest() > 0);
            if size > most || !(self.evict_oldest() || is_for_memory && give_up_oldest()) {
                return Err(refusal);
            }
        }
        Ok(())
    }

    fn evict_oldest(&self) -> bool {
        // Dropped when the lock is free: dropping it updates the accounting.
        let oldest = self.accounting().take_oldest();
        oldest.is_some()
    }

    /// Lets all blobs go that nobody uses; gives how many bytes they were.
    pub fn evict_all(&self) -> u64 {
        let evictable = self.evictable();
        while self.evict_oldest() {}
        evictable
    }

    /// A blob may have lost its last user: bounds what stays, now and as long as something stays.
    pub fn trim(self: &Arc<Self>) {
        self.trim_now();
        let mut accounting = self.accounting();
        if !accounting.blobs.is_empty() && !std::mem::replace(&mut accounting.is_watched, true) {
            runtime::spawn(self.clone().watch());
        }
    }

    async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            self.trim_now();
            let mut accounting = self.accounting();
            if accounting.blobs.is_empty() {
                accounting.is_watched = false;
                return;
            }
        }
    }

    /// Lets go of what nobody has used for long, and of the oldest while they are too many or the router has too little.
    fn trim_now(&self) {
        loop {
            // Without /proc nothing is known, and nothing is kept.
            let memory = Memory::read().unwrap_or_default();
            let mut accounting = self.accounting();
            let now = Instant::now();
            for kept in accounting.blobs.iter_mut().filter(|kept| kept.is_used()) {
                kept.used = now;
            }
            let is_old = |kept: &Kept| !kept.is_used() && now - kept.used >= KEEP_TIME;
            let must_go = accounting.evictable_bytes() > memory.total / CACHE_FRACTION
                || accounting.evictable().count() > MAX_EVICTABLE
                || memory.available < SPARE
                || accounting.blobs.iter().any(is_old);
            if !must_go {
                return;
            }
            let oldest = accounting.take_oldest();
            drop(accounting);
            if oldest.is_none() {
                return;
            }
        }
    }
}
