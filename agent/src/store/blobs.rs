//! The blobs in the router's RAM, named by their digests.
//!
//! A blob stays in the store after the last job that used it has ended. So the controller need not upload a program
//! again that runs again, and uploads only a delta of one that resembles it.
//!
//! **Invariants:** the store reserves space before it receives the first byte, and promises no space to two uploads; it
//! evicts an unused blob before it refuses a request that could have its space, and before the OOM guard kills a job
//! for it; while it keeps unused blobs, the router has twice the reserve; and an [`Upload`] that does not become a blob
//! deletes its file, on every path.
//!
//! A blob belongs to its controller. No controller gets a blob that another one uploaded, so none can be given another
//! program than the one that it named, or learn what others run.
//!
//! The reactor's thread writes the files. tmpfs has no disk to wait for, and a thread pool costs an agent 100 kB. With
//! one thread, no child can be forked while an executable is open for writing ("text file busy",
//! golang.org/issue/22315): std's spawn returns only when the child has called execve, and so has closed the
//! descriptors that it inherited.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hop_proto::identity::Fingerprint;
use ring::digest::{Context, SHA256};
use rustix::fs::StatVfsMountFlags;
use tokio::time::Instant;

use crate::store::accounting::{Accounting, Reservation};
use crate::store::blob::{Blob, Digest};
use crate::store::error::Error;
use crate::store::upload::{Check, Upload};
use crate::system::memory::Memory;
use crate::system::resources;

/// The blobs of this agent.
pub struct Store {
    pub(super) directory: PathBuf,
    pub(super) quota: Option<u64>,
    pub(super) accounting: Mutex<Accounting>,
    /// Other memory that the agent can reclaim when it runs short.
    pub(super) others: OnceLock<Arc<dyn Reclaim>>,
}

/// Memory that the agent can reclaim at any time, although a controller may miss its content.
pub trait Reclaim: Send + Sync {
    /// Number of bytes that can be reclaimed.
    fn bytes(&self) -> u64;

    /// Discards the oldest part. Returns how many bytes it had; 0 if nothing is left.
    fn discard_oldest(&self) -> u64;
}

impl Store {
    /// Creates a store in `directory`, which must exist and be empty.
    pub fn new(directory: PathBuf, quota: Option<u64>) -> Arc<Self> {
        Arc::new(Self { directory, quota, accounting: Mutex::default(), others: OnceLock::new() })
    }

    /// Reclaims from `others` when evicting unused blobs does not free enough.
    pub fn reclaim_from(&self, others: Arc<dyn Reclaim>) {
        // Called once, because a process has one agent.
        let _ = self.others.set(others);
    }

    /// Bytes of memory that can be reclaimed in addition to unused blobs.
    pub(super) fn reclaimable(&self) -> u64 {
        self.others.get().map_or(0, |others| others.bytes())
    }

    /// Reclaims everything except blobs. Returns how many bytes that freed.
    pub fn reclaim(&self) -> u64 {
        let mut bytes = 0;
        while let Some(discarded @ 1..) = self.others.get().map(|others| others.discard_oldest()) {
            bytes += discarded;
        }
        bytes
    }

    /// The directory that holds the blobs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Bytes that the next blob may have once unused blobs are evicted, by the file system and the quota, or else by
    /// the memory.
    ///
    /// # Errors
    /// The file system does not answer.
    pub fn free(&self) -> Result<u64, Error> {
        let evictable = self.evictable();
        Ok(match self.available()? {
            // Only the memory sets a limit.
            u64::MAX => {
                let freed = evictable + self.reclaimable();
                read_memory()?.spare_without(self.accounting().promised, freed)
            }
            available => available + evictable,
        })
    }

    /// Bytes of blobs that no job uses.
    pub fn evictable(&self) -> u64 {
        self.accounting().evictable_bytes()
    }

    /// Bytes of memory that a program starting now may have in addition to its file, once unused blobs are evicted.
    ///
    /// # Errors
    /// /proc is not mounted, or [`Error::NoPromise`] if the program could not even start.
    pub fn spare_memory(&self) -> Result<u64, Error> {
        let memory = read_memory()?;
        memory.check_start()?;
        let accounting = self.accounting();
        Ok(memory.spare_without(accounting.promised, accounting.evictable_bytes()))
    }

    /// Bytes that the next blob may have by the sizes of the file system and the quota; `u64::MAX` if neither is
    /// limited.
    fn available(&self) -> Result<u64, Error> {
        let disk = self.file_system()?;
        let accounting = self.accounting();
        // ramfs has no size, and reports 0 blocks of everything (DD-WRT's /tmp): only the memory sets a limit there.
        let by_file_system = match disk.f_blocks {
            0 => u64::MAX,
            _ => (disk.f_bavail * disk.f_frsize).saturating_sub(accounting.promised),
        };
        let by_quota = self.quota.map_or(u64::MAX, |quota| quota.saturating_sub(accounting.kept));
        Ok(by_file_system.min(by_quota))
    }

    /// False if the file system is mounted noexec.
    ///
    /// # Errors
    /// The file system does not answer.
    pub fn is_executable(&self) -> Result<bool, Error> {
        Ok(!self.file_system()?.f_flag.contains(StatVfsMountFlags::NOEXEC))
    }

    /// The blob with this digest that `owner` has uploaded, if it is still in the store and unmodified. It stays in the
    /// store as long as a reference to it exists.
    pub fn get(&self, digest: &Digest, owner: Fingerprint) -> Option<Arc<Blob>> {
        let mut accounting = self.accounting();
        let index = accounting.blobs.iter().position(|kept| kept.digest == *digest && kept.owner == owner)?;
        let blob = &accounting.blobs[index].blob;
        if !blob.is_untouched() || blob.restore().is_err() {
            let touched = accounting.blobs.swap_remove(index);
            // Dropping a blob locks the accounting to update it.
            drop(accounting);
            drop(touched);
            return None;
        }
        let kept = &mut accounting.blobs[index];
        kept.used = Instant::now();
        Some(kept.blob.clone())
    }

    /// Reserves space for a blob, and opens the file that will receive it. Evicts unused blobs if that frees enough.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::NoMemory`] or [`Error::NoPromise`] with the amounts, [`Error::Io`] if the file
    /// cannot be created.
    pub fn upload(self: &Arc<Self>, digest: Digest, size: u64, owner: Fingerprint) -> Result<Upload, Error> {
        self.free_space(size)?;
        let path = {
            let mut accounting = self.accounting();
            accounting.uploads += 1;
            self.directory.join(format!("upload-{}", accounting.uploads))
        };
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o700)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        let mut accounting = self.accounting();
        accounting.kept += size;
        accounting.promised += size;
        drop(accounting);
        let check = Check::Digest(Context::new(&SHA256));
        Ok(Upload {
            store: self.clone(),
            digest,
            size,
            owner,
            received: 0,
            file,
            check,
            path,
            is_blob: false,
        })
    }

    /// Reserves space and inodes for something other than a blob, until the reservation is dropped. Evicts unused blobs
    /// if that frees enough.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::NoMemory`], [`Error::NoPromise`] or [`Error::NoInodes`] with the amounts.
    pub fn reserve(self: &Arc<Self>, size: u64, inodes: u64) -> Result<Reservation, Error> {
        self.free_space(size)?;
        self.free_inodes(inodes)?;
        let mut accounting = self.accounting();
        accounting.promised += size;
        accounting.reserved_inodes += inodes;
        drop(accounting);
        Ok(Reservation { store: self.clone(), size, inodes })
    }

    /// Inodes that a job may have, not counting those of unused blobs.
    ///
    /// # Errors
    /// The file system does not answer.
    pub fn spare_inodes(&self) -> Result<u64, Error> {
        let promised = self.accounting().reserved_inodes;
        Ok(resources::inodes(&self.directory)?.map_or(u64::MAX, |inodes| inodes.spare(promised)))
    }

    /// The reason why a blob of this size does not fit now, if there is one.
    pub(super) fn refusal(&self, size: u64) -> Result<Option<Error>, Error> {
        let free = self.available()?;
        if size > free {
            let directory = self.directory.clone();
            return Ok(Some(Error::NoSpace { needed: size, available: free, directory }));
        }
        Ok(read_memory()?.admit(size, self.accounting().promised).err().map(Error::from))
    }

    /// Makes `to` the owner of all blobs of `from`.
    pub fn transfer(&self, from: Fingerprint, to: Fingerprint) {
        for kept in self.accounting().blobs.iter_mut().filter(|kept| kept.owner == from) {
            kept.owner = to;
        }
    }

    fn file_system(&self) -> Result<rustix::fs::StatVfs, Error> {
        rustix::fs::statvfs(&self.directory)
            .map_err(|error| Error::io("look at", &self.directory)(error.into()))
    }

    pub(super) fn accounting(&self) -> MutexGuard<'_, Accounting> {
        // Nothing panics while it holds the accounting; in the agent a panic aborts anyway.
        self.accounting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_memory() -> Result<Memory, Error> {
    Memory::read().map_err(Error::io("read", Path::new("/proc/meminfo")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::store::blob::MODE;
    use crate::store::eviction::{KEEP_TIME, MAX_EVICTABLE, POLL_INTERVAL};

    fn digest_of(content: &[u8]) -> Digest {
        ring::digest::digest(&SHA256, content).as_ref().try_into().unwrap()
    }

    fn owner(digit: char) -> Fingerprint {
        format!("SHA256:{}", digit.to_string().repeat(64)).parse().unwrap()
    }

    /// Uploads a blob for `owner`.
    fn upload_for(store: &Arc<Store>, content: &[u8], owner: Fingerprint) -> Arc<Blob> {
        let mut upload = store.upload(digest_of(content), content.len() as u64, owner).unwrap();
        upload.write(0, content).unwrap();
        upload.finish().unwrap()
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
    fn blobs_stay_until_space_is_needed() {
        let (dir, store) = store(10);
        let (one, other) = (owner('1'), owner('2'));
        drop(upload_for(&store, b"hello", one));
        drop(upload_for(&store, b"world", one));
        assert_eq!((files(&dir), store.evictable(), store.free().unwrap()), (2, 10, 10));
        assert!(store.get(&digest_of(b"hello"), other).is_none(), "it belongs to its owner alone");
        let hello = store.get(&digest_of(b"hello"), one).unwrap();
        assert_eq!((store.evictable(), store.free().unwrap()), (5, 5));
        // Too large even if the unused blob is evicted, so the store evicts nothing.
        assert!(matches!(store.upload([1; 32], 6, one), Err(Error::NoSpace { needed: 6, available: 0, .. })));
        assert!(store.get(&digest_of(b"world"), one).is_some());
        let upload = store.upload([1; 32], 5, one).unwrap();
        assert!(store.get(&digest_of(b"world"), one).is_none(), "its space was needed");
        drop((upload, hello));
        assert_eq!((files(&dir), store.evictable()), (1, 5));
        assert_eq!((store.evict_all(), files(&dir), store.free().unwrap()), (5, 0, 10));
    }

    #[test]
    fn least_recently_used_blob_goes_first() {
        let (_dir, store) = store(15);
        let one = owner('1');
        for content in [b"first", b"secnd", b"third"] {
            drop(upload_for(&store, content, one));
        }
        drop(store.get(&digest_of(b"first"), one));
        drop(upload_for(&store, b"forth", one));
        let is_there = |content: &[u8]| store.get(&digest_of(content), one).is_some();
        assert!(is_there(b"first") && !is_there(b"secnd") && is_there(b"third") && is_there(b"forth"));
    }

    #[test]
    fn modified_blobs_are_not_given_out() {
        let (dir, store) = store(10);
        drop(upload_for(&store, b"hello", owner('1')));
        let path = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        fs::write(&path, b"hello!").unwrap();
        assert!(store.get(&digest_of(b"hello"), owner('1')).is_none());
        assert_eq!((files(&dir), store.free().unwrap()), (0, 10));
    }

    #[test]
    fn changed_modes_of_blobs_are_restored() {
        let (dir, store) = store(10);
        drop(upload_for(&store, b"hello", owner('1')));
        let path = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        for changed in [0, 0o4777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(changed)).unwrap();
            let blob = store.get(&digest_of(b"hello"), owner('1')).unwrap();
            assert_eq!(mode(), MODE);
            // While a job waits for the rest of its blobs, another one may change this one.
            fs::set_permissions(&path, fs::Permissions::from_mode(changed)).unwrap();
            blob.link_to(&dir.path().join(changed.to_string())).unwrap();
            assert_eq!(mode(), MODE);
        }
    }

    #[test]
    fn simultaneous_uploads_are_stored_once() {
        let (dir, store) = store(20);
        let mut uploads = [(); 2].map(|()| store.upload(digest_of(b"hello"), 5, owner('1')).unwrap());
        uploads.iter_mut().for_each(|upload| upload.write(0, b"hello").unwrap());
        let blobs = uploads.map(|upload| upload.finish().unwrap());
        assert!(Arc::ptr_eq(&blobs[0], &blobs[1]));
        assert_eq!((files(&dir), store.free().unwrap()), (1, 15));
    }

    #[tokio::test(start_paused = true)]
    async fn unused_blobs_go_after_an_hour() {
        let (dir, store) = store(100);
        let used = upload_for(&store, b"world", owner('1'));
        drop(upload_for(&store, b"hello", owner('1')));
        store.trim();
        if store.evictable() == 0 {
            // This machine has less memory to spare than a router.
            return;
        }
        tokio::time::sleep(KEEP_TIME - POLL_INTERVAL).await;
        assert_eq!(files(&dir), 2);
        tokio::time::sleep(2 * POLL_INTERVAL).await;
        assert_eq!(files(&dir), 1);
        assert!(store.get(&digest_of(b"world"), owner('1')).is_some(), "the one that is used stays");
        // The hour is counted from the last use.
        drop(used);
        tokio::time::sleep(KEEP_TIME - POLL_INTERVAL).await;
        assert_eq!(files(&dir), 1);
        tokio::time::sleep(3 * POLL_INTERVAL).await;
        assert_eq!(files(&dir), 0);
    }

    #[tokio::test]
    async fn number_of_unused_blobs_is_bounded() {
        let (dir, store) = store(1 << 20);
        for number in 0..=MAX_EVICTABLE {
            drop(upload_for(&store, number.to_string().as_bytes(), owner('1')));
        }
        store.trim();
        // Or fewer, if this machine has less memory to spare than a router.
        assert!(files(&dir) <= MAX_EVICTABLE);
        assert!(store.get(&digest_of(b"0"), owner('1')).is_none(), "the first one goes");
    }

    #[test]
    fn wrong_checksum_refuses_blob() {
        let (dir, store) = store(100);
        for (content, is_right) in [(b"hello", true), (b"jello", false)] {
            let mut upload = store.upload(digest_of(b"hello"), 5, owner('1')).unwrap();
            upload.expect(xxhash_rust::xxh32::xxh32(b"hello", 0));
            upload.write(0, content).unwrap();
            assert_eq!(upload.is_correct(), is_right);
        }
        assert_eq!((files(&dir), store.free().unwrap()), (0, 100));
    }

    #[test]
    fn wrong_digest_leaves_no_file() {
        let (dir, store) = store(100);
        let mut upload = store.upload(digest_of(b"hello"), 5, owner('1')).unwrap();
        upload.write(0, b"jello").unwrap();
        assert!(matches!(upload.finish(), Err(Error::DigestMismatch)));
        assert_eq!((files(&dir), store.free().unwrap()), (0, 100));
    }

    #[test]
    fn reserved_space_is_not_reserved_twice() {
        let (dir, store) = store(100);
        let first = store.upload([1; 32], 60, owner('1')).unwrap();
        match store.upload([2; 32], 60, owner('1')) {
            Err(Error::NoSpace { needed, available, .. }) => assert_eq!((needed, available), (60, 40)),
            _ => panic!("60 and 60 do not fit into 100"),
        }
        drop(first);
        assert!(store.upload([2; 32], 60, owner('1')).is_ok());
        assert_eq!((files(&dir), store.free().unwrap()), (0, 100));
    }

    #[test]
    fn misplaced_and_surplus_bytes_are_refused() {
        let (_dir, store) = store(100);
        let mut upload = store.upload([1; 32], 3, owner('1')).unwrap();
        assert!(matches!(upload.write(0, b"four"), Err(Error::Protocol(_))));
        assert!(matches!(upload.write(1, b"x"), Err(Error::Protocol(_))));
        upload.write(0, b"abc").unwrap();
        assert!(matches!(upload.write(3, b"x"), Err(Error::Protocol(_))));
    }
}
