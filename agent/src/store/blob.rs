//! A blob: a file of the store, which its owner names by its digest.
//!
//! **Invariants:** dropping the last reference to a [`Blob`] deletes its file and gives its bytes back.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::store::blobs::Store;
use crate::store::error::Error;

/// SHA-256 of a blob's content.
pub type Digest = [u8; 32];

/// Mode of a blob's file: everybody may execute it, where the directories let them pass.
pub(super) const MODE: u32 = 0o755;

/// A file that its owner names by the digest of its content.
pub struct Blob {
    pub(super) store: Arc<Store>,
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// Modification time when the agent wrote it. A program that runs as root may have written to it since.
    pub(super) modified: SystemTime,
}

impl Blob {
    pub(super) fn is_untouched(&self) -> bool {
        let metadata = fs::metadata(&self.path);
        metadata.is_ok_and(|now| now.len() == self.size && now.modified().ok() == Some(self.modified))
    }

    /// Gives the file its owner and mode back: a job's program is a hard link to it, of which a program that runs as
    /// root may change both.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn restore(&self) -> Result<(), Error> {
        let failed = || Error::io("restore", &self.path);
        let now = fs::metadata(&self.path).map_err(failed())?;
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        if (now.uid(), now.gid()) != (uid, gid) {
            chown(&self.path, Some(uid), Some(gid)).map_err(failed())?;
        }
        if now.mode() & 0o7777 != MODE {
            fs::set_permissions(&self.path, Permissions::from_mode(MODE)).map_err(failed())?;
        }
        Ok(())
    }

    /// Its size in bytes.
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

    /// Creates a further hard link to the file (link(2)), which takes no memory for content.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn link_to(&self, path: &Path) -> Result<(), Error> {
        self.restore()?;
        fs::hard_link(&self.path, path).map_err(Error::io("create", path))
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        self.store.accounting().kept -= self.size;
        remove(&self.path);
    }
}

/// Removes a file of the store, and logs an error if that fails.
pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::error!(path = %path.display(), %error, "cannot remove a file of the store");
    }
}
