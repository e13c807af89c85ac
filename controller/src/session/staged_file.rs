//! A file that comes from elsewhere: it has no name before it is whole, and gets it where it belongs and nowhere else.
//!
//! **Invariants:** a name that the other side chose is one name in the directory that it was resolved to; no symbolic link
//! below the user's own directory is followed; an interrupted `hop`, however it ends, leaves no part of a file where the
//! file system has O_TMPFILE (open(2)); and what exists is replaced only on request.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::Error;

/// Bytes that are compared at a time.
const CHUNK: usize = 64 * 1024;

/// Where a file goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The user's own path to a directory, in which links are followed as everywhere.
    base: PathBuf,
    /// The names below it, which may be of the other side's choice: the last one is the file's.
    names: Vec<OsString>,
}

impl Place {
    /// Names below a directory. There is at least one, and each is a plain name.
    pub fn below(base: PathBuf, names: &[&[u8]]) -> Self {
        Self { base, names: names.iter().map(|name| OsStr::from_bytes(name).to_owned()).collect() }
    }

    /// A path that the user has written.
    pub fn of(path: &Path) -> Self {
        // Without a name it is a directory, which the kernel says when the file gets it.
        let name = path.file_name().unwrap_or(OsStr::new(".")).to_owned();
        Self { base: path.parent().unwrap_or(Path::new("")).to_owned(), names: vec![name] }
    }

    /// The directory and the names as one path.
    pub fn path(&self) -> PathBuf {
        self.base.iter().chain(self.names.iter().map(OsString::as_os_str)).collect()
    }
}

/// The result of publishing a complete file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It has its name; or a file with the same content has had it before.
    Stored,
    /// Something else has that name, and was not to be replaced.
    Exists,
}

/// A new file, before it has its name.
#[derive(Debug)]
pub struct StagedFile {
    file: File,
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
    /// The name that it has meanwhile where the file system has no files without names.
    temporary: Option<OsString>,
}

impl StagedFile {
    /// Makes a file for `place`, and the directories on the way. The umask takes off what others may not.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::LinkInTheWay`].
    pub fn create(place: &Place, mode: u32) -> Result<Self, Error> {
        let directory = open_directory(place)?;
        let path = place.path();
        let name = place.names.last().cloned().unwrap_or_default();
        let (file, temporary) = create(&directory, Mode::from_raw_mode(mode))
            .map_err(|error| Error::io("create a file in", path.parent().unwrap_or(&path))(error.into()))?;
        Ok(Self { file, directory, name, path, temporary })
    }

    /// Its content.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it goes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name, and takes that from another file if it `replaces` one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn commit(mut self, replaces: bool) -> Result<Committed, Error> {
        let named = match self.temporary.take() {
            None => self.link(replaces),
            Some(temporary) => {
                let renamed = self.rename(&temporary, replaces);
                if renamed.is_err() {
                    self.temporary = Some(temporary);
                }
                renamed
            }
        };
        match named {
            Ok(()) => Ok(Committed::Stored),
            Err(Errno::EXIST) if !replaces && self.is_there_already() => Ok(Committed::Stored),
            Err(Errno::EXIST) if !replaces => Ok(Committed::Exists),
            Err(error) => Err(Error::io("write", &self.path)(error.into())),
        }
    }

    fn link(&self, replaces: bool) -> Result<(), Errno> {
        match self.link_as(&self.name) {
            Err(Errno::EXIST) if replaces => {}
            linked => return linked,
        }
        // No call replaces a name by a file that has none.
        let temporary = temporary_name(|name| self.link_as(name))?.1;
        let renamed = rustix::fs::renameat(&self.directory, &temporary, &self.directory, &self.name);
        if renamed.is_err() {
            self.unlink(&temporary);
        }
        renamed
    }

    fn link_as(&self, name: &OsStr) -> Result<(), Errno> {
        rustix::fs::linkat(CWD, unnamed(&self.file), &self.directory, name, AtFlags::SYMLINK_FOLLOW)
    }

    fn rename(&self, temporary: &OsStr, replaces: bool) -> Result<(), Errno> {
        let (from, to) = (&self.directory, &self.directory);
        if replaces {
            return rustix::fs::renameat(from, temporary, to, &self.name);
        }
        match rustix::fs::renameat_with(from, temporary, to, &self.name, RenameFlags::NOREPLACE) {
            // Not every file system knows how.
            Err(Errno::INVAL | Errno::NOSYS) => {
                match rustix::fs::statat(to, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => rustix::fs::renameat(from, temporary, to, &self.name),
                    Ok(_) => Err(Errno::EXIST),
                    Err(error) => Err(error),
                }
            }
            renamed => renamed,
        }
    }

    /// True if a file with the same content has the name.
    fn is_there_already(&self) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(there) = rustix::fs::openat(&self.directory, &self.name, flags, Mode::empty()) else {
            return false;
        };
        let there = File::from(there);
        let length = |file: &File| file.metadata().ok().filter(fs::Metadata::is_file).map(|data| data.len());
        match (length(&self.file), length(&there)) {
            (Some(ours), Some(theirs)) if ours == theirs => {
                is_same(&self.file, &there, ours).unwrap_or(false)
            }
            _ => false,
        }
    }

    fn unlink(&self, name: &OsStr) {
        // Only this process knows the file, so a failure needs no report.
        let _ = rustix::fs::unlinkat(&self.directory, name, AtFlags::empty());
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            self.unlink(&temporary);
        }
    }
}

/// Opens the directory of a file, one name after the other, and creates missing ones.
fn open_directory(place: &Place) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base = if place.base == Path::new("") { Path::new(".") } else { &place.base };
    fs::create_dir_all(base).map_err(Error::io("create", base))?;
    let opened = rustix::fs::open(base, flags, Mode::empty());
    let mut directory = opened.map_err(|error| Error::io("open", base)(error.into()))?;
    let mut path = place.base.clone();
    for name in &place.names[..place.names.len().saturating_sub(1)] {
        path.push(name);
        let open = || rustix::fs::openat(&directory, name, flags | OFlags::NOFOLLOW, Mode::empty());
        let opened = match open() {
            Err(Errno::NOENT) => match rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => open(),
                Err(error) => Err(error),
            },
            opened => opened,
        };
        directory = opened.map_err(|error| {
            let status = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW);
            match status.map(|status| FileType::from_raw_mode(status.st_mode)) {
                Ok(FileType::Symlink) => Error::LinkInTheWay { file: place.path(), link: path.clone() },
                _ => Error::io("create", &path)(error.into()),
            }
        })?;
    }
    Ok(directory)
}

/// A new file in a directory: without a name, or with one of its own.
fn create(directory: impl AsFd, mode: Mode) -> Result<(File, Option<OsString>), Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    // A file without a name gets one by way of /proc.
    if Path::new("/proc/self/fd").exists() {
        match rustix::fs::openat(&directory, ".", flags | OFlags::TMPFILE, mode) {
            // The errors of a file system or kernel without such files.
            Err(Errno::NOTSUP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {}
            file => return Ok((file?.into(), None)),
        }
    }
    let flags = flags | OFlags::CREATE | OFlags::EXCL;
    let (file, name) = temporary_name(|name| rustix::fs::openat(&directory, name, flags, mode))?;
    Ok((file.into(), Some(name)))
}

/// Makes something under the first name of this process that is free.
fn temporary_name<T>(make: impl Fn(&OsStr) -> Result<T, Errno>) -> Result<(T, OsString), Errno> {
    let mut number = 0u32;
    loop {
        let name = OsString::from(format!(".hop-{}-{number}", std::process::id()));
        match make(&name) {
            Err(Errno::EXIST) if number < u32::MAX => number += 1,
            made => return Ok((made?, name)),
        }
    }
}

/// A path to an open file that has no name (proc_pid_fd(5)).
fn unnamed(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn is_same(one: &File, other: &File, length: u64) -> io::Result<bool> {
    let mut buffers = [vec![0; CHUNK], vec![0; CHUNK]];
    let mut offset = 0;
    while offset < length {
        let count = CHUNK.min(usize::try_from(length - offset).unwrap_or(CHUNK));
        let [ours, theirs] = &mut buffers;
        one.read_exact_at(&mut ours[..count], offset)?;
        other.read_exact_at(&mut theirs[..count], offset)?;
        if ours[..count] != theirs[..count] {
            return Ok(false);
        }
        offset += count as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(place: &Place, content: &[u8], replaces: bool) -> Result<Committed, Error> {
        let staged = StagedFile::create(place, 0o666)?;
        staged.file().write_all_at(content, 0).unwrap();
        staged.commit(replaces)
    }

    fn names(directory: &Path) -> Vec<OsString> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn links_below_directory_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["here", "elsewhere"] {
            fs::create_dir(at(name)).unwrap();
        }
        symlink("../elsewhere", at("here/sub")).unwrap();
        symlink("../elsewhere/victim", at("here/file")).unwrap();
        symlink("here", at("own")).unwrap();
        let below = |names: &[&[u8]]| Place::below(at("own"), names);
        let error = write(&below(&[b"sub", b"x"]), b"x", true).unwrap_err();
        assert!(matches!(error, Error::LinkInTheWay { .. }), "{error:?}");
        assert_eq!(write(&below(&[b"file"]), b"x", false).unwrap(), Committed::Exists);
        assert_eq!(write(&below(&[b"file"]), b"x", true).unwrap(), Committed::Stored);
        assert_eq!(write(&below(&[b"new", b"deep", b"x"]), b"x", false).unwrap(), Committed::Stored);
        assert_eq!(names(&at("elsewhere")), Vec::<OsString>::new());
        assert_eq!(names(&at("here")), ["file", "new", "sub"], "the user's own link leads there");
        assert!(
            at("here/file").symlink_metadata().unwrap().is_file(),
            "a link is replaced, and not followed"
        );
    }

    #[test]
    fn files_are_replaced_only_on_request() {
        // /tmp may be without files that have no names.
        for directory in [tempfile::tempdir().unwrap(), tempfile::tempdir_in("/var/tmp").unwrap()] {
            let place = Place::below(directory.path().to_owned(), &[b"x"]);
            let content = || fs::read(place.path()).unwrap();
            assert_eq!(write(&place, b"first", false).unwrap(), Committed::Stored);
            assert_eq!(write(&place, b"first", false).unwrap(), Committed::Stored, "nothing to replace");
            assert_eq!(
                (write(&place, b"other", false).unwrap(), content()),
                (Committed::Exists, b"first".into())
            );
            assert_eq!(
                (write(&place, b"other", true).unwrap(), content()),
                (Committed::Stored, b"other".into())
            );
            fs::create_dir(directory.path().join("d")).unwrap();
            let taken = Place::below(directory.path().to_owned(), &[b"d"]);
            assert_eq!(write(&taken, b"x", false).unwrap(), Committed::Exists);
            assert!(write(&taken, b"x", true).is_err());
            assert_eq!(names(directory.path()), ["d", "x"], "nothing else is left");
        }
    }

    #[test]
    fn temporary_names_without_tmpfile() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::below(directory.path().to_owned(), &[b"x"]);
        let staged = || {
            let directory = open_directory(&place).unwrap();
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
            let make = |name: &OsStr| rustix::fs::openat(&directory, name, flags, Mode::RUSR | Mode::WUSR);
            let (file, name) = temporary_name(make).unwrap();
            StagedFile {
                file: file.into(),
                directory,
                name: "x".into(),
                path: place.path(),
                temporary: Some(name),
            }
        };
        assert_eq!(staged().commit(false).unwrap(), Committed::Stored);
        let other = staged();
        other.file().write_all_at(b"other", 0).unwrap();
        assert_eq!(other.commit(false).unwrap(), Committed::Exists);
        assert_eq!(staged().commit(true).unwrap(), Committed::Stored);
        drop((staged(), staged()));
        assert_eq!(names(directory.path()), ["x"]);
    }
}
