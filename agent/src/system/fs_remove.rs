//! Directory trees that a program had to itself: how they are removed, and what they take.
//!
//! A program may leave any tree: 100,000 directories one in the other, a path longer than any system call takes, entries that
//! are immutable. One that runs as root may have mounted something in there: `/etc`, for a chroot.
//!
//! **Invariants:** what is mounted there is the router's, and is never removed; no link is followed; neither the depth of a
//! tree nor its breadth costs more than eight descriptors; and what cannot be removed keeps nobody from using its name.

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

/// How often one entry is tried after what is in its way was taken away: mounts one over the other, a mode, a flag.
const MAX_TRIES: usize = 8;

/// How often a directory is looked through again because something new is in it. Nothing is, unless a program still runs.
const MAX_ROUNDS: usize = 8;

/// What the names of trees that could not be removed begin with; a number follows. No job is called so.
const LEFTOVER: &str = "leftover-";

/// How many such names are tried.
const MAX_LEFTOVERS: u32 = 1024;

/// Flags of a file that keep even root from removing it (ioctl_iflags(2)).
const FLAGS: Opcode = opcode::read::<libc::c_long>(b'f', 1);
const SET_FLAGS: Opcode = opcode::write::<libc::c_long>(b'f', 2);
const APPEND_ONLY: libc::c_int = 0x20;
const IMMUTABLE: libc::c_int = 0x10;

/// Removes `path` and everything in it; what is mounted there is unmounted first. What cannot be removed does not keep the
/// rest.
///
/// # Errors
/// The first of the kernel's. A path that is not there is not an error.
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

/// Removes `path` and everything in it; and if something of it stays, gives that another name beside it, by which
/// [`retry`] finds it. The path is free afterwards.
///
/// # Errors
/// Neither can be done.
pub fn clear(path: &Path) -> io::Result<()> {
    let Err(error) = remove(path) else { return Ok(()) };
    let aside = set_aside(path)?;
    tracing::warn!(path = %path.display(), aside = %aside.display(), %error, "cannot remove all of a directory, which is set aside");
    Ok(())
}

/// Tries again to remove what was set aside in a directory.
pub fn retry(directory: &Path) {
    for entry in entries(directory) {
        let is_leftover = entry.file_name().as_bytes().starts_with(LEFTOVER.as_bytes());
        // Why it stays was said when it was set aside.
        if is_leftover && remove(&entry.path()).is_ok() {
            tracing::info!(path = %entry.path().display(), "removed what could not be removed before");
        }
    }
}

fn set_aside(path: &Path) -> io::Result<PathBuf> {
    for number in 1..=MAX_LEFTOVERS {
        let aside = path.with_file_name(format!("{LEFTOVER}{number}"));
        match fs::rename(path, &aside) {
            // There is one of this name.
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
/// No way leads down into it: a directory in it that is not empty is emptied itself, and what is not empty in that one is
/// moved up before. So each directory is moved once, and three are open at a time. The kernel neither moves nor removes a
/// mount point (EBUSY, rename(2)), whatever else is done to the tree meanwhile.
struct Removal<'a> {
    root: &'a File,
    /// What was moved up and not emptied yet, by the numbers that are their names now.
    waiting: Vec<u32>,
    /// How many numbers were given.
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
            // With an error, what there still is stays.
            if is_empty || result.is_err() {
                break;
            }
        }
        result
    }

    /// Removes what is in a directory, and moves up what is not empty; in the one above, that is emptied where it is. Gives
    /// whether there was anything.
    fn empty(&mut self, directory: &File, is_root: bool) -> Result<bool, Errno> {
        let mut room = [MaybeUninit::uninit(); READ_BYTES];
        let mut names = RawDir::new(directory, &mut room);
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

    /// Removes what is directly in the root.
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
                // The program has called something so.
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

/// What moved up is called.
fn name_of(number: u32) -> CString {
    // Digits have no zero byte.
    CString::new(number.to_string()).unwrap_or_default()
}

/// Removes a file, or a directory that is empty. What is not there any more is removed.
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

/// Tries something with an entry, and again when what was in its way is gone.
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
        let is_out_of_the_way = match error {
            Errno::BUSY => unmount_entry(directory, name),
            Errno::PERM | Errno::ACCESS => permit(directory, name),
            _ => false,
        };
        if !is_out_of_the_way {
            return Err(error);
        }
    }
}

/// Unmounts what is mounted on an entry, however deep that is.
fn unmount_entry(directory: BorrowedFd<'_>, name: &CStr) -> bool {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok()
}

/// Takes away what keeps an entry from being removed, in it and in its directory: a mode, for who is not root; flags, for
/// root too. True if there was something.
fn permit(directory: BorrowedFd<'_>, name: &CStr) -> bool {
    let mut is_changed = permit_one(directory);
    let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    is_changed |= openat(directory, name, look, Mode::empty()).is_ok_and(|entry| permit_one(entry.as_fd()));
    is_changed
}

fn permit_one(file: BorrowedFd<'_>) -> bool {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut is_changed = false;
    // Nothing else has flags, and to open a device does something.
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

    /// Makes directories one in the other, and a file in the last one; the path to that is longer than any system call takes.
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

    /// Runs one of these tests in the executable of the tests, which `command` ends with.
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
            // The names that a removal gives.
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
        // Below 4,096 bytes, and on the same file system: nothing but the kernel knows it for a mount.
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
        // A namespace may not unmount what another one has mounted (mount_namespaces(7)): like this, in one more.
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
        // Where the file system has no flags, or this user may not set them, there is nothing to take away.
        let _ =
            Command::new("chattr").args(["+i".as_ref(), tree.join("closed/inner/file").as_os_str()]).output();
        for closed in ["closed/inner", "closed"] {
            fs::set_permissions(tree.join(closed), Permissions::from_mode(0o000)).unwrap();
        }
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }
}
