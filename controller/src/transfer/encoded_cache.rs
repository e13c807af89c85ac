//! A cache of encoded blobs: a program for many routers, or for one whose tmpfs was emptied, is encoded once.
//!
//! **Invariants:** a missing or broken entry costs time, and is never an error; an entry is returned as it was stored, or not at
//! all; of several `hop` that want the same entry, one encodes, and the others wait no longer than they would need themselves; the
//! cache holds at most [`MAX_BYTES`].

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hop_proto::v1::Encoding;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use tokio::time::{Instant, sleep};

use super::blob_cache::{Digest, write};
use super::encode::Encoded;
use crate::config::file_lock::{self, POLL_INTERVAL};
use crate::config::home::make_private;

/// Bytes of all that is kept: a hundred programs.
const MAX_BYTES: u64 = 128 << 20;

/// How long to wait for another `hop` that packs the same: packing takes up to a second or two.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);

/// What is locked while something is packed: one of so many files, by what it is called.
const LOCKS: usize = 16;

/// Before what a blob is packed as: how, and the digest of the bytes.
const HEAD_BYTES: usize = 1 + SHA256_OUTPUT_LEN;

/// The cache of encoded blobs.
#[derive(Clone, Debug)]
pub struct EncodedCache {
    directory: PathBuf,
    timeout: Duration,
}

impl EncodedCache {
    /// What is kept in this directory, which need not be there.
    pub fn in_directory(directory: PathBuf) -> Self {
        Self { directory, timeout: LOCK_TIMEOUT }
    }

    /// What is kept under this name; or what `encode` makes, which may take its time, and is kept. The name says all that
    /// the result depends on. `base` is what it is against if it is a delta. `None` if `encode` panics.
    pub async fn find_or(
        &self,
        name: &str,
        base: Option<Digest>,
        encode: impl FnOnce() -> Encoded + Send + 'static,
    ) -> Option<Encoded> {
        let path = self.directory.join(name);
        if let Some(encoded) = read(&path, base) {
            return Some(encoded);
        }
        // Without a lock, everybody packs.
        let lock = self.lock(name).await.ok();
        if lock.is_some()
            && let Some(encoded) = read(&path, base)
        {
            return Some(encoded);
        }
        let kept = self.clone();
        let encoding = tokio::task::spawn_blocking(move || {
            let encoded = encode();
            // Without a delta to a base there may have been no time to find one, on a busy machine. Next time there is.
            if base.is_none() || encoded.is_delta() {
                // An error of a cache fails no command.
                let _ = kept.keep(&path, &encoded);
            }
            drop(lock);
            encoded
        });
        encoding.await.ok()
    }

    /// Waits until no process encodes the blob of this name.
    async fn lock(&self, name: &str) -> io::Result<File> {
        let number = usize::from(digest(&SHA256, name.as_bytes()).as_ref()[0]) % LOCKS;
        make_private(&self.directory).map_err(io::Error::other)?;
        let path = self.directory.join(format!("lock-{number}"));
        let deadline = Instant::now() + self.timeout;
        loop {
            match file_lock::take(&path)? {
                Some(lock) => return Ok(lock),
                None if Instant::now() < deadline => sleep(POLL_INTERVAL).await,
                None => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    fn keep(&self, path: &Path, encoded: &Encoded) -> io::Result<()> {
        // As it is, there was nothing to do.
        if matches!(encoded.encoding, Encoding::Unspecified | Encoding::Identity) {
            return Ok(());
        }
        let mut content = Vec::with_capacity(HEAD_BYTES + encoded.bytes.len());
        content.push(encoded.encoding as u8);
        content.extend_from_slice(digest(&SHA256, &encoded.bytes).as_ref());
        content.extend_from_slice(&encoded.bytes);
        write(path, &content)?;
        self.trim(MAX_BYTES)
    }

    /// Evicts the least recently used files until the rest takes at most `most` bytes.
    fn trim(&self, most: u64) -> io::Result<()> {
        let mut all: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            all.push((metadata.modified()?, metadata.len(), entry.path()));
        }
        all.sort_by_key(|(used, ..)| std::cmp::Reverse(*used));
        let mut bytes = 0;
        for (_, length, path) in all {
            bytes += length;
            // A lock is empty, and stays.
            if bytes > most && length > 0 {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// The content of a cached file, if it exists and is undamaged.
fn read(path: &Path, base: Option<Digest>) -> Option<Encoded> {
    let content = Bytes::from(fs::read(path).ok()?);
    let encoding = Encoding::try_from(i32::from(*content.first()?)).ok()?;
    let (head, bytes) = (content.get(1..HEAD_BYTES)?, content.slice(HEAD_BYTES..));
    if digest(&SHA256, &bytes).as_ref() != head {
        return None;
    }
    // The one that is used last goes last.
    let _ = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
    let encoded = Encoded { encoding, base, bytes };
    Some(if encoded.is_delta() { encoded } else { Encoded { base: None, ..encoded } })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    fn blobs(directory: &Path) -> EncodedCache {
        EncodedCache { directory: directory.to_owned(), timeout: Duration::from_secs(600) }
    }

    fn encoded(text: &str) -> Encoded {
        Encoded { encoding: Encoding::Lz4, base: None, bytes: text.to_owned().into() }
    }

    async fn find(blobs: &EncodedCache, name: &str) -> Option<String> {
        let found = blobs.find_or(name, None, || encoded("packed again")).await.unwrap();
        let text = String::from_utf8(found.bytes.to_vec()).unwrap();
        (text != "packed again").then_some(text)
    }

    #[tokio::test]
    async fn concurrent_commands_encode_once() {
        let directory = tempfile::tempdir().unwrap();
        let encodings = Arc::new(AtomicUsize::new(0));
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (blobs, encodings) = (blobs(directory.path()), encodings.clone());
            all.spawn(async move {
                let encode = move || {
                    encodings.fetch_add(1, Relaxed);
                    encoded("once")
                };
                blobs.find_or("program", None, encode).await.unwrap().bytes
            });
        }
        assert!(all.join_all().await.iter().all(|bytes| bytes == "once"));
        assert_eq!(encodings.load(Relaxed), 1);
    }

    #[tokio::test]
    async fn lock_timeout_encodes_anyway() {
        let directory = tempfile::tempdir().unwrap();
        let stuck = blobs(directory.path());
        let _lock = stuck.lock("program").await.unwrap();
        let hasty = EncodedCache { timeout: Duration::ZERO, ..stuck.clone() };
        assert_eq!(hasty.find_or("program", None, || encoded("own")).await.unwrap().bytes, "own");
    }

    #[tokio::test]
    async fn cached_encoding_is_returned() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = blobs(directory.path());
        for (name, encoding) in [("delta", Encoding::Delta), ("relocated", Encoding::RelocatedDelta)] {
            let delta = Encoded { encoding, base: Some([7; 32]), bytes: "delta".into() };
            let first = delta.clone();
            blobs.find_or(name, Some([7; 32]), || first).await.unwrap();
            let found = blobs.find_or(name, Some([7; 32]), || encoded("packed again")).await.unwrap();
            assert_eq!((found.encoding, found.base, found.bytes), (encoding, delta.base, delta.bytes));
        }
    }

    #[tokio::test]
    async fn missed_delta_is_not_cached() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = blobs(directory.path());
        blobs.find_or("delta", Some([7; 32]), || encoded("whole")).await.unwrap();
        let found = blobs.find_or("delta", Some([7; 32]), || encoded("packed again")).await.unwrap();
        assert_eq!(found.bytes, "packed again");
    }

    #[tokio::test]
    async fn damaged_cache_is_encoded_again() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = blobs(directory.path());
        let path = directory.path().join("program");
        let damages: [fn(&mut Vec<u8>); 3] =
            [|content| content[40] ^= 1, |content| content.truncate(20), Vec::clear];
        for damage in damages {
            blobs.keep(&path, &encoded("something longer than its head, and then some")).unwrap();
            let mut content = fs::read(&path).unwrap();
            damage(&mut content);
            fs::write(&path, content).unwrap();
            assert_eq!(find(&blobs, "program").await, None);
        }
    }

    #[tokio::test]
    async fn least_recently_used_is_evicted() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = blobs(directory.path());
        for (name, age) in [("first", 30), ("second", 20), ("third", 10)] {
            let path = directory.path().join(name);
            blobs.keep(&path, &encoded(name)).unwrap();
            File::open(path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        assert_eq!(find(&blobs, "first").await.as_deref(), Some("first"), "it is the last one now");
        blobs.trim(2 * HEAD_BYTES as u64 + 10).unwrap();
        let kept = |name| directory.path().join(name).exists();
        assert_eq!(["first", "second", "third"].map(kept), [true, false, true]);
    }
}
