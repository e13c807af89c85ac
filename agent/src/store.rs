//! The files in the router's RAM: blobs, named by their digest.
//!
//! What must stay true: room is found before the first byte is received, and what is promised to one upload is not
//! promised to another; a blob exists only when its content has the digest that names it; a file goes when the last
//! [`Blob`] or the [`Upload`] that stands for it goes, on every path.
//!
//! Files are written on the reactor's thread. tmpfs has no disk to wait for, a thread pool costs an agent 100 kB, and
//! with one thread no child can be forked while an executable is open for writing ("text file busy",
//! golang.org/issue/22315): std's spawn returns only when the child has executed, and so closed what it inherited.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ring::digest::{Context, SHA256};
use rustix::fs::StatVfsMountFlags;

use crate::error::Error;
use crate::memory::Memory;

/// SHA-256 of a blob's content.
pub type Digest = [u8; 32];

/// The blobs of this agent.
pub struct Store {
    directory: PathBuf,
    quota: Option<u64>,
    ledger: Mutex<Ledger>,
}

/// What is kept and what is promised.
#[derive(Default)]
struct Ledger {
    /// As many as there can be jobs, and those that are on their way to the shelf.
    blobs: Vec<(Digest, Weak<Blob>)>,
    /// Bytes of all blobs and of all uploads at their full size.
    kept: u64,
    /// Of these, bytes that have not arrived yet.
    promised: u64,
    uploads: u64,
}

impl Store {
    /// Keeps blobs in `directory`, which must be there and empty.
    pub fn new(directory: PathBuf, quota: Option<u64>) -> Arc<Self> {
        Arc::new(Self { directory, quota, ledger: Mutex::default() })
    }

    /// Where the blobs are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Bytes that a next blob may have, by the file system and the quota.
    ///
    /// # Errors
    /// The file system does not answer.
    pub fn free(&self) -> Result<u64, Error> {
        Ok(match self.room()? {
            // Nothing but the memory sets a limit.
            u64::MAX => read_memory()?.spare(self.ledger().promised),
            room => room,
        })
    }

    /// Bytes of memory that a program may have beside its file.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub fn spare_memory(&self) -> Result<u64, Error> {
        Ok(read_memory()?.spare(self.ledger().promised))
    }

    /// Bytes that a next blob may have, by what has a size.
    fn room(&self) -> Result<u64, Error> {
        let disk = self.file_system()?;
        let ledger = self.ledger();
        // ramfs has no size, and says 0 blocks of everything (DD-WRT's /tmp): there the memory alone decides.
        let by_file_system = match disk.f_blocks {
            0 => u64::MAX,
            _ => (disk.f_bavail * disk.f_frsize).saturating_sub(ledger.promised),
        };
        let by_quota = self.quota.map_or(u64::MAX, |quota| quota.saturating_sub(ledger.kept));
        Ok(by_file_system.min(by_quota))
    }

    /// False where the file system is mounted noexec.
    ///
    /// # Errors
    /// The file system does not answer.
    pub fn is_executable(&self) -> Result<bool, Error> {
        Ok(!self.file_system()?.f_flag.contains(StatVfsMountFlags::NOEXEC))
    }

    /// The blob with this digest, if some job holds it.
    pub fn get(&self, digest: &Digest) -> Option<Arc<Blob>> {
        self.ledger().blobs.iter().rev().find(|(known, _)| known == digest)?.1.upgrade()
    }

    /// Promises room for a blob and opens the file that will receive it.
    ///
    /// # Errors
    /// [`Error::NoSpace`] or [`Error::NoMemory`] with the figures, [`Error::Io`] if the file cannot be made.
    pub fn upload(self: &Arc<Self>, digest: Digest, size: u64) -> Result<Upload, Error> {
        let free = self.room()?;
        if size > free {
            return Err(Error::NoSpace { needed: size, available: free, directory: self.directory.clone() });
        }
        let memory = read_memory()?;
        let path = {
            let mut ledger = self.ledger();
            memory.admit(size, ledger.promised)?;
            ledger.uploads += 1;
            self.directory.join(format!("upload-{}", ledger.uploads))
        };
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o700)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        let mut ledger = self.ledger();
        ledger.kept += size;
        ledger.promised += size;
        drop(ledger);
        let hash = Context::new(&SHA256);
        Ok(Upload { store: self.clone(), digest, size, received: 0, file, hash, path, is_blob: false })
    }

    fn file_system(&self) -> Result<rustix::fs::StatVfs, Error> {
        rustix::fs::statvfs(&self.directory)
            .map_err(|error| Error::io("look at", &self.directory)(error.into()))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Nothing panics while it holds the ledger; in the agent a panic aborts anyway.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A blob that is on its way.
pub struct Upload {
    store: Arc<Store>,
    digest: Digest,
    size: u64,
    received: u64,
    file: File,
    hash: Context,
    path: PathBuf,
    /// The file and its room now belong to a [`Blob`].
    is_blob: bool,
}

impl Upload {
    /// Bytes received so far: where the next chunk begins.
    pub fn offset(&self) -> u64 {
        self.received
    }

    /// The digest that it was announced with.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes that were announced.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// True when all announced bytes are here.
    pub fn is_complete(&self) -> bool {
        self.received == self.size
    }

    /// True when all announced bytes are here and have the announced digest.
    pub fn is_correct(&self) -> bool {
        self.is_complete() && self.hash.clone().finish().as_ref() == self.digest
    }

    /// Forgets what was received, and keeps the room.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn restart(&mut self) -> Result<(), Error> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(Error::io("empty", &self.path))?;
        self.store.ledger().promised += self.received;
        self.received = 0;
        self.hash = Context::new(&SHA256);
        Ok(())
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    /// [`Error::Protocol`] for bytes from elsewhere or beyond the announced size, [`Error::NoSpace`] if the file system
    /// is full in spite of the promise (another process filled it).
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
        self.hash.update(data);
        self.received += data.len() as u64;
        self.store.ledger().promised -= data.len() as u64;
        Ok(())
    }

    /// Makes the complete upload a blob.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`]; the file is gone then.
    pub fn finish(mut self) -> Result<Arc<Blob>, Error> {
        if !self.is_correct() {
            return Err(Error::DigestMismatch);
        }
        self.is_blob = true;
        let (store, path) = (self.store.clone(), self.path.clone());
        let blob = Arc::new(Blob { store, path, size: self.size });
        // Where two jobs brought the same content at the same time, both files live and the later one is found.
        self.store.ledger().blobs.push((self.digest, Arc::downgrade(&blob)));
        Ok(blob)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.is_blob {
            let mut ledger = self.store.ledger();
            ledger.promised -= self.size - self.received;
            ledger.kept -= self.size;
            drop(ledger);
            remove(&self.path);
        }
    }
}

/// A file whose content has the digest that it was asked for by.
pub struct Blob {
    store: Arc<Store>,
    path: PathBuf,
    size: u64,
}

impl Blob {
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
        let mut ledger = self.store.ledger();
        ledger.kept -= self.size;
        ledger.blobs.retain(|(_, blob)| blob.strong_count() > 0);
        drop(ledger);
        remove(&self.path);
    }
}

fn read_memory() -> Result<Memory, Error> {
    Memory::read().map_err(Error::io("read", Path::new("/proc/meminfo")))
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::error!(path = %path.display(), %error, "cannot remove a file of the store");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn digest_of(content: &[u8]) -> Digest {
        ring::digest::digest(&SHA256, content).as_ref().try_into().unwrap()
    }

    fn store(quota: u64) -> (tempfile::TempDir, Arc<Store>) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().to_owned(), Some(quota));
        (dir, store)
    }

    fn files(dir: &tempfile::TempDir) -> usize {
        fs::read_dir(dir.path()).unwrap().count()
    }

    #[test]
    fn a_blob_lives_as_long_as_somebody_holds_it() {
        let (dir, store) = store(100);
        let mut upload = store.upload(digest_of(b"hello"), 5).unwrap();
        upload.write(0, b"he").unwrap();
        upload.write(2, b"llo").unwrap();
        let blob = upload.finish().unwrap();
        assert_eq!(store.free().unwrap(), 95);
        let again = store.get(&digest_of(b"hello")).unwrap();
        drop(blob);
        assert_eq!(files(&dir), 1);
        drop(again);
        assert_eq!(files(&dir), 0);
        assert!(store.get(&digest_of(b"hello")).is_none());
        assert_eq!(store.free().unwrap(), 100);
    }

    #[test]
    fn another_digest_than_announced_leaves_nothing() {
        let (dir, store) = store(100);
        let mut upload = store.upload(digest_of(b"hello"), 5).unwrap();
        upload.write(0, b"jello").unwrap();
        assert!(matches!(upload.finish(), Err(Error::DigestMismatch)));
        assert_eq!((files(&dir), store.free().unwrap()), (0, 100));
    }

    #[test]
    fn room_that_is_promised_is_not_promised_again() {
        let (dir, store) = store(100);
        let first = store.upload([1; 32], 60).unwrap();
        match store.upload([2; 32], 60) {
            Err(Error::NoSpace { needed, available, .. }) => assert_eq!((needed, available), (60, 40)),
            _ => panic!("60 and 60 do not fit into 100"),
        }
        drop(first);
        assert!(store.upload([2; 32], 60).is_ok());
        assert_eq!((files(&dir), store.free().unwrap()), (0, 100));
    }

    #[test]
    fn more_bytes_than_announced_and_bytes_from_elsewhere_are_refused() {
        let (_dir, store) = store(100);
        let mut upload = store.upload([1; 32], 3).unwrap();
        assert!(matches!(upload.write(0, b"four"), Err(Error::Protocol(_))));
        assert!(matches!(upload.write(1, b"x"), Err(Error::Protocol(_))));
        upload.write(0, b"abc").unwrap();
        assert!(matches!(upload.write(3, b"x"), Err(Error::Protocol(_))));
    }
}
