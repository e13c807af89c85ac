//! What is in directories that a program had to itself, and what it takes of the file system.
//!
//! **Invariants:** no link is followed and no other file system entered; and a tree of any depth costs at most eight descriptors.

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

/// Directories that are open at a time while a tree is walked: a usual tree is not deeper.
pub(super) const OPEN: usize = 8;

/// Bytes of names that are read at once.
pub(super) const READ_BYTES: usize = 2048;

/// Opens a directory in another one; no link to one.
pub(super) fn open_directory(directory: BorrowedFd<'_>, name: &CStr) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty()).map(File::from)
}

pub(super) fn is_itself(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// What is in a directory, as far as that can be read.
pub fn entries(directory: &Path) -> Entries {
    Entries(fs::read_dir(directory).ok())
}

/// What [`entries`] gives.
pub struct Entries(Option<fs::ReadDir>);

impl Iterator for Entries {
    type Item = fs::DirEntry;

    fn next(&mut self) -> Option<fs::DirEntry> {
        self.0.as_mut()?.find_map(Result::ok)
    }
}

/// What a tree takes of its file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that its files are long, with [`INPUT_ENTRY_BYTES`] for each name.
    pub bytes: u64,
    /// Names in it: on tmpfs, each counts as an inode, that of a file with several as well (shmem_link, mm/shmem.c).
    pub names: u64,
}

/// What is in a tree takes. What cannot be read counts nothing, and so does what is on another file system.
pub fn usage(path: &Path) -> Usage {
    let mut usage = Usage::default();
    // A program may move directories meanwhile. What was counted by then was there.
    let _ = Walk::begin(path).and_then(|walk| walk.run(true, &mut usage));
    usage
}

/// How many names there are in a tree. It takes a tenth of the time of [`usage`].
pub fn names(path: &Path) -> u64 {
    let mut usage = Usage::default();
    let _ = Walk::begin(path).and_then(|walk| walk.run(false, &mut usage));
    usage.names
}

/// A walk through a tree that may be of any depth. The way back from where it is leads through `..`, and whether that is
/// where it came from is looked at.
struct Walk {
    device: u64,
    levels: Vec<Level>,
}

/// A directory on the way from the top to where a walk is.
struct Level {
    inode: u64,
    /// Where the names go on that were not looked at.
    next: u64,
    open: Option<Open>,
}

/// A directory that is open, and names that were read.
struct Open {
    directory: File,
    read: VecDeque<Name>,
}

struct Name {
    name: CString,
    kind: FileType,
    /// Where the names behind it begin.
    next: u64,
}

impl Open {
    /// The next name; `None` behind the last.
    fn next(&mut self) -> Result<Option<Name>, Errno> {
        if self.read.is_empty() {
            let mut room = [MaybeUninit::uninit(); READ_BYTES];
            let mut names = RawDir::new(&self.directory, &mut room);
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

    /// Counts everything; the bytes too, if they are wanted.
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
                // Gone meanwhile.
                let Ok(found) = look_at(&open.directory, &entry.name) else { continue };
                if found.dev() != self.device {
                    continue;
                }
                kind = FileType::from_raw_mode(found.mode());
                // The length, and not the blocks: ramfs counts none. Of a file with holes it is too much.
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

/// What is known of an entry. By the standard library: rustix asks the C library by dlsym(3) whether it has a statx(2), and in
/// an agent for MIPS there is no such thing.
fn look_at(directory: &File, name: &CStr) -> Result<fs::Metadata, Errno> {
    let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    File::from(openat(directory, name, look, Mode::empty())?).metadata().map_err(errno)
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
