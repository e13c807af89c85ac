//! Trees of files that a program is to find on the router, packed as archives.
//!
//! **Invariants:** the same files make the same archive, byte by byte, so that it is sent once; and every name in it
//! is one that the agent takes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hop_formats::size::Size;
use hop_proto::limits::{INPUT_ENTRY_BYTES, INPUT_PAGE_BYTES};
use hop_proto::output_path;
use hop_proto::v1;

use super::Error;
use super::blob::{Blob, Kind};

/// The name of the entry that ends an archive (cpio(5)).
const TRAILER: &str = "TRAILER!!!";

/// Everything in an archive begins at a multiple of this.
const ALIGNMENT: usize = 4;

/// Modes, with the kind of file (inode(7)).
const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const EXECUTABLE: u32 = 0o100_755;
const SYMBOLIC_LINK: u32 = 0o120_777;

/// How many of the largest files an error names.
const NAMED: usize = 5;

/// An entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Directory,
    File { from: PathBuf, size: u64, is_executable: bool },
    Content(Vec<u8>),
    Link { target: Vec<u8> },
}

/// Files by their paths, before they are archived.
#[derive(Debug, Default)]
pub struct Files {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Files {
    /// Adds a directory that may be empty, and those above it.
    pub fn add_directory(&mut self, path: &Path) {
        for directory in path.ancestors().filter(|path| *path != Path::new("")) {
            self.entries.entry(directory.to_owned()).or_insert(Entry::Directory);
        }
    }

    /// Adds the file at `from`, or the target of a symbolic link there. A link that leads to no file stays a link.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add(&mut self, path: &Path, from: &Path) -> Result<(), Error> {
        let entry = match fs::metadata(from) {
            Ok(metadata) if metadata.is_file() => {
                let is_executable = metadata.permissions().mode() & 0o100 != 0;
                Entry::File { from: from.to_owned(), size: metadata.len(), is_executable }
            }
            _ => {
                let target = fs::read_link(from).map_err(Error::io("read", from))?;
                Entry::Link { target: target.into_os_string().as_bytes().to_vec() }
            }
        };
        self.add_directory(path.parent().unwrap_or(path));
        self.entries.insert(path.to_owned(), entry);
        Ok(())
    }

    /// Adds a file with this content.
    pub fn add_content(&mut self, path: &Path, content: Vec<u8>) {
        self.add_directory(path.parent().unwrap_or(path));
        self.entries.insert(path.to_owned(), Entry::Content(content));
    }

    /// Adds everything in the directory `from`, if there is one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add_all(&mut self, path: &Path, from: &Path) -> Result<(), Error> {
        self.add_directory(path);
        let entries = match fs::read_dir(from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(Error::io("read", from))?,
        };
        for entry in entries {
            let entry = entry.map_err(Error::io("read", from))?;
            let (kind, path) = (entry.file_type(), path.join(entry.file_name()));
            let kind = kind.map_err(Error::io("look at", from))?;
            if kind.is_dir() {
                self.add_all(&path, &entry.path())?;
            } else if kind.is_file() || kind.is_symlink() {
                self.add(&path, &entry.path())?;
            }
        }
        Ok(())
    }

    /// True if there is not even a directory.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True if there is something of this path.
    pub fn has(&self, path: &Path) -> bool {
        self.entries.contains_key(path)
    }

    /// Where the files are, and the links.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let files = self.entries.iter().filter(|(_, entry)| **entry != Entry::Directory);
        files.map(|(path, _)| path.as_path())
    }

    /// Bytes of the memory that they take on the router.
    pub fn size(&self) -> u64 {
        // One for the directory around them.
        let whole = |entry: &Entry| match entry {
            Entry::File { size, .. } => size.next_multiple_of(INPUT_PAGE_BYTES),
            Entry::Content(content) => (content.len() as u64).next_multiple_of(INPUT_PAGE_BYTES),
            Entry::Directory | Entry::Link { .. } => 0,
        };
        INPUT_ENTRY_BYTES * (1 + self.entries.len() as u64) + self.entries.values().map(whole).sum::<u64>()
    }

    /// The largest of them, with their sizes in bytes.
    pub fn largest(&self) -> Vec<(PathBuf, u64)> {
        let file = |(path, entry): (&PathBuf, &Entry)| match entry {
            Entry::File { size, .. } => Some((path.clone(), *size)),
            _ => None,
        };
        let mut files: Vec<_> = self.entries.iter().filter_map(file).collect();
        files.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
        files.truncate(NAMED);
        files
    }

    /// Packs them under a name that earlier ones of their kind have, to be unpacked into `directory`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::PathTooLong`].
    pub fn pack(mut self, name: String, directory: &str) -> Result<InputArchive, Error> {
        let mut archive = Vec::new();
        // Links come last: nothing can be written through one.
        for is_link in [false, true] {
            for (path, entry) in &mut self.entries {
                if matches!(entry, Entry::Link { .. }) != is_link {
                    continue;
                }
                let name = path.as_os_str().as_bytes();
                if !output_path::is_valid(name) {
                    return Err(Error::PathTooLong(path.clone()));
                }
                match entry {
                    Entry::Directory => write(&mut archive, DIRECTORY, name, b""),
                    Entry::Content(content) => write(&mut archive, FILE, name, content),
                    Entry::Link { target } => write(&mut archive, SYMBOLIC_LINK, name, target),
                    Entry::File { from, size, is_executable } => {
                        let content = fs::read(&*from).map_err(Error::io("read", from))?;
                        // As it is now.
                        *size = content.len() as u64;
                        let mode = if *is_executable { EXECUTABLE } else { FILE };
                        write(&mut archive, mode, name, &content);
                    }
                }
            }
        }
        write(&mut archive, 0, TRAILER.as_bytes(), b"");
        let (size, largest, directory) = (self.size(), self.largest(), directory.to_owned());
        // With the directory around them. Nobody has memory for 4 billion.
        let entries = u32::try_from(1 + self.entries.len()).unwrap_or(u32::MAX);
        Ok(InputArchive { archive: Blob::new(Kind::Files, name, archive), directory, size, entries, largest })
    }
}

/// Adds an entry in the format newc (cpio(5)), which the crate `cpio` writes for names in UTF-8 only: thirteen fields of eight hexadecimal digits, the name, the content.
fn write(archive: &mut Vec<u8>, mode: u32, name: &[u8], content: &[u8]) {
    let (file_size, name_size) = (content.len(), name.len() + 1);
    let head = format!(
        "070701{0:08X}{mode:08X}{0:08X}{0:08X}{1:08X}{0:08X}{file_size:08X}{0:08X}{0:08X}{0:08X}{0:08X}{name_size:08X}{0:08X}",
        0, 1
    );
    archive.extend_from_slice(head.as_bytes());
    archive.extend_from_slice(name);
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(ALIGNMENT), 0);
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(ALIGNMENT), 0);
}

/// Files with their sizes, for a person.
pub(crate) fn named(files: &[(PathBuf, u64)]) -> String {
    let name = |(path, bytes): &(PathBuf, u64)| format!("{} ({})", path.display(), Size(*bytes));
    files.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Files that a program finds when it starts.
#[derive(Clone, Debug)]
pub struct InputArchive {
    /// What is sent.
    pub archive: Blob,
    /// The name of the directory that they are in, below the job's directory.
    pub directory: String,
    /// Bytes of memory that they take on the router, beside the archive.
    pub size: u64,
    /// How many they are, with directories and links.
    pub entries: u32,
    /// The largest of them, with their sizes in bytes.
    pub largest: Vec<(PathBuf, u64)>,
}

impl InputArchive {
    /// Bytes of memory that they take on the router, as an archive and unpacked.
    pub fn room(&self) -> u64 {
        self.archive.content.len() as u64 + self.size
    }

    /// In the words of the protocol.
    pub fn describe(&self, blob: v1::Blob, bases: Vec<Vec<u8>>) -> v1::InputArchive {
        let directory = self.directory.clone().into_bytes();
        v1::InputArchive { archive: Some(blob), directory, size: self.size, bases, entries: self.entries }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory with a file, an executable, an empty directory, and a link that sorts before what it points to.
    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        let at = |path: &str| tree.path().join(path);
        fs::create_dir_all(at("a/empty")).unwrap();
        fs::write(at("a/file"), "content").unwrap();
        fs::write(at("a/run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(at("a/run"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("b/file", at("a/again")).unwrap();
        tree
    }

    #[test]
    fn same_files_make_same_archive() {
        let [one, two] = [tree(), tree()].map(|tree| {
            let mut files = Files::default();
            files.add_all(Path::new("x"), tree.path()).unwrap();
            files.pack("x".into(), "src").unwrap()
        });
        assert_eq!(one.archive.content, two.archive.content);
        assert_eq!((one.size, one.entries), (7 * INPUT_ENTRY_BYTES + 2 * INPUT_PAGE_BYTES, 7));
    }

    #[test]
    fn archive_has_links_last() {
        let tree = tree();
        let mut files = Files::default();
        files.add_all(Path::new("x"), tree.path()).unwrap();
        files.add(Path::new("z/file"), &tree.path().join("a/file")).unwrap();
        assert_eq!(files.largest()[0], ("x/a/run".into(), 10));
        let archive = files.pack("x".into(), "src").unwrap().archive.content;
        let place = |name: &str| {
            let name = format!("{name}\0");
            archive.windows(name.len()).position(|window| window == name.as_bytes()).unwrap()
        };
        let order = ["x", "x/a", "x/a/empty", "x/a/file", "x/a/run", "z", "z/file", "x/a/again"].map(place);
        assert!(order.is_sorted(), "{order:?}");
        assert!(archive.len() % ALIGNMENT == 0 && place(TRAILER) > order[7]);
    }
}
