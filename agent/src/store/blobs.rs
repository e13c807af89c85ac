//! The files in the router's RAM: blobs, named by their digest.
//!
//! A blob stays when the last job that used it has ended: a program that runs again, or one that resembles it, need not be
//! sent again. What must stay true: room is found before the first byte is received, and what is promised to one upload is
//! not promised to another; a blob that no job uses goes before anything is refused for want of its room, and before a job
//! is ended for it; the router has [`SPARE`] for itself while blobs stay; an [`Upload`]'s file goes with it, on every path.
//!
//! A blob is its controller's own. Nobody gets what somebody else has brought, so nobody can be given something else than
//! what he named, nor learn what others run.
//!
//! Files are written on the reactor's thread. tmpfs has no disk to wait for, a thread pool costs an agent 100 kB, and
//! with one thread no child can be forked while an executable is open for writing ("text file busy",
//! golang.org/issue/22315): std's spawn returns only when the child has executed, and so closed what it inherited.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use hop_proto::identity::Fingerprint;
use ring::digest::{Context, SHA256};
use rustix::fs::StatVfsMountFlags;
use tokio::time::Instant;
use xxhash_rust::xxh32::Xxh32;

use crate::error::Error;
use crate::system::memory::{Memory, RESERVE};
use crate::system::resources;
use crate::system::runtime;

/// SHA-256 of a blob's content.
pub type Digest = [u8; 32];

/// Bytes of memory that are available while blobs stay which no job uses: twice what no program gets.
const SPARE: u64 = 2 * RESERVE;

/// The part of the router's memory that such blobs take at most: one of this many.
const CACHE_FRACTION: u64 = 4;

/// How many of them there are at most: each costs some 2 kB beside its content, an inode and its entry.
const MAX_EVICTABLE: usize = 64;

/// How long a blob stays that nobody uses.
const KEEP_TIME: Duration = Duration::from_secs(60 * 60);

/// Between two looks at the memory, and at the time, while no job runs and blobs are kept. A look costs 0.2 ms of such a CPU.
const POLL_INTERVAL: Duration = Duration::from_secs(30);

/// The blobs of this agent.
pub struct Store {
    directory: PathBuf,
    quota: Option<u64>,
    accounting: Mutex<Accounting>,
    /// What else can go when memory runs short.
    others: OnceLock<Arc<dyn Reclaim>>,
}

/// Memory that can be had for the asking, though somebody may miss what is in it.
pub trait Reclaim: Send + Sync {
    /// Bytes of it.
    fn bytes(&self) -> u64;

    /// Gives up the oldest part; gives how many bytes it was, 0 if there is none.
    fn give_up_oldest(&self) -> u64;
}

/// What is kept and what is promised.
#[derive(Default)]
struct Accounting {
    blobs: Vec<Kept>,
    /// Bytes of all blobs and of all uploads at their full size.
    kept: u64,
    /// Of these, bytes that have not arrived yet.
    promised: u64,
    /// Inodes that are promised to jobs whose files are not all there yet.
    reserved_inodes: u64,
    uploads: u64,
    /// Somebody looks from time to time whether what nobody uses must go.
    is_watched: bool,
}

/// A blob that can be found.
struct Kept {
    digest: Digest,
    owner: Fingerprint,
    blob: Arc<Blob>,
    /// When it was last seen in use.
    used: Instant,
}

impl Kept {
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.blob) > 1
    }
}

impl Accounting {
    /// Blobs that no job uses.
    fn evictable(&self) -> impl Iterator<Item = &Kept> {
        self.blobs.iter().filter(|kept| !kept.is_used())
    }

    /// Bytes of them.
    fn evictable_bytes(&self) -> u64 {
        self.evictable().map(|kept| kept.blob.size).sum()
    }

    /// Takes out the one of them that has not been used for longest. It is to be dropped when the lock is free again.
    fn take_oldest(&mut self) -> Option<Kept> {
        let oldest = self.evictable().min_by_key(|kept| kept.used)?;
        let index = self.blobs.iter().position(|kept| Arc::ptr_eq(&kept.blob, &oldest.blob))?;
        Some(self.blobs.swap_remove(index))
    }
}

impl Store {
    /// Keeps blobs in `directory`, which must be there and empty.
    pub fn new(directory: PathBuf, quota: Option<u64>) -> Arc<Self> {
        Arc::new(Self { directory, quota, accounting: Mutex::default(), others: OnceLock::new() })
    }

    /// Lets `others` go when blobs that nobody uses do not do.
    pub fn reclaim_from(&self, others: Arc<dyn Reclaim>) {
        // There is one agent in a process, which says so once.
        let _ = self.others.set(others);
    }

    /// Bytes of memory that can be had beside that of blobs.
    fn reclaimable(&self) -> u64 {
        self.others.get().map_or(0, |others| others.bytes())
    }

    /// Lets go of all that can be had beside blobs; gives how many bytes that was.
    pub fn reclaim(&self) -> u64 {
        let mut bytes = 0;
        while let Some(given_up @ 1..) = self.others.get().map(|others| others.give_up_oldest()) {
            bytes += given_up;
        }
        bytes
    }

    /// Where the blobs are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Bytes that a next blob may have, by the file system and the quota, when what nobody uses is gone.
    ///
    /// # Errors
    /// The file system does not answer.
    pub fn free(&self) -> Result<u64, Error> {
        let evictable = self.evictable();
        Ok(match self.room()? {
            // Nothing but the memory sets a limit.
            u64::MAX => {
                let freed = evictable + self.reclaimable();
                read_memory()?.spare_without(self.accounting().promised, freed)
            }
            room => room + evictable,
        })
    }

    /// Bytes of blobs that no job uses.
    pub fn evictable(&self) -> u64 {
        self.accounting().evictable_bytes()
    }

    /// Bytes of memory that a program which starts now may have beside its file, when what nobody uses is gone.
    ///
    /// # Errors
    /// /proc is not mounted, or [`Error::NoPromise`]: it could not even start.
    pub fn spare_memory(&self) -> Result<u64, Error> {
        let memory = read_memory()?;
        memory.check_start()?;
        let accounting = self.accounting();
        Ok(memory.spare_without(accounting.promised, accounting.evictable_bytes()))
    }

    /// Bytes that a next blob may have, by what has a size.
    fn room(&self) -> Result<u64, Error> {
        let disk = self.file_system()?;
        let accounting = self.accounting();
        // ramfs has no size, and says 0 blocks of everything (DD-WRT's /tmp): there the memory alone decides.
        let by_file_system = match disk.f_blocks {
            0 => u64::MAX,
            _ => (disk.f_bavail * disk.f_frsize).saturating_sub(accounting.promised),
        };
        let by_quota = self.quota.map_or(u64::MAX, |quota| quota.saturating_sub(accounting.kept));
        Ok(by_file_system.min(by_quota))
    }

    /// False where the file system is mounted noexec.
    ///
    /// # Errors
    /// The file system does not answer.
    pub fn is_executable(&self) -> Result<bool, Error> {
        Ok(!self.file_system()?.f_flag.contains(StatVfsMountFlags::NOEXEC))
    }

    /// The blob with this digest that `owner` has brought, if it is still there, and as it was. It stays as long as somebody
    /// holds it.
    pub fn get(&self, digest: &Digest, owner: Fingerprint) -> Option<Arc<Blob>> {
        let mut accounting = self.accounting();
        let index = accounting.blobs.iter().position(|kept| kept.digest == *digest && kept.owner == owner)?;
        if !accounting.blobs[index].blob.is_untouched() {
            let touched = accounting.blobs.swap_remove(index);
            // A blob that is dropped updates the accounting.
            drop(accounting);
            drop(touched);
            return None;
        }
        let kept = &mut accounting.blobs[index];
        kept.used = Instant::now();
        Some(kept.blob.clone())
    }

    /// Reserves space for a blob and opens the file that will receive it. What nobody uses goes for it, if that will do.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::NoMemory`] or [`Error::NoPromise`] with the figures, [`Error::Io`] if the file cannot be made.
    pub fn upload(self: &Arc<Self>, digest: Digest, size: u64, owner: Fingerprint) -> Result<Upload, Error> {
        self.make_room(size)?;
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

    /// Reserves space and inodes for what is no blob, as long as the reservation is kept. What nobody uses goes for it, if that
    /// will do.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::NoMemory`], [`Error::NoPromise`] or [`Error::NoInodes`] with the figures.
    pub fn reserve(self: &Arc<Self>, size: u64, inodes: u64) -> Result<Reservation, Error> {
        self.make_room(size)?;
        self.make_inodes(inodes)?;
        let mut accounting = self.accounting();
        accounting.promised += size;
        accounting.reserved_inodes += inodes;
        drop(accounting);
        Ok(Reservation { store: self.clone(), size, inodes })
    }

    /// Inodes that a job may have, those of blobs that nobody uses not counted.
    ///
    /// # Errors
    /// The file system does not answer.
    pub fn spare_inodes(&self) -> Result<u64, Error> {
        let promised = self.accounting().reserved_inodes;
        Ok(resources::inodes(&self.directory)?.map_or(u64::MAX, |inodes| inodes.spare(promised)))
    }

    /// Lets go of what nobody uses until the file system can have so many files more.
    fn make_inodes(&self, needed: u64) -> Result<(), Error> {
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

    /// Lets go of what nobody uses until there is room for so many bytes; then of what jobs that have ended keep in memory.
    fn make_room(&self, size: u64) -> Result<(), Error> {
        while let Some(refusal) = self.refusal(size)? {
            let evictable = self.evictable();
            let (most, is_for_memory) = match refusal {
                Error::NoSpace { available, .. } | Error::NoPromise { available, .. } => {
                    (available + evictable, false)
                }
                Error::NoMemory { available, .. } => (available + evictable + self.reclaimable(), true),
                _ => (0, false),
            };
            let give_up_oldest = || self.others.get().is_some_and(|others| others.give_up_oldest() > 0);
            if size > most || !(self.evict_oldest() || is_for_memory && give_up_oldest()) {
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// Why there is no room for a blob of this size now, if there is none.
    fn refusal(&self, size: u64) -> Result<Option<Error>, Error> {
        let free = self.room()?;
        if size > free {
            let directory = self.directory.clone();
            return Ok(Some(Error::NoSpace { needed: size, available: free, directory }));
        }
        Ok(read_memory()?.admit(size, self.accounting().promised).err())
    }

    /// What `from` has brought is from now on what `to` has brought.
    pub fn transfer(&self, from: Fingerprint, to: Fingerprint) {
        for kept in self.accounting().blobs.iter_mut().filter(|kept| kept.owner == from) {
            kept.owner = to;
        }
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

    fn file_system(&self) -> Result<rustix::fs::StatVfs, Error> {
        rustix::fs::statvfs(&self.directory)
            .map_err(|error| Error::io("look at", &self.directory)(error.into()))
    }

    fn accounting(&self) -> MutexGuard<'_, Accounting> {
        // Nothing panics while it holds the accounting; in the agent a panic aborts anyway.
        self.accounting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room that is promised and not yet used.
pub struct Reservation {
    store: Arc<Store>,
    size: u64,
    inodes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut accounting = self.store.accounting();
        accounting.promised -= self.size;
        accounting.reserved_inodes -= self.inodes;
    }
}

/// How it is found out that a blob is what was announced.
enum Check {
    /// By its name. SHA-256 takes 60 instructions a byte of a MIPS CPU, more than all else that is done for the byte.
    Digest(Context),
    /// By a checksum, against mistakes: TLS has seen to it that this came from its owner, who can only deceive himself.
    Sum(Xxh32, u32),
}

/// A blob that is on its way.
pub struct Upload {
    store: Arc<Store>,
    digest: Digest,
    size: u64,
    owner: Fingerprint,
    received: u64,
    file: File,
    check: Check,
    path: PathBuf,
    /// The file and its room now belong to a [`Blob`].
    is_blob: bool,
}

impl Upload {
    /// Bytes received so far: where the next ones belong.
    pub fn offset(&self) -> u64 {
        self.received
    }

    /// The digest that it was announced with.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The key of the controller that brings it.
    pub fn owner(&self) -> Fingerprint {
        self.owner
    }

    /// Bytes that were announced.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// True when all announced bytes are here.
    pub fn is_complete(&self) -> bool {
        self.received == self.size
    }

    /// True when all announced bytes are here and are what was announced.
    pub fn is_correct(&self) -> bool {
        self.is_complete()
            && match &self.check {
                Check::Digest(context) => context.clone().finish().as_ref() == self.digest,
                Check::Sum(sum, expected) => sum.digest() == *expected,
            }
    }

    /// Forgets what was received, and keeps the room.
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

    /// What comes now, from its first byte on, comes from its owner and has this checksum.
    pub fn expect(&mut self, checksum: u32) {
        debug_assert_eq!(self.received, 0, "nothing has gone into another check");
        self.check = Check::Sum(Xxh32::new(0), checksum);
    }

    /// Adds the next bytes.
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
        // Another job has brought the same meanwhile: once is enough.
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

/// A file whose content is what its owner calls by its digest.
pub struct Blob {
    store: Arc<Store>,
    path: PathBuf,
    size: u64,
    /// When the agent wrote it. A program that is root may have written to it since.
    modified: SystemTime,
}

impl Blob {
    fn is_untouched(&self) -> bool {
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

    fn owner(digit: char) -> Fingerprint {
        format!("SHA256:{}", digit.to_string().repeat(64)).parse().unwrap()
    }

    /// A blob that `owner` brings.
    fn bring(store: &Arc<Store>, content: &[u8], owner: Fingerprint) -> Arc<Blob> {
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
    fn a_blob_stays_for_its_owner_until_its_room_is_needed() {
        let (dir, store) = store(10);
        let (one, other) = (owner('1'), owner('2'));
        drop(bring(&store, b"hello", one));
        drop(bring(&store, b"world", one));
        assert_eq!((files(&dir), store.evictable(), store.free().unwrap()), (2, 10, 10));
        assert!(store.get(&digest_of(b"hello"), other).is_none(), "it is not another one's");
        let hello = store.get(&digest_of(b"hello"), one).unwrap();
        assert_eq!((store.evictable(), store.free().unwrap()), (5, 5));
        // Too large for what could go, so nothing goes.
        assert!(matches!(store.upload([1; 32], 6, one), Err(Error::NoSpace { needed: 6, available: 0, .. })));
        assert!(store.get(&digest_of(b"world"), one).is_some());
        let upload = store.upload([1; 32], 5, one).unwrap();
        assert!(store.get(&digest_of(b"world"), one).is_none(), "its room was needed");
        drop((upload, hello));
        assert_eq!((files(&dir), store.evictable()), (1, 5));
        assert_eq!((store.evict_all(), files(&dir), store.free().unwrap()), (5, 0, 10));
    }

    #[test]
    fn the_blob_that_was_not_used_for_longest_goes_first() {
        let (_dir, store) = store(15);
        let one = owner('1');
        for content in [b"first", b"secnd", b"third"] {
            drop(bring(&store, content, one));
        }
        drop(store.get(&digest_of(b"first"), one));
        drop(bring(&store, b"forth", one));
        let is_there = |content: &[u8]| store.get(&digest_of(content), one).is_some();
        assert!(is_there(b"first") && !is_there(b"secnd") && is_there(b"third") && is_there(b"forth"));
    }

    #[test]
    fn a_blob_that_somebody_wrote_to_is_not_given_out() {
        let (dir, store) = store(10);
        drop(bring(&store, b"hello", owner('1')));
        let path = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        fs::write(&path, b"hello!").unwrap();
        assert!(store.get(&digest_of(b"hello"), owner('1')).is_none());
        assert_eq!((files(&dir), store.free().unwrap()), (0, 10));
    }

    #[test]
    fn what_two_bring_at_the_same_time_is_there_once() {
        let (dir, store) = store(20);
        let mut uploads = [(); 2].map(|()| store.upload(digest_of(b"hello"), 5, owner('1')).unwrap());
        uploads.iter_mut().for_each(|upload| upload.write(0, b"hello").unwrap());
        let blobs = uploads.map(|upload| upload.finish().unwrap());
        assert!(Arc::ptr_eq(&blobs[0], &blobs[1]));
        assert_eq!((files(&dir), store.free().unwrap()), (1, 15));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_uses_for_an_hour_goes() {
        let (dir, store) = store(100);
        let used = bring(&store, b"world", owner('1'));
        drop(bring(&store, b"hello", owner('1')));
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
        // An hour is counted from its last use.
        drop(used);
        tokio::time::sleep(KEEP_TIME - POLL_INTERVAL).await;
        assert_eq!(files(&dir), 1);
        tokio::time::sleep(3 * POLL_INTERVAL).await;
        assert_eq!(files(&dir), 0);
    }

    #[tokio::test]
    async fn of_small_ones_only_so_many_stay() {
        let (dir, store) = store(1 << 20);
        for number in 0..=MAX_EVICTABLE {
            drop(bring(&store, number.to_string().as_bytes(), owner('1')));
        }
        store.trim();
        // Or fewer, if this machine has less memory to spare than a router.
        assert!(files(&dir) <= MAX_EVICTABLE);
        assert!(store.get(&digest_of(b"0"), owner('1')).is_none(), "the first one goes");
    }

    #[test]
    fn a_checksum_tells_what_its_owner_did_not_send() {
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
    fn another_digest_than_announced_leaves_nothing() {
        let (dir, store) = store(100);
        let mut upload = store.upload(digest_of(b"hello"), 5, owner('1')).unwrap();
        upload.write(0, b"jello").unwrap();
        assert!(matches!(upload.finish(), Err(Error::DigestMismatch)));
        assert_eq!((files(&dir), store.free().unwrap()), (0, 100));
    }

    #[test]
    fn room_that_is_promised_is_not_promised_again() {
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
    fn more_bytes_than_announced_and_bytes_from_elsewhere_are_refused() {
        let (_dir, store) = store(100);
        let mut upload = store.upload([1; 32], 3, owner('1')).unwrap();
        assert!(matches!(upload.write(0, b"four"), Err(Error::Protocol(_))));
        assert!(matches!(upload.write(1, b"x"), Err(Error::Protocol(_))));
        upload.write(0, b"abc").unwrap();
        assert!(matches!(upload.write(3, b"x"), Err(Error::Protocol(_))));
    }
}
