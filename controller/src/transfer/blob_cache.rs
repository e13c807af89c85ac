//! A cache of the blobs that were uploaded lately, which serve as bases of deltas, and of each link's rate.
//!
//! **Invariants:** a missing or broken entry costs bytes on the wire, and is never an error; a blob that is returned has the digest
//! that names it; the cache holds at most [`MAX_BYTES`] of each kind.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use data_encoding::HEXLOWER;
use hop_proto::limits::MAX_BASES;
use ring::digest::{SHA256, digest};

use super::blob::{Blob, Kind};
use super::encoded_cache::EncodedCache;
use crate::config::home::{Home, make_private};

/// Bytes of all blobs of a kind together.
const MAX_BYTES: u64 = 512 << 20;

/// Blobs of one name that are offered as a base: the last builds of a program.
const MAX_BUILDS: usize = 4;

/// SHA-256.
pub type Digest = [u8; 32];

/// The blobs and the rates.
#[derive(Clone, Debug)]
pub struct BlobCache {
    cache: PathBuf,
}

/// A blob that was sent.
struct CachedBlob {
    path: PathBuf,
    digest: Digest,
    has_name: bool,
    bytes: u64,
    sent: SystemTime,
}

impl BlobCache {
    /// The cache of the blobs that `hop` uploaded from this home.
    pub fn new(home: &Home) -> Self {
        Self { cache: home.cache().to_owned() }
    }

    fn blobs(&self, kind: Kind) -> PathBuf {
        self.cache.join(match kind {
            Kind::Program => "programs",
            Kind::Files => "files",
        })
    }

    /// The cache of encoded blobs.
    pub fn encoded(&self) -> EncodedCache {
        EncodedCache::in_directory(self.cache.join("packed"))
    }

    fn rate_file(&self, router: &str) -> PathBuf {
        self.cache.join("rates").join(router)
    }

    /// Digests of blobs that are here, those first that `blob` is most likely to resemble: earlier ones of its name, then,
    /// of programs, what was sent last. Two Go programs have the runtime in common, two trees of files nothing.
    pub fn candidates(&self, blob: &Blob) -> Vec<Digest> {
        let mut kept = self.kept(blob.kind, &blob.name);
        kept.retain(|kept| kept.digest != blob.digest);
        let builds = kept.iter().filter(|kept| kept.has_name).take(MAX_BUILDS);
        let others = kept.iter().filter(|kept| !kept.has_name && blob.kind == Kind::Program);
        builds.chain(others).map(|kept| kept.digest).take(MAX_BASES).collect()
    }

    /// The content of the blob with this digest, if it is still here and whole.
    pub fn content(&self, kind: Kind, wanted: &Digest) -> Option<Vec<u8>> {
        let path = self.kept(kind, "").into_iter().find(|kept| kept.digest == *wanted)?.path;
        let content = fs::read(&path).ok()?;
        if digest(&SHA256, &content).as_ref() == wanted {
            return Some(content);
        }
        let _ = fs::remove_file(path);
        None
    }

    /// Keeps a blob that a router has now, instead of the ones that were sent before all others.
    pub fn keep(&self, blob: &Blob) {
        // An error of a cache fails no command.
        let _ = self.try_keep(blob);
    }

    fn try_keep(&self, blob: &Blob) -> io::Result<()> {
        let path = self.path(blob);
        match fs::File::open(&path) {
            Ok(file) => file.set_modified(SystemTime::now())?,
            Err(_) => write(&path, &blob.content)?,
        }
        let mut bytes = 0;
        for kept in self.kept(blob.kind, "") {
            bytes += kept.bytes;
            if bytes > MAX_BYTES {
                fs::remove_file(&kept.path)?;
                // It stays if there is something else in it.
                let _ = kept.path.parent().map(fs::remove_dir);
            }
        }
        Ok(())
    }

    fn path(&self, blob: &Blob) -> PathBuf {
        self.blobs(blob.kind).join(&blob.name).join(HEXLOWER.encode(&blob.digest))
    }

    /// All of a kind that is here, the last one first.
    fn kept(&self, kind: Kind, name: &str) -> Vec<CachedBlob> {
        let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
        let mut all: Vec<CachedBlob> = entries(&self.blobs(kind))
            .flat_map(|directory| {
                let has_name = directory.file_name() == OsStr::new(name);
                entries(&directory.path()).map(move |file| (file, has_name))
            })
            .filter_map(|(file, has_name)| {
                let digest = digest_of(file.file_name().to_str()?)?;
                let metadata = file.metadata().ok()?;
                let (bytes, sent) = (metadata.len(), metadata.modified().ok()?);
                Some(CachedBlob { path: file.path(), digest, has_name, bytes, sent })
            })
            .collect();
        all.sort_by_key(|kept| std::cmp::Reverse(kept.sent));
        all
    }

    /// Bytes a second at which the last blob came to `router`, if one did.
    pub fn rate(&self, router: &str) -> Option<u64> {
        fs::read_to_string(self.rate_file(router)).ok()?.trim().parse().ok().filter(|rate| *rate > 0)
    }

    /// Remembers a rate.
    pub fn set_rate(&self, router: &str, rate: u64) {
        let _ = write(&self.rate_file(router), format!("{rate}\n").as_bytes());
    }
}

/// Writes a file that is whole or not there, and the directories above it.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(path);
    make_private(parent).map_err(io::Error::other)?;
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    file.write_all(content)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// The digest that is the name of a file.
fn digest_of(name: &str) -> Option<Digest> {
    HEXLOWER.decode(name.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    fn program(name: &str, content: &str) -> Blob {
        Blob::new(Kind::Program, name.to_owned(), content.as_bytes().to_vec())
    }

    fn set_age(sent: &BlobCache, program: &Blob, seconds: u64) {
        let then = SystemTime::now() - Duration::from_secs(seconds);
        fs::File::open(sent.path(program)).unwrap().set_modified(then).unwrap();
    }

    #[test]
    fn earlier_builds_are_first_bases() {
        let dir = tempfile::tempdir().unwrap();
        let sent = BlobCache::new(&Home::at(dir.path()));
        let all = [("probe", "1"), ("probe", "2"), ("other", "3"), ("third", "4")];
        let all = all.map(|(name, content)| program(name, content));
        for (program, age) in all.iter().zip([40, 30, 20, 10]) {
            sent.keep(program);
            set_age(&sent, program, age);
        }
        let new = program("probe", "5");
        let expected: Vec<_> = [1, 0, 3, 2].map(|index: usize| all[index].digest).into();
        assert_eq!(sent.candidates(&new), expected);
        assert_eq!(sent.candidates(&all[0]).len(), 3, "not the program itself");
        sent.keep(&all[0]);
        assert_eq!(sent.candidates(&new)[0], all[0].digest, "what is sent again is the last one");
        let [files, others] =
            ["probe", "other"].map(|name| Blob { kind: Kind::Files, ..program(name, name) });
        sent.keep(&others);
        assert_eq!(sent.candidates(&files), [] as [Digest; 0], "neither programs nor other files");
        assert_eq!(sent.content(Kind::Program, &all[2].digest).unwrap(), b"3");
    }

    #[test]
    fn damaged_blob_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let sent = BlobCache::new(&Home::at(dir.path()));
        let program = program("probe", "content");
        sent.keep(&program);
        fs::write(sent.path(&program), "contend").unwrap();
        assert!(sent.content(Kind::Program, &program.digest).is_none());
        assert!(sent.candidates(&self::program("probe", "new")).is_empty(), "and is gone");
    }

    #[test]
    fn rates_are_kept_per_router() {
        let dir = tempfile::tempdir().unwrap();
        let sent = BlobCache::new(&Home::at(dir.path()));
        assert_eq!(sent.rate("desk"), None);
        sent.set_rate("desk", 1_000_000);
        assert_eq!((sent.rate("desk"), sent.rate("roof")), (Some(1_000_000), None));
    }
}
