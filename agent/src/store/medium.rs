//! The files of the disk cache on their medium. All of this runs in threads that may hang.
//!
//! **Invariants:** the disk cache writes nothing where others could write too; a file gets its name only when it is
//! complete and on the medium; and an eighth of the medium stays free.

use std::fs::{self, DirEntry, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hop_proto::identity::Fingerprint;
use ring::digest::{Context, SHA256};
use tokio::sync::oneshot;

use crate::store::blob::{Blob, Digest};
use crate::store::disk_cache::{CHUNK_BYTES, Cancelled, Chunks, DiskCache, FileName};
use crate::store::error::Error;

/// Fraction of the medium that the disk cache leaves free: one part in this many.
const FREE_FRACTION: u64 = 8;

/// File systems whose owners and modes are mount options (statfs(2)): vfat, exFAT, NTFS, and FUSE, through which NTFS
/// is mounted too. There, nothing but the digest, which the agent verifies at every copy, protects a blob; in the end,
/// that is so everywhere.
const WITHOUT_OWNERS: [u64; 5] = [0x4d44, 0x2011_bab0, 0x5346_544e, 0x7366_746e, 0x6573_5546];

/// tmpfs (statfs(2)): its content does not survive a reboot, and would take RAM twice.
const TMPFS: u64 = 0x0102_1994;

/// A file in the disk cache that may be evicted.
pub(super) struct Kept {
    pub(super) path: PathBuf,
    pub(super) name: FileName,
    pub(super) modified: SystemTime,
    /// Bytes that its eviction frees.
    pub(super) bytes: i64,
}

impl DiskCache {
    /// The directory, if it exists and nobody else can write to it. Logs when that changes.
    pub(super) fn open(&self) -> Option<File> {
        let opened = self.try_open();
        let mut state = self.state();
        match &opened {
            Ok(_) if state.is_away => {
                tracing::info!(directory = %self.directory.display(), "the disk cache is available again");
            }
            Err(why) if !state.is_away => {
                tracing::warn!(directory = %self.directory.display(), %why, "the disk cache is unavailable");
            }
            _ => {}
        }
        state.is_away = opened.is_err();
        opened.ok()
    }

    pub(super) fn try_open(&self) -> Result<File, String> {
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let directory = OpenOptions::new().read(true).custom_flags(flags).open(&self.directory);
        let directory = directory.map_err(|error| error.to_string())?;
        let metadata = directory.metadata().map_err(|error| error.to_string())?;
        let file_system =
            rustix::fs::fstatfs(&directory).map_err(|error| io::Error::from(error).to_string())?;
        // ramfs has no size.
        if file_system.f_blocks == 0 || u64::try_from(file_system.f_type) == Ok(TMPFS) {
            return Err("it is in RAM, which does not survive a reboot".to_owned());
        }
        let has_owners = u64::try_from(file_system.f_type).is_ok_and(|kind| !WITHOUT_OWNERS.contains(&kind));
        let is_ours = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0;
        if has_owners && !is_ours {
            return Err(
                "it must belong to the user that hopd runs as, and be writable by nobody else".to_owned()
            );
        }
        Ok(directory)
    }

    /// Sends a blob to its receiver, as far as the file can be read and the receiver takes it. Removes a file with
    /// wrong content.
    pub(super) fn copy_in(
        &self,
        name: &FileName,
        size: u64,
        chunks: &Chunks,
        is_valid: oneshot::Receiver<bool>,
    ) -> Result<(), Error> {
        let path = self.path(name);
        let failed = |error| Error::io("read", &path)(error);
        let file = match open_for_reading(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let metadata = file.metadata().map_err(failed)?;
        let mut left = if metadata.is_file() && metadata.len() == size { size } else { 0 };
        while left > 0 {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            let most = left.min(CHUNK_BYTES as u64);
            left -= (&file).take(most).read_to_end(&mut chunk).map_err(failed)? as u64;
            if chunk.is_empty() {
                break;
            }
            if chunks.blocking_send(chunk).is_err() {
                return Ok(());
            }
        }
        let asked = chunks.blocking_send(Vec::new());
        let Some(is_correct) = asked.ok().and_then(|()| is_valid.blocking_recv().ok()) else {
            return Ok(());
        };
        if is_correct {
            tracing::info!(bytes = size, "program copied from the disk cache");
            // Makes the file the most recently used one. A failure does not matter: on a read-only medium, nothing is
            // evicted.
            let _ = file.set_modified(SystemTime::now());
            return Ok(());
        }
        tracing::warn!(path = %path.display(), "removed a file of the disk cache with wrong content");
        fs::remove_file(&path).map_err(Error::io("remove", &path))
    }

    /// Records that a blob is used now; false if the cache does not have it.
    pub(super) fn touch(&self, name: &FileName, size: u64) -> bool {
        let file = open_for_reading(&self.path(name)).ok();
        let is_it = |file: &File| file.metadata().is_ok_and(|found| found.is_file() && found.len() == size);
        // A failure does not matter: on a read-only medium, nothing is evicted.
        file.filter(is_it).map(|file| file.set_modified(SystemTime::now())).is_some()
    }

    pub(super) fn copy_out(
        &self,
        blob: &Blob,
        digest: &Digest,
        name: &FileName,
        is_cancelled: &Cancelled,
    ) -> Result<(), Error> {
        self.sweep().map_err(Error::io("look at", &self.directory))?;
        self.free_space(blob.size())?;
        let path = self.path(name);
        let part = path.with_extension("part");
        let written = write(blob, digest, &part, is_cancelled)
            .map_err(Error::io("write", &part))
            .and_then(|()| fs::rename(&part, &path).map_err(Error::io("create", &path)));
        match written {
            // A name that is lost in a power failure costs an upload. Not every file system can sync a directory.
            Ok(()) => drop(File::open(&self.directory).and_then(|directory| directory.sync_all())),
            // Removes the partial file, if it was created.
            Err(_) => drop(fs::remove_file(&part)),
        }
        written
    }

    /// Removes incomplete files. Only the holder of the permit to write may call this.
    pub(super) fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "part") && name_of(&path).is_some() {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Evicts as many files as `size` bytes need, the least recently used ones first, or none if that would not be
    /// enough.
    pub(super) fn free_space(&self, size: u64) -> Result<(), Error> {
        let failed = |error| Error::io("look at", &self.directory)(error);
        let mut available = self.available().map_err(failed)?;
        let mut evictable = self.evictable().map_err(failed)?;
        evictable.sort_unstable_by_key(|kept| kept.modified);
        let mut evicted = evictable.iter();
        let all = available + evictable.iter().map(|kept| kept.bytes).sum::<i64>();
        let needed = i64::try_from(size).unwrap_or(i64::MAX);
        while available < needed {
            let next = evicted.next().filter(|_| needed <= all);
            let Some(kept) = next else {
                let available = u64::try_from(all).unwrap_or(0);
                return Err(Error::NoSpace { needed: size, available, directory: self.directory.clone() });
            };
            // Keeps the lock until the file is gone, so that a copy that starts now finds either the whole file or
            // none.
            let state = self.state();
            if !state.in_use.contains(&kept.name) {
                fs::remove_file(&kept.path).map_err(Error::io("remove", &kept.path))?;
            }
            drop(state);
            available = self.available().map_err(failed)?;
        }
        Ok(())
    }

    /// Bytes that may be added now; negative if others use more of the medium than the disk cache would.
    pub(super) fn available(&self) -> io::Result<i64> {
        let disk = rustix::fs::statvfs(&self.directory)?;
        let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(disk.f_frsize)).unwrap_or(i64::MAX);
        Ok(bytes(disk.f_bavail) - bytes(disk.f_blocks.div_ceil(FREE_FRACTION)))
    }

    pub(super) fn evictable(&self) -> io::Result<Vec<Kept>> {
        let in_use = self.state().in_use.clone();
        let kept = |entry: DirEntry| {
            let path = entry.path();
            let name = name_of(&path).filter(|_| path.extension().is_none())?;
            // Does not follow links.
            let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            let modified = metadata.modified().ok()?;
            // In units of 512 bytes (stat(2)).
            let bytes = i64::try_from(metadata.blocks() * 512).ok()?;
            Some(Kept { path, name, modified, bytes })
        };
        let mut evictable = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            evictable.extend(entry.ok().and_then(kept).filter(|kept| !in_use.contains(&kept.name)));
        }
        Ok(evictable)
    }

    pub(super) fn path(&self, name: &FileName) -> PathBuf {
        let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        self.directory.join(name)
    }
}

/// Opens a file without following a link or waiting for the writer of a pipe.
fn open_for_reading(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// Writes a blob to the medium, and syncs it. A program may have changed its own file, so this verifies the digest
/// again.
fn write(blob: &Blob, digest: &Digest, part: &Path, is_cancelled: &Cancelled) -> io::Result<()> {
    let mut from = blob.open()?;
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(part)?;
    let mut hash = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = from.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        hash.update(&chunk[..read]);
        to.write_all(&chunk[..read])?;
        if is_cancelled() {
            return Err(io::Error::other("the agent is stopping"));
        }
    }
    if hash.finish().as_ref() != digest {
        return Err(io::Error::other("the program has changed"));
    }
    to.sync_all()
}

/// The name for the file of a blob that `owner` has uploaded.
pub(super) fn file_name(digest: &Digest, owner: &Fingerprint) -> FileName {
    let mut hash = Context::new(&SHA256);
    hash.update(owner.as_bytes());
    hash.update(digest);
    let mut name = FileName::default();
    name.copy_from_slice(hash.finish().as_ref());
    name
}

/// Parses the name of a file, without its extension.
pub(super) fn name_of(path: &Path) -> Option<FileName> {
    let digits = path.file_stem()?.to_str()?.as_bytes();
    let value = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let mut name = FileName::default();
    if digits.len() != 2 * name.len() {
        return None;
    }
    for (byte, pair) in name.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(name)
}
