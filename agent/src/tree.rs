//! Directory trees that a program had to itself, and how they are removed.
//!
//! A program that runs as root may have mounted something in there: `/etc`, for a chroot. What must stay true: what is
//! below a mount point is the router's and is never removed.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

/// Removes `path` and everything in it. What is mounted below it is unmounted first; if that fails, nothing is removed.
///
/// # Errors
/// The kernel's. A path that is not there is not an error.
pub fn remove(path: &Path) -> io::Result<()> {
    let mountinfo = fs::read("/proc/self/mountinfo")?;
    // The last one first: a later mount may hide or stand on an earlier one.
    for mount in mounts_below(path, &mountinfo).iter().rev() {
        unmount(mount, UnmountFlags::DETACH)?;
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
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

/// Bytes that the files in a tree are long. What cannot be read counts nothing, and so does what is on another file system.
pub fn size(path: &Path) -> u64 {
    let Ok(device) = fs::symlink_metadata(path).map(|metadata| metadata.dev()) else { return 0 };
    let mut directories = vec![path.to_owned()];
    let mut bytes = 0;
    while let Some(directory) = directories.pop() {
        for entry in entries(&directory) {
            match entry.metadata() {
                Ok(metadata) if metadata.dev() != device => {}
                Ok(metadata) if metadata.is_dir() => directories.push(entry.path()),
                // The length, and not the blocks: ramfs counts none. Of a file with holes it is too much.
                Ok(metadata) => bytes += metadata.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}

/// The mount points strictly below `path`, in the order in which they were mounted (field 5 of mountinfo, proc(5)).
pub fn mounts_below(path: &Path, mountinfo: &[u8]) -> Vec<PathBuf> {
    mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(std::ffi::OsString::from_vec(unescape(field))))
        .filter(|mount| mount.starts_with(path) && mount != path)
        .collect()
}

/// The kernel writes space, tab, newline and backslash as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| after.get(..3)).flatten();
        let value = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { &after[3..] } else { after };
    }
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_mounts_below_the_path_are_found() {
        let mountinfo = b"22 1 0:21 / /tmp rw - tmpfs tmpfs rw\n\
            30 22 0:22 / /tmp/hop/jobs/1/work/a\\040b rw - tmpfs none rw\n\
            31 22 0:22 / /tmp/hop/jobs/10 rw - tmpfs none rw\n\
            32 22 0:22 / /tmp/hop/jobs/1 rw - tmpfs none rw\n\
            33 22 0:22 / /tmp/hop/jobs/1/ rw - tmpfs none rw\n";
        assert_eq!(
            mounts_below(Path::new("/tmp/hop/jobs/1"), mountinfo),
            [Path::new("/tmp/hop/jobs/1/work/a b")]
        );
    }

    #[test]
    fn a_tree_is_removed_and_one_that_is_not_there_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/file"), "x").unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists());
        remove(&tree).unwrap();
    }
}
