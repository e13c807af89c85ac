//! The bytes and inodes that the store holds, and those that it has reserved.
//!
//! **Invariants:** the numbers are those of the existing blobs and uploads and of the live reservations: each is added
//! when its owner is created, and subtracted when that owner is dropped.

use std::sync::Arc;

use hop_proto::identity::Fingerprint;
use tokio::time::Instant;

use crate::store::blob::{Blob, Digest};
use crate::store::blobs::Store;

/// The blobs of the store, and the space that it has promised.
#[derive(Default)]
pub(super) struct Accounting {
    pub(super) blobs: Vec<Kept>,
    /// Bytes of all blobs and of all uploads at their full size.
    pub(super) kept: u64,
    /// Bytes that are reserved and have not arrived yet.
    pub(super) promised: u64,
    /// Inodes reserved for jobs whose files have not all been created yet.
    pub(super) reserved_inodes: u64,
    pub(super) uploads: u64,
    /// A task is running that trims unused blobs from time to time.
    pub(super) is_watched: bool,
}

/// A blob in the store, which its owner can find.
pub(super) struct Kept {
    pub(super) digest: Digest,
    pub(super) owner: Fingerprint,
    pub(super) blob: Arc<Blob>,
    /// When it was last seen in use by a job.
    pub(super) used: Instant,
}

impl Kept {
    pub(super) fn is_used(&self) -> bool {
        Arc::strong_count(&self.blob) > 1
    }
}

impl Accounting {
    /// Blobs that no job uses.
    pub(super) fn evictable(&self) -> impl Iterator<Item = &Kept> {
        self.blobs.iter().filter(|kept| !kept.is_used())
    }

    /// Bytes of all blobs that no job uses.
    pub(super) fn evictable_bytes(&self) -> u64 {
        self.evictable().map(|kept| kept.blob.size).sum()
    }

    /// Removes the least recently used of the blobs that no job uses. The caller drops it after it has released the
    /// lock.
    pub(super) fn take_oldest(&mut self) -> Option<Kept> {
        let oldest = self.evictable().min_by_key(|kept| kept.used)?;
        let index = self.blobs.iter().position(|kept| Arc::ptr_eq(&kept.blob, &oldest.blob))?;
        Some(self.blobs.swap_remove(index))
    }
}

/// Space and inodes that are reserved and not used yet. Dropping it releases them.
pub struct Reservation {
    pub(super) store: Arc<Store>,
    pub(super) size: u64,
    pub(super) inodes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut accounting = self.store.accounting();
        accounting.promised -= self.size;
        accounting.reserved_inodes -= self.inodes;
    }
}
