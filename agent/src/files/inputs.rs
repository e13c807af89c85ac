//! The input files of a program: trees that arrive as archives, and are unpacked into the job's directory.
//!
//! **Invariants:** unpacking a tree writes nothing outside its directory, nothing through a symbolic link, and no more
//! than was reserved.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, lchown, symlink};
use std::path::Path;

use hop_proto::limits::{INPUT_ENTRY_BYTES, INPUT_PAGE_BYTES, MAX_OUTPUT_PATH_BYTES};
use hop_proto::output_path;

use crate::files::error::Error;
use crate::process::user::User;
use crate::store::receiver::BlobDescriptor;

/// Bytes that are copied at a time, before other tasks get their turn.
const CHUNK_BYTES: usize = 16 * 1024;

/// Bytes of the header of an entry, and where its fields of eight hexadecimal digits are (cpio(5), format newc).
const HEADER_BYTES: usize = 110;
const MAGIC: &[u8] = b"070701";
const MODE: usize = 14;
const FILE_SIZE: usize = 54;
const NAME_SIZE: usize = 94;
/// Each part of an archive begins at a multiple of this.
const ALIGNMENT: usize = 4;

/// The name of the entry that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";

/// Kinds of files in a mode (inode(7)).
const KIND: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMBOLIC_LINK: u32 = 0o120_000;
const OWNER_MAY_EXECUTE: u32 = 0o100;

const BROKEN: Error = Error::Protocol("a malformed archive of input files");

/// A tree of input files that is not unpacked yet.
#[derive(Debug)]
pub struct InputArchive {
    /// The archive.
    pub archive: BlobDescriptor,
    /// The name of the directory into which it is unpacked, or `.` for the program's own.
    pub directory: Vec<u8>,
    /// That directory is next to the program's, and not in it.
    pub is_aside: bool,
    /// Bytes of memory that the unpacked files take.
    pub size: u64,
    /// Number of entries, including the directory around them; 0 if the controller did not announce it.
    pub entries: u32,
}

impl InputArchive {
    /// Unpacks the archive into a new directory in `parent`, or into `parent` itself. If the program runs as another user, that user owns the
    /// files. If the controller did not announce the number of entries, it may be up to `most`.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the archive breaks a rule, [`Error::Io`] if a file cannot be written.
    pub async fn unpack(
        &self,
        archive: File,
        parent: &Path,
        user: Option<&User>,
        most: u64,
    ) -> Result<(), Error> {
        let root = parent.join(OsStr::from_bytes(&self.directory));
        let entries = if self.entries == 0 { most } else { self.entries.into() };
        let mut unpacking = Unpacking { archive, user, bytes: self.size, entries, has_links: false };
        if self.directory != output_path::ALL {
            unpacking.directory(&root)?;
        }
        while unpacking.entry(&root).await? {}
        Ok(())
    }
}

/// The error for an archive that cannot be read to its end: it is truncated, or the router's file system fails.
fn unreadable(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => BROKEN,
        _ => Error::io("read", Path::new("an archive of input files"))(error),
    }
}

/// An archive that is being unpacked.
struct Unpacking<'a> {
    archive: File,
    user: Option<&'a User>,
    /// Bytes of memory that the remaining entries may take.
    bytes: u64,
    /// How many entries may follow.
    entries: u64,
    /// Symbolic links were created: no other entry may follow, because it could be written through one.
    has_links: bool,
}

impl Unpacking<'_> {
    /// Unpacks the next entry; false if there is none.
    async fn entry(&mut self, root: &Path) -> Result<bool, Error> {
        let mut header = [0; HEADER_BYTES];
        self.archive.read_exact(&mut header).map_err(unreadable)?;
        let field = |at| hexadecimal(&header[at..at + 8]).ok_or(BROKEN);
        let (mode, size, name_size) = (field(MODE)?, field(FILE_SIZE)?, field(NAME_SIZE)? as usize);
        // Including the zero byte at its end.
        if !header.starts_with(MAGIC) || !(2..=MAX_OUTPUT_PATH_BYTES + 1).contains(&name_size) {
            return Err(BROKEN);
        }
        let mut name = self.read(HEADER_BYTES, name_size)?;
        name.pop();
        if name == TRAILER {
            return Ok(false);
        }
        if !output_path::is_valid(&name) || name == b"." {
            return Err(BROKEN);
        }
        let path = root.join(OsStr::from_bytes(&name));
        match mode & KIND {
            DIRECTORY if size == 0 => self.directory(&path)?,
            REGULAR => self.file(&path, size, mode & OWNER_MAY_EXECUTE != 0).await?,
            SYMBOLIC_LINK if (1..=MAX_OUTPUT_PATH_BYTES).contains(&(size as usize)) => {
                let target = self.read(0, size as usize)?;
                self.has_links = true;
                self.takes(0)?;
                symlink(OsStr::from_bytes(&target), &path).map_err(Error::io("create", &path))?;
                self.give_away(&path)?;
            }
            _ => return Err(BROKEN),
        }
        Ok(true)
    }

    /// Reads the next `count` bytes and their padding; `before` bytes in front of them have been read without padding.
    fn read(&mut self, before: usize, count: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; count + padding(before + count)];
        self.archive.read_exact(&mut bytes).map_err(unreadable)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// Counts an entry with this many bytes of content.
    fn takes(&mut self, content: u64) -> Result<(), Error> {
        let taken = INPUT_ENTRY_BYTES + content.next_multiple_of(INPUT_PAGE_BYTES);
        const TOO_MANY: Error = Error::Protocol("more input files than announced");
        self.bytes = self.bytes.checked_sub(taken).ok_or(TOO_MANY)?;
        self.entries = self.entries.checked_sub(1).ok_or(TOO_MANY)?;
        Ok(())
    }

    fn directory(&mut self, path: &Path) -> Result<(), Error> {
        self.comes_before_links()?;
        self.takes(0)?;
        DirBuilder::new().mode(0o755).create(path).map_err(Error::io("create", path))?;
        self.give_away(path)
    }

    async fn file(&mut self, path: &Path, size: u32, is_executable: bool) -> Result<(), Error> {
        self.comes_before_links()?;
        self.takes(size.into())?;
        let mode = if is_executable { 0o755 } else { 0o644 };
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        let mut file = file.map_err(Error::io("create", path))?;
        let mut left = size as usize;
        while left > 0 {
            let count = left.min(CHUNK_BYTES);
            left -= count;
            // The padding comes after the last piece; the length of every other piece is a multiple of the alignment.
            let bytes = self.read(0, count)?;
            file.write_all(&bytes).map_err(Error::io("write", path))?;
            tokio::task::yield_now().await;
        }
        self.give_away(path)
    }

    fn comes_before_links(&self) -> Result<(), Error> {
        if self.has_links { Err(BROKEN) } else { Ok(()) }
    }

    fn give_away(&self, path: &Path) -> Result<(), Error> {
        let given = self.user.map_or(Ok(()), |user| lchown(path, Some(user.uid), Some(user.gid)));
        given.map_err(Error::io("give away", path))
    }
}

/// Number of bytes up to the next multiple of [`ALIGNMENT`].
fn padding(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT) - length
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |value, digit| Some(value << 4 | (*digit as char).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn entry(name: &str, mode: u32, content: &[u8]) -> Vec<u8> {
        let fields = [0, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        let fields: String = fields.iter().map(|field| format!("{field:08X}")).collect();
        let mut bytes = [MAGIC, fields.as_bytes(), name.as_bytes(), b"\0"].concat();
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    /// Unpacks `entries`, for which `size` bytes are reserved. Returns the directory around everything.
    async fn unpacked(entries: &[Vec<u8>], size: u64) -> (tempfile::TempDir, Result<(), Error>) {
        unpacked_announced(entries, size, 0, u64::MAX).await
    }

    /// Unpacks `entries`, of which this many were announced; if none were, up to `most`.
    async fn unpacked_announced(
        entries: &[Vec<u8>],
        size: u64,
        announced: u32,
        most: u64,
    ) -> (tempfile::TempDir, Result<(), Error>) {
        let place = tempfile::tempdir().unwrap();
        let [blob, work] = ["blob", "work"].map(|name| place.path().join(name));
        fs::create_dir(&work).unwrap();
        let archive = [&entries.concat()[..], &entry("TRAILER!!!", 0, b"")].concat();
        fs::write(&blob, &archive).unwrap();
        let archive = BlobDescriptor::of_test(&archive);
        let tree =
            InputArchive { archive, directory: b"src".to_vec(), is_aside: false, size, entries: announced };
        let result = tree.unpack(File::open(blob).unwrap(), &work, None, most).await;
        (place, result)
    }

    #[tokio::test]
    async fn archive_unpacks_to_same_files() {
        let long: Vec<u8> = (0..CHUNK_BYTES + 3).map(|at| at as u8).collect();
        let entries = [
            entry("a", DIRECTORY | 0o700, b""),
            entry("a/long", REGULAR | 0o600, &long),
            entry("a/empty", REGULAR, b""),
            entry("run", REGULAR | 0o755, b"#!/bin/sh\n"),
            entry("link", SYMBOLIC_LINK | 0o777, b"a/long"),
        ];
        let size = 6 * INPUT_ENTRY_BYTES + 6 * INPUT_PAGE_BYTES;
        let (place, result) = unpacked(&entries, size).await;
        result.unwrap();
        let root = place.path().join("work/src");
        assert_eq!(fs::read(root.join("link")).unwrap(), long);
        assert_eq!(fs::read(root.join("a/empty")).unwrap(), b"");
        let mode = |name: &str| fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("run"), mode("a/long")), (0o755, 0o644));
        let (_, result) = unpacked(&entries, size - 1).await;
        assert!(matches!(result, Err(Error::Protocol("more input files than announced"))));
        for (announced, most, is_enough) in [(6, 0, true), (5, u64::MAX, false), (0, 6, true), (0, 5, false)]
        {
            let (_, result) = unpacked_announced(&entries, size, announced, most).await;
            assert_eq!(result.is_ok(), is_enough, "{announced} and {most}");
        }
    }

    #[tokio::test]
    async fn nothing_is_written_outside_directory() {
        let link = || entry("link", SYMBOLIC_LINK, b"..");
        for (what, entries) in [
            ("above", vec![entry("../file", REGULAR, b"x")]),
            ("absolute", vec![entry("/tmp/hop-test-file", REGULAR, b"x")]),
            ("through a link", vec![link(), entry("link/file", REGULAR, b"x")]),
            ("a directory behind a link", vec![link(), entry("link/directory", DIRECTORY, b"")]),
            ("a link to nothing", vec![entry("link", SYMBOLIC_LINK, b"")]),
            ("a device", vec![entry("null", 0o020_000, b"")]),
            ("the directory itself", vec![entry(".", DIRECTORY, b"")]),
            ("not an archive", vec![b"ustar".to_vec()]),
        ] {
            let (place, result) = unpacked(&entries, 1 << 20).await;
            assert!(matches!(result, Err(Error::Protocol(_))), "{what}: {result:?}");
            assert_eq!(fs::read_dir(place.path().join("work")).unwrap().count(), 1, "{what}");
        }
        let twice = [entry("file", REGULAR, b"x"), entry("file", REGULAR, b"y")];
        assert!(unpacked(&twice, 1 << 20).await.1.is_err(), "no name twice");
    }
}
