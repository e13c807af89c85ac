//! What the store holds and what it has reserved, in bytes and inodes.
//!
//! **Invariants:** the figures are those of the files that there are and the reservations that live: each is added when its
//! owner is made, and taken off when that is dropped.

use std::sync::Arc;

use hop_proto::identity::Fingerprint;
use tokio::time::Instant;

use crate::store::blob::{Blob, Digest};
use crate::store::blobs::Store;

/// What is kept and what is promised.
#[derive(Default)]
pub(super) struct Accounting {
    pub(super) blobs: Vec<Kept>,
    /// Bytes of all blobs and of all uploads at their full size.
    pub(super) kept: u64,
    /// Of these, bytes that have not arrived yet.
    pub(super) promised: u64,
    /// Inodes that are promised to jobs whose files are not all there yet.
    pub(super) reserved_inodes: u64,
    pub(super) uploads: u64,
    /// Somebody looks from time to time whether what nobody uses must go.
    pub(super) is_watched: bool,
}

/// A blob that can be found.
pub(super) struct Kept {
    pub(super) digest: Digest,
    pub(super) owner: Fingerprint,
    pub(super) blob: Arc<Blob>,
    /// When it was last seen in use.
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

    /// Bytes of them.
    pub(super) fn evictable_bytes(&self) -> u64 {
        self.evictable().map(|kept| kept.blob.size).sum()
    }

    /// Takes out the one of them that has not been used for longest. It is to be dropped when the lock is free again.
    pub(super) fn take_oldest(&mut self) -> Option<Kept> {
        let oldest = self.evictable().min_by_key(|kept| kept.used)?;
        let index = self.blobs.iter().position(|kept| Arc::ptr_eq(&kept.blob, &oldest.blob))?;
        Some(self.blobs.swap_remove(index))
    }
}

/// Room that is promised and not yet used.
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
