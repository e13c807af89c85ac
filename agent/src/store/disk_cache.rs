//! The disk cache (`--cache-dir`) keeps blobs across reboots, on a USB stick or an SD card.
//!
//! A blob belongs to its controller here, too. Its file name depends on both, so another controller that knows a
//! digest, but does not have the program, gets nothing, and cannot even learn whether the cache has the blob.
//!
//! Such media are slow, corrupt data, hang, and get unplugged, so the agent runs nothing from there: it copies a blob
//! into the store, and verifies it on the way, before it runs.
//!
//! **Invariants:** if the disk cache fails in any way, jobs run as if there were none; it fills its medium by no more
//! than 7/8; and the agent keeps serving while it copies.
//!
//! Each copy has a thread of its own. A thread that waits for a medium that hangs cannot be cancelled, so the agent
//! leaves it behind, and starts no other copy before that thread has returned. Tokio's thread pool is not used, because
//! it panics if it cannot start a thread. The store's guarantee against "text file busy" holds: the reactor's thread
//! writes to the store what comes from the disk cache, and the agent never executes a file that another thread writes
//! in the disk cache.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use hop_proto::identity::Fingerprint;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::store::blob::{Blob, Digest};
use crate::store::error::Error;
use crate::store::medium::file_name;
use crate::store::upload::Upload;

/// Bytes that a copy transfers before it checks again whether it has been cancelled. A copy takes at most three times
/// as much memory in addition to its thread: for the chunk that it reads, the one in the channel, and the one that it
/// writes.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// A medium that delivers nothing for this long counts as hanging. A disk in standby spins up faster.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);

/// How often to check whether a copy has been cancelled while the medium delivers nothing.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long a stopping agent waits for a copy to be cancelled. It does not wait longer for a medium that hangs.
const GIVING_UP_LIMIT: Duration = Duration::from_secs(1);

/// The name of a blob's file: the SHA-256 of its owner and its digest.
pub(super) type FileName = [u8; 32];

/// Returns true when a copy is cancelled, because nobody needs it any more.
pub type Cancelled = Box<dyn Fn() -> bool + Send>;

/// The chunks of a file in order, then an empty one at its end.
pub(super) type Chunks = mpsc::Sender<Vec<u8>>;

/// Blobs in a directory on a medium that may be absent.
pub struct DiskCache {
    pub(super) directory: PathBuf,
    /// Permits one write at a time, because a blob stays in RAM until it is written.
    keeping: Arc<Semaphore>,
    state: Mutex<State>,
    /// Copies into the store that the agent has left behind. A reference is dead when the copy's thread has returned.
    hanging: Mutex<Vec<Weak<()>>>,
}

#[derive(Default)]
pub(super) struct State {
    /// The directory was not usable at the last attempt, and the log says why.
    pub(super) is_away: bool,
    /// Blobs that a thread is copying into the store.
    pub(super) in_use: Vec<FileName>,
}

impl DiskCache {
    /// A cache in `directory`. Removes the files that an earlier agent has left incomplete, now or when the directory
    /// appears.
    pub fn new(directory: PathBuf) -> Arc<Self> {
        let cache = Arc::new(Self {
            directory,
            keeping: Arc::new(Semaphore::new(1)),
            state: Mutex::default(),
            hanging: Mutex::default(),
        });
        if let Ok(permit) = cache.keeping.clone().try_acquire_owned() {
            let sweeping = cache.clone();
            let sweep = move || {
                // `open` has logged why the directory is not usable.
                if sweeping.open().is_some()
                    && let Err(error) = sweeping.sweep()
                {
                    tracing::warn!(%error, "cannot tidy the disk cache");
                }
                drop(permit);
            };
            if let Err(error) = in_a_thread(Box::new(sweep)) {
                tracing::warn!(%error, "cannot tidy the disk cache");
            }
        }
        cache
    }

    /// Fills an empty upload from the disk cache. Returns it complete and correct, or still empty if the disk cache
    /// does not have the blob, has it corrupted, delivers nothing for [`SILENCE_LIMIT`], or if `is_cancelled` becomes
    /// true.
    ///
    /// # Errors
    /// [`Error::Io`] if the agent cannot empty the upload again.
    pub async fn get(
        self: &Arc<Self>,
        mut upload: Box<Upload>,
        is_cancelled: Cancelled,
    ) -> Result<Box<Upload>, Error> {
        if self.hangs() {
            return Ok(upload);
        }
        let (send, mut chunks) = mpsc::channel(1);
        let (answer, is_valid) = oneshot::channel();
        let alive = Arc::new(());
        let life = Arc::downgrade(&alive);
        let (cache, size) = (self.clone(), upload.size());
        let name = file_name(&upload.digest(), &upload.owner());
        let take = move || {
            cache.take(name, size, &send, is_valid);
            // Dropping these shows the agent that the copy is over.
            drop((alive, send));
        };
        if let Err(error) = in_a_thread(Box::new(take)) {
            tracing::warn!(%error, "cannot copy a program from the disk cache");
            return Ok(upload);
        }
        let mut answer = Some(answer);
        let mut heard = Instant::now();
        let is_over = loop {
            let chunk: Option<Vec<u8>> = tokio::select! {
                chunk = chunks.recv() => chunk,
                () = tokio::time::sleep(POLL_INTERVAL) => {
                    if is_cancelled() {
                        break false;
                    }
                    if heard.elapsed() < SILENCE_LIMIT {
                        continue;
                    }
                    tracing::warn!("the disk cache hangs; jobs continue without it");
                    break false;
                }
            };
            heard = Instant::now();
            match chunk {
                // The file is complete.
                Some(chunk) if chunk.is_empty() => {
                    let is_correct = upload.is_correct();
                    // Fails if the thread has ended, and then nothing is left to be done there.
                    let _ = answer.take().map(|answer| answer.send(is_correct));
                }
                Some(chunk) => {
                    if let Err(error) = upload.write(upload.offset(), &chunk) {
                        tracing::warn!(%error, "cannot copy a program from the disk cache");
                        break false;
                    }
                }
                // The thread has ended.
                None => break true,
            }
            if is_cancelled() {
                break false;
            }
        };
        if !is_over {
            self.hanging().push(life);
        }
        if !upload.is_correct() {
            upload.restart()?;
        }
        Ok(upload)
    }

    /// True while a copy that the agent has left behind has not returned.
    fn hangs(&self) -> bool {
        let mut hanging = self.hanging();
        hanging.retain(|life| life.strong_count() > 0);
        !hanging.is_empty()
    }

    /// Copies a blob from the disk cache, if the cache has it. Runs in a thread.
    fn take(&self, name: FileName, size: u64, chunks: &Chunks, is_valid: oneshot::Receiver<bool>) {
        if self.open().is_none() {
            return;
        }
        self.state().in_use.push(name);
        let copied = self.copy_in(&name, size, chunks, is_valid);
        let mut state = self.state();
        if let Some(index) = state.in_use.iter().position(|used| *used == name) {
            state.in_use.swap_remove(index);
        }
        drop(state);
        if let Err(error) = copied {
            tracing::warn!(%error, "cannot copy a program from the disk cache");
        }
    }

    /// Starts to write a blob of `owner` to the disk cache, or records that it is used if the cache has it. Writes
    /// nothing if another write is in progress, if the blob cannot fit, or once `is_cancelled` returns true.
    pub fn put(
        self: &Arc<Self>,
        blob: Arc<Blob>,
        digest: Digest,
        owner: Fingerprint,
        is_cancelled: Cancelled,
    ) {
        let Ok(permit) = self.keeping.clone().try_acquire_owned() else {
            tracing::info!("program not written to the disk cache: another one is being written");
            return;
        };
        let cache = self.clone();
        let name = file_name(&digest, &owner);
        let keep = move || {
            if cache.open().is_some()
                && !cache.touch(&name, blob.size())
                && let Err(error) = cache.copy_out(&blob, &digest, &name, &is_cancelled)
            {
                tracing::warn!(%error, "cannot write a program to the disk cache");
            }
            // The blob first, so that the next holder of the permit finds no trace of it.
            drop(blob);
            drop(permit);
        };
        if let Err(error) = in_a_thread(Box::new(keep)) {
            tracing::warn!(%error, "cannot write a program to the disk cache");
        }
    }

    /// Waits until the write in progress is finished or cancelled, for [`GIVING_UP_LIMIT`] at most.
    pub async fn idle(&self) {
        let _ = tokio::time::timeout(GIVING_UP_LIMIT, self.keeping.acquire()).await;
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hanging(&self) -> MutexGuard<'_, Vec<Weak<()>>> {
        self.hanging.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_a_thread(work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    thread::Builder::new().name("disk-cache".to_owned()).spawn(work).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use ring::digest::SHA256;

    use super::*;
    use crate::store::blobs::Store;
    use crate::store::medium::name_of;

    const CONTENT: &[u8] = b"a program";

    fn owner() -> Fingerprint {
        format!("SHA256:{}", "0".repeat(64)).parse().unwrap()
    }

    struct Bench {
        dir: tempfile::TempDir,
        store: Arc<Store>,
        digest: Digest,
    }

    impl Bench {
        fn new() -> Self {
            // /tmp may be a tmpfs, where no cache can be.
            let dir = tempfile::tempdir_in("/var/tmp").unwrap();
            for name in ["ram", "disk-cache"] {
                fs::create_dir(dir.path().join(name)).unwrap();
            }
            let store = Store::new(dir.path().join("ram"), Some(1 << 20));
            let digest = ring::digest::digest(&SHA256, CONTENT).as_ref().try_into().unwrap();
            Self { dir, store, digest }
        }

        fn directory(&self) -> PathBuf {
            self.dir.path().join("disk-cache")
        }

        fn name(&self) -> FileName {
            file_name(&self.digest, &owner())
        }

        fn cache(&self) -> Arc<DiskCache> {
            DiskCache::new(self.directory())
        }

        fn upload(&self) -> Box<Upload> {
            Box::new(self.store.upload(self.digest, CONTENT.len() as u64, owner()).unwrap())
        }

        async fn keep(&self, cache: &Arc<DiskCache>) {
            drop(cache.keeping.acquire().await.unwrap());
            let mut upload = self.upload();
            upload.write(0, CONTENT).unwrap();
            cache.put(upload.finish().unwrap(), self.digest, owner(), Box::new(|| false));
            drop(cache.keeping.acquire().await.unwrap());
        }

        async fn is_fetched(&self, cache: &Arc<DiskCache>) -> bool {
            let upload = cache.get(self.upload(), Box::new(|| false)).await.unwrap();
            assert_eq!(upload.offset(), if upload.is_complete() { CONTENT.len() as u64 } else { 0 });
            assert!(cache.state().in_use.is_empty());
            upload.is_correct()
        }

        fn files(&self) -> Vec<PathBuf> {
            fs::read_dir(self.directory()).unwrap().map(|entry| entry.unwrap().path()).collect()
        }
    }

    #[tokio::test]
    async fn cached_blobs_survive_without_using_ram() {
        let bench = Bench::new();
        let cache = bench.cache();
        assert!(!bench.is_fetched(&cache).await);
        bench.keep(&cache).await;
        assert_eq!(bench.files(), [cache.path(&bench.name())]);
        assert_eq!(bench.store.evict_all(), CONTENT.len() as u64);
        assert!(bench.is_fetched(&bench.cache()).await, "also after a restart");
    }

    #[tokio::test]
    async fn only_owners_find_their_blobs() {
        let bench = Bench::new();
        let cache = bench.cache();
        bench.keep(&cache).await;
        let other = format!("SHA256:{}", "1".repeat(64)).parse().unwrap();
        let upload = bench.store.upload(bench.digest, CONTENT.len() as u64, other).unwrap();
        let upload = cache.get(Box::new(upload), Box::new(|| false)).await.unwrap();
        assert_eq!(upload.offset(), 0, "the digest alone gives no access");
        assert!(bench.is_fetched(&cache).await);
    }

    #[tokio::test]
    async fn corrupt_cache_files_are_removed() {
        let bench = Bench::new();
        let cache = bench.cache();
        for wrong in [&b"a pr0gram"[..], b"a prog", b""] {
            bench.keep(&cache).await;
            fs::write(cache.path(&bench.name()), wrong).unwrap();
            let mut upload = cache.get(bench.upload(), Box::new(|| false)).await.unwrap();
            assert_eq!(bench.files(), Vec::<PathBuf>::new());
            upload.write(0, CONTENT).unwrap();
            assert!(upload.is_correct());
        }
        symlink("/etc/passwd", cache.path(&bench.name())).unwrap();
        assert!(!bench.is_fetched(&cache).await, "a link is not followed");
    }

    #[tokio::test]
    async fn removable_medium_is_used_while_present() {
        let bench = Bench::new();
        fs::remove_dir(bench.directory()).unwrap();
        let cache = bench.cache();
        bench.keep(&cache).await;
        assert!(
            !bench.is_fetched(&cache).await && !bench.directory().exists(),
            "the agent does not create it"
        );
        fs::create_dir(bench.directory()).unwrap();
        bench.keep(&cache).await;
        assert!(bench.is_fetched(&cache).await);
        let elsewhere = bench.dir.path().join("pulled");
        fs::rename(bench.directory(), &elsewhere).unwrap();
        assert!(!bench.is_fetched(&cache).await);
        symlink(&elsewhere, bench.directory()).unwrap();
        assert!(!bench.is_fetched(&cache).await, "a link is not followed");
        fs::remove_file(bench.directory()).unwrap();
        fs::rename(&elsewhere, bench.directory()).unwrap();
        assert!(bench.is_fetched(&cache).await);
        fs::set_permissions(bench.directory(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(!bench.is_fetched(&cache).await, "others could write to it");
    }

    #[test]
    fn tmpfs_is_refused_as_disk_cache() {
        // Where /dev/shm exists, it is a tmpfs.
        if let Ok(dir) = tempfile::tempdir_in("/dev/shm") {
            let refused = DiskCache::new(dir.path().to_owned()).try_open().unwrap_err();
            assert_eq!(refused, "it is in RAM, which does not survive a reboot");
        }
    }

    #[tokio::test]
    async fn unfinished_cache_files_are_removed() {
        let bench = Bench::new();
        let part = bench.directory().join(format!("{}.part", "0a".repeat(32)));
        let others = ["notes.part", "photo.jpg"].map(|name| bench.directory().join(name));
        fs::write(&part, "half").unwrap();
        for other in &others {
            fs::write(other, "theirs").unwrap();
        }
        let cache = bench.cache();
        drop(cache.keeping.acquire().await.unwrap());
        assert!(!part.exists() && others.iter().all(|other| other.exists()));
        assert!(cache.evictable().unwrap().is_empty());
    }

    #[tokio::test]
    async fn cancelled_copy_leaves_no_file() {
        let bench = Bench::new();
        let cache = bench.cache();
        drop(cache.keeping.acquire().await.unwrap());
        let mut upload = bench.upload();
        upload.write(0, CONTENT).unwrap();
        cache.put(upload.finish().unwrap(), bench.digest, owner(), Box::new(|| true));
        cache.idle().await;
        assert_eq!(bench.files(), Vec::<PathBuf>::new());
    }

    #[tokio::test(start_paused = true)]
    #[allow(clippy::await_holding_lock)]
    async fn hanging_medium_is_skipped() {
        let bench = Bench::new();
        let cache = bench.cache();
        bench.keep(&cache).await;
        // The copying thread waits for this lock, as it would for a medium that hangs.
        let medium = cache.state();
        let since = Instant::now();
        let upload = cache.get(bench.upload(), Box::new(|| false)).await.unwrap();
        assert!(upload.offset() == 0 && since.elapsed() >= SILENCE_LIMIT && cache.hangs());
        let upload = cache.get(bench.upload(), Box::new(|| panic!("it is not even tried"))).await.unwrap();
        assert_eq!(upload.offset(), 0);
        cache.hanging().clear();
        let since = Instant::now();
        let upload = cache.get(bench.upload(), Box::new(|| true)).await.unwrap();
        assert!(upload.offset() == 0 && since.elapsed() < SILENCE_LIMIT, "no job waits for it any more");
        drop(medium);
        tokio::time::resume();
        let since = Instant::now();
        while cache.hangs() {
            assert!(since.elapsed() < Duration::from_secs(60));
            thread::yield_now();
        }
        assert!(bench.is_fetched(&cache).await);
    }

    #[tokio::test]
    async fn blob_being_copied_is_not_evicted() {
        let bench = Bench::new();
        let cache = bench.cache();
        bench.keep(&cache).await;
        assert_eq!(cache.evictable().unwrap().len(), 1);
        cache.state().in_use.push(bench.name());
        assert!(cache.evictable().unwrap().is_empty());
    }

    #[tokio::test]
    async fn changed_program_is_not_cached() {
        let bench = Bench::new();
        let cache = bench.cache();
        drop(cache.keeping.acquire().await.unwrap());
        let mut upload = bench.upload();
        upload.write(0, CONTENT).unwrap();
        let blob = upload.finish().unwrap();
        let name = bench.dir.path().join("running");
        blob.link_to(&name).unwrap();
        fs::write(&name, "another").unwrap();
        cache.put(blob, bench.digest, owner(), Box::new(|| false));
        drop(cache.keeping.acquire().await.unwrap());
        assert_eq!(bench.files(), Vec::<PathBuf>::new());
    }

    #[test]
    fn only_digests_are_file_names() {
        let digits = "0a".repeat(32);
        let named = |name: &str| name_of(Path::new(name));
        assert_eq!(named(&digits), Some([10; 32]));
        assert_eq!(named(&format!("/mnt/{digits}.part")), Some([10; 32]));
        for wrong in ["", "0a", &digits[1..], &format!("{digits}0"), &"0g".repeat(32)] {
            assert_eq!(named(wrong), None, "{wrong}");
        }
    }
}
