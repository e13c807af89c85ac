//! Walks directory trees that a program had to itself, and measures how much of the file system they take.
//!
//! **Invariants:** a walk follows no link and enters no other file system; and a tree of any depth takes at most eight
//! descriptors.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hop_proto::limits::INPUT_ENTRY_BYTES;
use rustix::fs::{FileType, Mode, OFlags, RawDir, SeekFrom, openat, seek};
use rustix::io::Errno;

/// Maximum number of directories that a walk has open at a time; a typical tree is not deeper.
pub(super) const OPEN: usize = 8;

/// Bytes of names that are read at once.
pub(super) const READ_BYTES: usize = 2048;

/// Opens a directory in another one, without following a link.
pub(super) fn open_directory(directory: BorrowedFd<'_>, name: &CStr) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty()).map(File::from)
}

pub(super) fn is_itself(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// The entries of a directory, as far as they can be read.
pub fn entries(directory: &Path) -> Entries {
    Entries(fs::read_dir(directory).ok())
}

/// The result of [`entries`].
pub struct Entries(Option<fs::ReadDir>);

impl Iterator for Entries {
    type Item = fs::DirEntry;

    fn next(&mut self) -> Option<fs::DirEntry> {
        self.0.as_mut()?.find_map(Result::ok)
    }
}

/// The bytes and names that a tree takes of its file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Length of its files in bytes, plus [`INPUT_ENTRY_BYTES`] for each name.
    pub bytes: u64,
    /// Names in it: on tmpfs, each takes an inode, including further names of the same file (shmem_link, mm/shmem.c).
    pub names: u64,
}

/// Measures what the content of a tree takes. Ignores entries that cannot be read, and other file systems.
pub fn usage(path: &Path) -> Usage {
    let mut usage = Usage::default();
    // A program may move directories during the walk, which then fails. The entries counted by then did exist.
    let _ = Walk::begin(path).and_then(|walk| walk.run(true, &mut usage));
    usage
}

/// Number of names in a tree. Takes a tenth of the time of [`usage`].
pub fn names(path: &Path) -> u64 {
    let mut usage = Usage::default();
    let _ = Walk::begin(path).and_then(|walk| walk.run(false, &mut usage));
    usage.names
}

/// A walk through a tree of any depth. It goes back up through `..`, and checks that this leads to the directory that
/// it came from.
struct Walk {
    device: u64,
    levels: Vec<Level>,
}

/// A directory on the path from the top to the position of a walk.
struct Level {
    inode: u64,
    /// Position in the directory of the first name that the walk has not visited.
    next: u64,
    open: Option<Open>,
}

/// An open directory, and names that were read from it.
struct Open {
    directory: File,
    read: VecDeque<Name>,
}

struct Name {
    name: CString,
    kind: FileType,
    /// Position in the directory of the names after it.
    next: u64,
}

impl Open {
    /// The next name; `None` after the last.
    fn next(&mut self) -> Result<Option<Name>, Errno> {
        if self.read.is_empty() {
            let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
            let mut names = RawDir::new(&self.directory, &mut buffer);
            while let Some(entry) = names.next() {
                let entry = entry?;
                let (kind, next) = (entry.file_type(), entry.next_entry_cookie());
                self.read.push_back(Name { name: entry.file_name().to_owned(), kind, next });
                if names.is_buffer_empty() {
                    break;
                }
            }
        }
        Ok(self.read.pop_front())
    }
}

impl Walk {
    fn begin(path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let (device, inode) = identity(&directory)?;
        let open = Some(Open { directory, read: VecDeque::new() });
        Ok(Self { device, levels: vec![Level { inode, next: 0, open }] })
    }

    /// Counts all names, and their bytes too if `is_for_bytes`.
    fn run(mut self, is_for_bytes: bool, usage: &mut Usage) -> Result<(), Errno> {
        while let Some(Level { next, open: Some(open), .. }) = self.levels.last_mut() {
            let Some(entry) = open.next()? else {
                self.go_up()?;
                continue;
            };
            *next = entry.next;
            if is_itself(&entry.name) {
                continue;
            }
            let mut kind = entry.kind;
            if is_for_bytes || kind == FileType::Unknown {
                // Removed meanwhile.
                let Ok(found) = look_at(&open.directory, &entry.name) else { continue };
                if found.dev() != self.device {
                    continue;
                }
                kind = FileType::from_raw_mode(found.mode());
                // The length instead of the blocks, which ramfs does not count. For a file with holes it is too much.
                let length = if kind == FileType::Directory { 0 } else { found.len() };
                usage.bytes = usage.bytes.saturating_add(length).saturating_add(INPUT_ENTRY_BYTES);
            }
            usage.names += 1;
            if kind == FileType::Directory {
                let child = open_directory(open.directory.as_fd(), &entry.name);
                child.map_or(Ok(()), |child| self.go_down(child))?;
            }
        }
        Ok(())
    }

    fn go_down(&mut self, directory: File) -> Result<(), Errno> {
        let (device, inode) = identity(&directory)?;
        if device != self.device {
            return Ok(());
        }
        self.levels.push(Level { inode, next: 0, open: Some(Open { directory, read: VecDeque::new() }) });
        if let Some(far) = self.levels.len().checked_sub(OPEN + 1) {
            self.levels[far].open = None;
        }
        Ok(())
    }

    fn go_up(&mut self) -> Result<(), Errno> {
        let Some(Level { open: Some(Open { directory, .. }), .. }) = self.levels.pop() else { return Ok(()) };
        let device = self.device;
        if let Some(level) = self.levels.last_mut().filter(|level| level.open.is_none()) {
            let directory = open_directory(directory.as_fd(), c"..")?;
            if identity(&directory)? != (device, level.inode) {
                return Err(Errno::STALE);
            }
            seek(&directory, SeekFrom::Start(level.next))?;
            level.open = Some(Open { directory, read: VecDeque::new() });
        }
        Ok(())
    }
}

fn identity(file: &File) -> Result<(u64, u64), Errno> {
    let metadata = file.metadata().map_err(errno)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Metadata of an entry, by the standard library: rustix looks statx(2) up in the C library by dlsym(3), which an agent
/// for MIPS does not have.
fn look_at(directory: &File, name: &CStr) -> Result<fs::Metadata, Errno> {
    let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    File::from(openat(directory, name, look, Mode::empty())?).metadata().map_err(errno)
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
