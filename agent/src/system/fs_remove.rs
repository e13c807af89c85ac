//! Removes directory trees that a program had to itself.
//!
//! A program may leave any tree: 100,000 nested directories, a path longer than any system call takes, immutable
//! entries. A program that runs as root may have mounted something in it, such as `/etc` for a chroot.
//!
//! **Invariants:** mounted files belong to the router, and are never removed; no link is followed; a tree of any depth
//! and breadth takes at most eight descriptors; and a tree that cannot be removed does not block its name.

use std::ffi::{CStr, CString};
use std::fs::{self, File, Permissions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, SeekFrom, openat, renameat, seek, unlinkat};
use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, Setter, ioctl, opcode};
use rustix::mount::{UnmountFlags, unmount};

use crate::system::fs_walk::{READ_BYTES, entries, is_itself, open_directory};

/// Attempts at one entry, each after an obstacle was removed: mounts on top of each other, a mode, a flag.
const MAX_TRIES: usize = 8;

/// How often a directory is read again because it has new entries. It has none, unless a program still runs.
const MAX_ROUNDS: usize = 8;

/// Prefix of the names of trees that could not be removed; a number follows. No job has such an id.
const LEFTOVER: &str = "leftover-";

/// How many of these names to try.
const MAX_LEFTOVERS: u32 = 1024;

/// Flags that keep even root from removing a file (ioctl_iflags(2)).
const FLAGS: Opcode = opcode::read::<libc::c_long>(b'f', 1);
const SET_FLAGS: Opcode = opcode::write::<libc::c_long>(b'f', 2);
const APPEND_ONLY: libc::c_int = 0x20;
const IMMUTABLE: libc::c_int = 0x10;

/// Removes `path` and everything in it; unmounts whatever is mounted in it first. Removes as much as it can even if an
/// entry cannot be removed.
///
/// # Errors
/// The kernel's first error. It is no error if `path` does not exist.
pub fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let parent =
        match rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            parent => File::from(parent?),
        };
    let name = CString::new(name.as_bytes())?;
    Ok(amend(parent.as_fd(), &name, || match unlink(parent.as_fd(), &name, true) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {
            let root = open_directory(parent.as_fd(), &name)?;
            let cleared = Removal { root: &root, waiting: Vec::new(), count: 0 }.run();
            unlink(parent.as_fd(), &name, true).map_err(|error| cleared.err().unwrap_or(error))
        }
        removed => removed,
    })?)
}

/// Removes `path` and everything in it. If something remains, renames that to another name in the same directory, by
/// which [`retry`] finds it. Afterwards nothing is called `path`.
///
/// # Errors
/// It can do neither.
pub fn clear(path: &Path) -> io::Result<()> {
    let Err(error) = remove(path) else { return Ok(()) };
    let aside = set_aside(path)?;
    tracing::warn!(path = %path.display(), aside = %aside.display(), %error, "cannot remove a directory completely; setting it aside");
    Ok(())
}

/// Tries again to remove the trees in a directory that were set aside.
pub fn retry(directory: &Path) {
    for entry in entries(directory) {
        let is_leftover = entry.file_name().as_bytes().starts_with(LEFTOVER.as_bytes());
        // The log said why when the tree was set aside.
        if is_leftover && remove(&entry.path()).is_ok() {
            tracing::info!(path = %entry.path().display(), "removed a directory that had been set aside");
        }
    }
}

fn set_aside(path: &Path) -> io::Result<PathBuf> {
    for number in 1..=MAX_LEFTOVERS {
        let aside = path.with_file_name(format!("{LEFTOVER}{number}"));
        match fs::rename(path, &aside) {
            // The name is taken.
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR)
                ) => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(aside),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// A directory that is being emptied.
///
/// The removal does not descend further than two levels: it empties each directory in the root, and moves the ones in
/// that directory that are not empty up into the root before. So it moves each directory once, and has three open at a
/// time. The kernel neither moves nor removes a mount point (EBUSY, rename(2)), whatever happens to the tree meanwhile.
struct Removal<'a> {
    root: &'a File,
    /// Directories that were moved up and are not empty yet, by the numbers that are their names now.
    waiting: Vec<u32>,
    /// How many numbers have been given out.
    count: u32,
}

impl Removal<'_> {
    fn run(mut self) -> Result<(), Errno> {
        let mut result = Ok(());
        for _ in 0..MAX_ROUNDS {
            seek(self.root, SeekFrom::Start(0))?;
            let found = self.empty(self.root, true);
            let is_empty = matches!(found, Ok(false));
            result = found.map(drop);
            while let Some(number) = self.waiting.pop() {
                let name = name_of(number);
                let emptied = self.remove_child(&name);
                result = result.and(emptied);
            }
            // After an error, the rest stays.
            if is_empty || result.is_err() {
                break;
            }
        }
        result
    }

    /// Removes the entries of a directory, and moves those up that are not empty; in the root, empties these where they
    /// are. Returns whether there was any entry.
    fn empty(&mut self, directory: &File, is_root: bool) -> Result<bool, Errno> {
        let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
        let mut names = RawDir::new(directory, &mut buffer);
        let mut result = Ok(false);
        while let Some(entry) = names.next() {
            let entry = entry?;
            let name = entry.file_name();
            if is_itself(name) {
                continue;
            }
            let removed = if is_root {
                self.remove_child(name)
            } else {
                let is_directory = entry.file_type() == FileType::Directory;
                amend(directory.as_fd(), name, || match unlink(directory.as_fd(), name, is_directory) {
                    Err(Errno::NOTEMPTY | Errno::EXIST) => self.move_up(directory, name),
                    removed => removed,
                })
            };
            result = result.and(removed.map(|()| true));
        }
        result
    }

    /// Removes an entry of the root.
    fn remove_child(&mut self, name: &CStr) -> Result<(), Errno> {
        let root = self.root.as_fd();
        amend(root, name, || match unlink(root, name, true) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                let child = open_directory(root, name)?;
                let emptied = self.empty(&child, false);
                unlink(root, name, true).map_err(|error| emptied.err().unwrap_or(error))
            }
            removed => removed,
        })
    }

    fn move_up(&mut self, directory: &File, name: &CStr) -> Result<(), Errno> {
        loop {
            self.count = self.count.checked_add(1).ok_or(Errno::OVERFLOW)?;
            match renameat(directory, name, self.root, name_of(self.count)) {
                // The program has created an entry with this name.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                moved => {
                    moved?;
                    self.waiting.push(self.count);
                    return Ok(());
                }
            }
        }
    }
}

/// The name of a directory that was moved up.
fn name_of(number: u32) -> CString {
    // Digits have no zero byte.
    CString::new(number.to_string()).unwrap_or_default()
}

/// Removes a file or an empty directory. It is no error if it does not exist any more.
fn unlink(directory: BorrowedFd<'_>, name: &CStr, is_directory: bool) -> Result<(), Errno> {
    let kinds = [AtFlags::REMOVEDIR, AtFlags::empty()];
    let [first, second] = if is_directory { kinds } else { [kinds[1], kinds[0]] };
    match unlinkat(directory, name, first) {
        Err(Errno::NOTDIR | Errno::ISDIR) => match unlinkat(directory, name, second) {
            Err(Errno::NOENT) => Ok(()),
            removed => removed,
        },
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}

/// Tries an operation on an entry, again and again as long as it can remove an obstacle.
fn amend(
    directory: BorrowedFd<'_>,
    name: &CStr,
    mut attempt: impl FnMut() -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut tries = 0;
    loop {
        tries += 1;
        let error = match attempt() {
            Ok(()) => return Ok(()),
            Err(error) if tries == MAX_TRIES => return Err(error),
            Err(error) => error,
        };
        let is_obstacle_removed = match error {
            Errno::BUSY => unmount_entry(directory, name),
            Errno::PERM | Errno::ACCESS => permit(directory, name),
            _ => false,
        };
        if !is_obstacle_removed {
            return Err(error);
        }
    }
}

/// Unmounts the mount on an entry, with all mounts below it.
fn unmount_entry(directory: BorrowedFd<'_>, name: &CStr) -> bool {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok()
}

/// Removes what protects an entry from being removed, on it and on its directory: a mode, which binds all users but
/// root, and flags, which bind root too. Returns whether there was any such protection.
fn permit(directory: BorrowedFd<'_>, name: &CStr) -> bool {
    let mut is_changed = permit_one(directory);
    let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    is_changed |= openat(directory, name, look, Mode::empty()).is_ok_and(|entry| permit_one(entry.as_fd()));
    is_changed
}

fn permit_one(file: BorrowedFd<'_>) -> bool {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut is_changed = false;
    // No other type of file has flags, and opening a device may have an effect.
    let Some(metadata) = fs::metadata(&path).ok().filter(|found| found.is_dir() || found.is_file()) else {
        return false;
    };
    let is_closed = metadata.is_dir() && metadata.permissions().mode() & 0o700 != 0o700;
    if is_closed {
        is_changed |= fs::set_permissions(&path, Permissions::from_mode(0o700)).is_ok();
    }
    let Ok(file) = File::open(&path) else { return is_changed };
    // SAFETY: the kernel writes an int, whatever the number of the request says (fs/ioctl.c).
    let flags = unsafe { ioctl(&file, Getter::<FLAGS, libc::c_int>::new()) };
    match flags {
        Ok(flags) if flags & (APPEND_ONLY | IMMUTABLE) != 0 => {
            let without = flags & !(APPEND_ONLY | IMMUTABLE);
            // SAFETY: the kernel reads an int.
            is_changed | unsafe { ioctl(&file, Setter::<SET_FLAGS, libc::c_int>::new(without)) }.is_ok()
        }
        _ => is_changed,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use hop_proto::limits::INPUT_ENTRY_BYTES;
    use rustix::fs::mkdirat;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;
    use crate::system::fs_walk::{OPEN, Usage, names, usage};

    /// Creates nested directories, and a file in the last one; its path is longer than any system call takes.
    fn make_deep(root: &Path, depth: usize, name: &CStr) {
        fs::create_dir(root).unwrap();
        let mut directory = File::open(root).unwrap();
        for _ in 0..depth {
            mkdirat(&directory, name, Mode::RWXU).unwrap();
            directory = open_directory(directory.as_fd(), name).unwrap();
        }
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let file = File::from(openat(&directory, c"file", flags, Mode::RWXU).unwrap());
        rustix::io::write(&file, b"seven\0\n").unwrap();
    }

    /// Runs one of these tests in the test executable, which is the last argument of `command`.
    fn run_again(command: &mut Command, test: &str) {
        let (_, module) = module_path!().split_once("::").unwrap();
        let output = command.args(["--exact", &format!("{module}::{test}"), "--nocapture"]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let has_run = told.contains("running 1 test") && output.status.success();
        assert!(has_run, "{test}: {told}{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs one of these tests again in a process and namespaces of its own, where it is root.
    fn in_a_namespace(test: &str) -> bool {
        const INSIDE: &str = "HOP_TEST_INSIDE";
        if std::env::var_os(INSIDE).is_some() {
            return true;
        }
        let mut command = Command::new("unshare");
        command.args(["-rm", "--propagation", "private"]).arg(std::env::current_exe().unwrap());
        run_again(command.env(INSIDE, "1"), test);
        false
    }

    #[test]
    fn deep_trees_need_few_descriptors() {
        if !in_a_namespace("deep_trees_need_few_descriptors") {
            return;
        }
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let (deep, long) = (dir.path().join("deep"), dir.path().join("long"));
        make_deep(&deep, 10_000, c"d");
        make_deep(&long, 2_000, &CString::new(vec![b'n'; 255]).unwrap());
        let used = File::open(dir.path()).unwrap().as_raw_fd() as u64;
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(used + OPEN as u64 + 8), maximum }).unwrap();
        assert_eq!(usage(&deep), Usage { bytes: 7 + 10_001 * INPUT_ENTRY_BYTES, names: 10_001 });
        assert_eq!(names(&long), 2_001);
        for path in [&deep, &long] {
            remove(path).unwrap();
            assert!(!path.exists());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn removal_of_broad_tree_stays_inside() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "x").unwrap();
        for number in 0..200 {
            // Names that a removal uses itself.
            let path = tree.join(number.to_string()).join("1/2/3/4/5/6/7/8/9/10/11");
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("file"), "x").unwrap();
            symlink(&outside, path.join("link")).unwrap();
            fs::hard_link(outside.join("file"), path.join("same")).unwrap();
        }
        fs::write(tree.join("201"), "a file by a name that a removal would give").unwrap();
        symlink(&outside, tree.join("link")).unwrap();
        assert_eq!(names(&tree), 200 * (1 + 11 + 3) + 2);
        remove(&tree).unwrap();
        assert!(!tree.exists() && outside.join("file").exists());
        symlink(&outside, &tree).unwrap();
        remove(&tree).unwrap();
        assert!(outside.join("file").exists());
        remove(&tree).unwrap();
        remove(&tree.join("no/such")).unwrap();
    }

    #[test]
    fn mounts_in_a_tree_are_unmounted() {
        if !in_a_namespace("mounts_in_a_tree_are_unmounted") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        fs::create_dir_all(outside.join("kept")).unwrap();
        fs::write(outside.join("file"), "x").unwrap();
        // Shorter than 4,096 bytes, and on the same file system: nothing but the kernel knows that it is a mount.
        let deep = tree.join("x".repeat(200)).join("y".repeat(200));
        for (directory, is_twice) in [(tree.join("a/b"), false), (deep, true), (tree.clone(), false)] {
            fs::create_dir_all(&directory).unwrap();
            for _ in 0..=u32::from(is_twice) {
                rustix::mount::mount_bind(&outside, &directory).unwrap();
            }
        }
        remove(&tree).unwrap();
        assert!(!tree.exists() && outside.join("file").exists() && outside.join("kept").exists());
    }

    #[test]
    fn unremovable_trees_are_set_aside() {
        if !in_a_namespace("unremovable_trees_are_set_aside") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        // A namespace may not unmount a mount of another one (mount_namespaces(7)), so this runs the test in a further
        // namespace.
        let script = "mkdir -p \"$0/a/b\" \"$0/c\" && mount -t tmpfs none \"$0/a/b\" && exec unshare -Um --map-root-user \"$@\"";
        if std::env::var_os("HOP_TEST_DEEPER").is_none() {
            let mut command = Command::new("sh");
            command.args(["-c", script]).arg(&tree).arg(std::env::current_exe().unwrap());
            run_again(command.env("HOP_TEST_DEEPER", &tree), "unremovable_trees_are_set_aside");
            return;
        }
        let tree = PathBuf::from(std::env::var_os("HOP_TEST_DEEPER").unwrap());
        assert!(remove(&tree).is_err());
        assert!(tree.join("a/b").exists() && !tree.join("c").exists(), "the rest is gone");
        clear(&tree).unwrap();
        assert!(!tree.exists(), "its name is free");
        let aside = tree.with_file_name("leftover-1");
        assert!(aside.join("a/b").exists());
        retry(aside.parent().unwrap());
        assert!(aside.exists(), "it still cannot be removed");
    }

    #[test]
    fn modes_and_flags_are_overcome() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("closed/inner")).unwrap();
        fs::write(tree.join("closed/inner/file"), "x").unwrap();
        // If the file system has no flags, or this user may not set them, there is nothing to remove.
        let _ =
            Command::new("chattr").args(["+i".as_ref(), tree.join("closed/inner/file").as_os_str()]).output();
        for closed in ["closed/inner", "closed"] {
            fs::set_permissions(tree.join(closed), Permissions::from_mode(0o000)).unwrap();
        }
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }
}
