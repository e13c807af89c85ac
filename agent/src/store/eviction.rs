//! Evicts blobs that no job uses: to make space for others, to leave memory to the router, or because they are old.
//!
//! **Invariants:** the store evicts the least recently used blob first, and never one that a job uses. It evicts
//! nothing for a request that it would have to refuse even so.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::store::accounting::Kept;
use crate::store::blobs::Store;
use crate::store::error::Error;
use crate::system::error as system;
use crate::system::memory::{Memory, RESERVE};
use crate::system::runtime;

/// The store keeps unused blobs only while this many bytes of memory are available: twice the reserve that no program
/// gets.
const SPARE: u64 = 2 * RESERVE;

/// Fraction of the router's memory that unused blobs may take: one part in this many.
const CACHE_FRACTION: u64 = 4;

/// Most unused blobs: each takes some 2 kB in addition to its content, for an inode and its entry.
pub(super) const MAX_EVICTABLE: usize = 64;

/// How long the store keeps a blob after its last use.
pub(super) const KEEP_TIME: Duration = Duration::from_secs(60 * 60);

/// Polling interval of the memory and the age of blobs, while the store has any. A poll takes a router's CPU 0.2 ms.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(30);

impl Store {
    /// Evicts unused blobs until the file system has `needed` free inodes.
    pub(super) fn free_inodes(&self, needed: u64) -> Result<(), Error> {
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

    /// Evicts unused blobs until `size` bytes are free; then discards output of ended jobs.
    pub(super) fn free_space(&self, size: u64) -> Result<(), Error> {
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
            let discard_oldest = || self.others.get().is_some_and(|others| others.discard_oldest() > 0);
            if size > most || !(self.evict_oldest() || is_for_memory && discard_oldest()) {
                return Err(refusal);
            }
        }
        Ok(())
    }

    fn evict_oldest(&self) -> bool {
        // Drops the blob after it has released the lock, because dropping it updates the accounting.
        let oldest = self.accounting().take_oldest();
        oldest.is_some()
    }

    /// Evicts all unused blobs; returns the number of their bytes.
    pub fn evict_all(&self) -> u64 {
        let evictable = self.evictable();
        while self.evict_oldest() {}
        evictable
    }

    /// Enforces the limits on unused blobs, now and repeatedly as long as the store has blobs. Call it when a blob may
    /// have lost its last user.
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

    /// Evicts the blobs that are older than [`KEEP_TIME`], and the oldest ones while they are too many or the router
    /// has too little memory.
    fn trim_now(&self) {
        loop {
            // Without /proc the available memory is not known, and the store keeps nothing.
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
