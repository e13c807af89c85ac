//! Opens files that decide who may connect only if nobody else can have written them: sshd calls this StrictModes.
//!
//! **Invariants:** the file and every directory above it belong to root or to the user that hopd runs as, and nobody
//! else can write to them. A directory in which everybody may create files is accepted if it is sticky, because then
//! nobody can rename or remove somebody else's files; so is `/tmp` without that bit, as on DD-WRT. The checks apply to
//! the open file, not to a name that could lead elsewhere a moment later.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Write permission of the group and of all others (stat(2)).
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Every permission of the group and of all others.
const OPEN_TO_OTHERS: u32 = 0o077;

/// Only its owner may rename or remove a file in such a directory.
const STICKY: u32 = 0o1000;

/// The owner that a user namespace shows for files of users that it does not know (user_namespaces(7)).
const OVERFLOW_UID: u32 = 65534;

/// Why a file is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file or a directory above it cannot be opened.
    #[error("cannot open {}: {source}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// It is not a regular file.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Somebody else owns it.
    #[error("{} belongs to user {owner}; it must be root's: chown root", .path.display())]
    Owner {
        /// The file, or a directory above it.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Somebody else could write to it.
    #[error("others can write to {} (mode {mode:04o}): chmod go-w", .path.display())]
    Writable {
        /// The file, or a directory above it.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Somebody else could read it, and it is a secret.
    #[error("others can read or write {} (mode {mode:04o}): chmod 600", .path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

impl Error {
    /// True if there is no such file.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Opens a file for reading if only root and the user of this process can have written it.
///
/// # Errors
/// [`Error`].
pub fn open(path: &Path) -> Result<File, Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    // Resolves links first, as sshd does: only the real location of the file counts.
    let path = fs::canonicalize(path).map_err(failed)?;
    check_directories(&path)?;
    // Neither waits for the writer of a pipe nor follows a link that has just been created there.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(&path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Error::NotAFile(path));
    }
    check_one(&path, &metadata)?;
    Ok(file)
}

/// Checks a secret: a file that [`open`] accepts, and that nobody else can read either.
///
/// # Errors
/// [`Error`].
pub fn check_private(path: &Path) -> Result<(), Error> {
    let metadata = open(path)?.metadata().map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let mode = metadata.mode() & 0o7777;
    if mode & OPEN_TO_OTHERS != 0 {
        return Err(Error::NotPrivate { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Checks every directory above an absolute path without links.
fn check_directories(path: &Path) -> Result<(), Error> {
    for directory in path.ancestors().skip(1) {
        let metadata = fs::symlink_metadata(directory)
            .map_err(|source| Error::Io { path: directory.to_owned(), source })?;
        let is_shared = metadata.mode() & STICKY != 0 || directory == Path::new("/tmp");
        if !(is_shared && is_trusted(metadata.uid())) {
            check_one(directory, &metadata)?;
        }
    }
    Ok(())
}

fn check_one(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if !is_trusted(owner) {
        return Err(Error::Owner { path: path.to_owned(), owner });
    }
    // A user's own group has the user's number and no other member, and where such groups exist, the usual umask lets
    // the group write. Root's group may have other members.
    let has_own_group = owner != 0 && metadata.gid() == owner;
    let others = if has_own_group { WRITABLE_BY_OTHERS & 0o007 } else { WRITABLE_BY_OTHERS };
    if mode & others != 0 {
        return Err(Error::Writable { path: path.to_owned(), mode });
    }
    Ok(())
}

/// True for root and for the user of this process. A user namespace shows root's files as nobody's.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw() || uid == OVERFLOW_UID && is_in_user_namespace()
}

/// False if user numbers are those of the whole machine: one line maps all of them to themselves.
fn is_in_user_namespace() -> bool {
    // A kernel without the file has no user namespaces.
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.is_empty() && !map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn files_writable_by_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("directory");
        let file = directory.join("list");
        fs::create_dir(&directory).unwrap();
        fs::write(&file, "content").unwrap();
        for (directory_mode, file_mode, is_good) in
            [(0o755, 0o644, true), (0o755, 0o646, false), (0o757, 0o644, false), (0o1757, 0o644, true)]
        {
            set_mode(&directory, directory_mode);
            set_mode(&file, file_mode);
            let opened = open(&file);
            assert_eq!(opened.is_ok(), is_good, "{directory_mode:o} {file_mode:o}: {opened:?}");
            assert!(is_good || matches!(opened, Err(Error::Writable { .. })));
        }
        // Under another name, its real location counts.
        let link = dir.path().join("link");
        symlink(&file, &link).unwrap();
        assert!(open(&link).is_ok());
        set_mode(&directory, 0o757);
        assert!(open(&link).is_err());
    }

    #[test]
    fn secrets_readable_by_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        fs::write(&key, "secret").unwrap();
        set_mode(&key, 0o600);
        assert!(check_private(&key).is_ok());
        set_mode(&key, 0o640);
        assert!(matches!(check_private(&key), Err(Error::NotPrivate { mode: 0o640, .. })));
        assert!(open(dir.path()).is_err(), "a directory is no file");
        assert!(open(&dir.path().join("nothing")).unwrap_err().is_not_found());
    }

    #[test]
    fn files_of_other_users_are_refused() {
        // Only root can give a file away.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("directory");
        let file = directory.join("list");
        fs::create_dir(&directory).unwrap();
        fs::write(&file, "content").unwrap();
        set_mode(&directory, 0o1755);
        for path in [&file, &directory] {
            std::os::unix::fs::chown(path, Some(1234), None).unwrap();
            let refused = open(&file).unwrap_err();
            assert!(
                matches!(&refused, Error::Owner { owner: 1234, path: found } if found == path),
                "{refused}"
            );
            std::os::unix::fs::chown(path, Some(0), None).unwrap();
        }
        assert!(open(&file).is_ok());
    }
}
