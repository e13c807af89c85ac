//! A file of the store, and the name by which its controller calls it.
//!
//! **Invariants:** the file goes with the last [`Blob`] that stands for it, and its bytes are given back.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::store::blobs::Store;
use crate::store::error::Error;

/// SHA-256 of a blob's content.
pub type Digest = [u8; 32];

/// A file whose content is what its owner calls by its digest.
pub struct Blob {
    pub(super) store: Arc<Store>,
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// When the agent wrote it. A program that is root may have written to it since.
    pub(super) modified: SystemTime,
}

impl Blob {
    pub(super) fn is_untouched(&self) -> bool {
        let metadata = fs::metadata(&self.path);
        metadata.is_ok_and(|now| now.len() == self.size && now.modified().ok() == Some(self.modified))
    }

    /// Bytes of it.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Opens it for reading.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// Gives the blob a further name. It costs no memory: the name and the blob are one file (link(2)).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn link_to(&self, path: &Path) -> Result<(), Error> {
        fs::hard_link(&self.path, path).map_err(Error::io("create", path))
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        self.store.accounting().kept -= self.size;
        remove(&self.path);
    }
}

/// Removes a file of the store; says in the log if that fails.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::error!(path = %path.display(), %error, "cannot remove a file of the store");
    }
}
