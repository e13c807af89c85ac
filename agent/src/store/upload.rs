//! Uploads: blobs that a controller sends, or that the disk cache delivers, to the store.
//!
//! **Invariants:** the store reserves the bytes of an upload before the first one arrives; an upload becomes a blob
//! only if its content is the announced one; and on every other path, dropping it deletes its file.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;

use hop_proto::identity::Fingerprint;
use ring::digest::{Context, SHA256};
use tokio::time::Instant;
use xxhash_rust::xxh32::Xxh32;

use crate::store::accounting::Kept;
use crate::store::blob::{Blob, Digest, remove};
use crate::store::blobs::Store;
use crate::store::error::Error;

/// How the agent verifies the content of an upload.
pub(super) enum Check {
    /// By its digest. SHA-256 takes a MIPS CPU 60 instructions per byte, more than everything else that the agent does
    /// for it.
    Digest(Context),
    /// By a checksum, against accidental corruption: TLS guarantees that the content comes from its owner, who could
    /// deceive nobody else.
    Sum(Xxh32, u32),
}

/// A blob whose content is still arriving.
pub struct Upload {
    pub(super) store: Arc<Store>,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) owner: Fingerprint,
    pub(super) received: u64,
    pub(super) file: File,
    pub(super) check: Check,
    pub(super) path: PathBuf,
    /// The file and its space now belong to a [`Blob`].
    pub(super) is_blob: bool,
}

impl Upload {
    /// Bytes received so far, which is the offset of the next ones.
    pub fn offset(&self) -> u64 {
        self.received
    }

    /// The announced digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The key of the controller that owns the upload.
    pub fn owner(&self) -> Fingerprint {
        self.owner
    }

    /// The announced size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// True when all announced bytes have arrived.
    pub fn is_complete(&self) -> bool {
        self.received == self.size
    }

    /// True when all announced bytes have arrived, and have the announced digest or checksum.
    pub fn is_correct(&self) -> bool {
        self.is_complete()
            && match &self.check {
                Check::Digest(context) => context.clone().finish().as_ref() == self.digest,
                Check::Sum(sum, expected) => sum.digest() == *expected,
            }
    }

    /// Discards the received bytes, and keeps the reservation.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn restart(&mut self) -> Result<(), Error> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(Error::io("empty", &self.path))?;
        self.store.accounting().promised += self.received;
        self.received = 0;
        self.check = Check::Digest(Context::new(&SHA256));
        Ok(())
    }

    /// Verifies the content by this checksum instead of the digest. The whole content must come from the owner.
    pub fn expect(&mut self, checksum: u32) {
        debug_assert_eq!(self.received, 0, "nothing has gone into another check");
        self.check = Check::Sum(Xxh32::new(0), checksum);
    }

    /// Appends the next bytes.
    ///
    /// # Errors
    /// [`Error::Protocol`] for bytes from elsewhere or beyond the announced size, [`Error::NoSpace`] if the file system
    /// is full in spite of the reservation (another process filled it).
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Error> {
        if offset != self.received {
            return Err(Error::Protocol("a blob chunk does not begin where the last one ended"));
        }
        if data.len() as u64 > self.size - self.received {
            return Err(Error::Protocol("a blob is longer than announced"));
        }
        self.file.write_all(data).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull => Error::NoSpace {
                needed: self.size - self.received,
                available: 0,
                directory: self.store.directory.clone(),
            },
            _ => Error::io("write", &self.path)(error),
        })?;
        match &mut self.check {
            Check::Digest(context) => context.update(data),
            Check::Sum(sum, _) => sum.update(data),
        }
        self.received += data.len() as u64;
        self.store.accounting().promised -= data.len() as u64;
        Ok(())
    }

    /// Makes the complete upload a blob.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`], [`Error::Io`]; the file is gone then.
    pub fn finish(mut self) -> Result<Arc<Blob>, Error> {
        if !self.is_correct() {
            return Err(Error::DigestMismatch);
        }
        // Another job has uploaded this blob meanwhile: keep only that one.
        if let Some(blob) = self.store.get(&self.digest, self.owner) {
            return Ok(blob);
        }
        let written = self.file.metadata().and_then(|metadata| metadata.modified());
        let modified = written.map_err(Error::io("look at", &self.path))?;
        self.is_blob = true;
        let (store, path) = (self.store.clone(), self.path.clone());
        let blob = Arc::new(Blob { store, path, size: self.size, modified });
        self.store.accounting().blobs.push(Kept {
            digest: self.digest,
            owner: self.owner,
            blob: blob.clone(),
            used: Instant::now(),
        });
        Ok(blob)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.is_blob {
            let mut accounting = self.store.accounting();
            accounting.promised -= self.size - self.received;
            accounting.kept -= self.size;
            drop(accounting);
            remove(&self.path);
        }
    }
}
