//! The files of a module: those that Git knows or would add, where Git knows the module, else all that there are.
//!
//! **Invariants:** the same module gives the same files; links to directories are followed, and never in a circle; and what
//! is looked at has a bound.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Error;
use crate::transfer::inputs::Files;

/// Directories of version control systems.
const VERSION_CONTROL: [&str; 4] = [".git", ".hg", ".svn", ".bzr"];

/// Links to directories that lead on to one another.
const MAX_LINKS: usize = 8;

/// Files that are looked at to say how many too many there are.
const MAX_LOOKED_AT: usize = 1_000_000;

/// Variables by which Git, while it runs a hook, tells its children of the repository that it is in (githooks(5)).
const OF_GIT: [&str; 4] = ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"];

/// How much may be found.
#[derive(Clone, Copy)]
pub struct Bound {
    /// Bytes in all files.
    pub bytes: u64,
    /// Number of files.
    pub files: usize,
    /// What is beyond is counted.
    pub counts_on: bool,
}

/// Why nothing more is looked for.
pub enum Stop {
    /// There is more than the bound.
    TooMuch,
    /// A file system fails.
    Failed(Error),
}

/// Files that were found in a module.
pub struct Found {
    root: PathBuf,
    uses_git: bool,
    bound: Bound,
    /// By their paths below the root.
    pub files: Files,
    /// What exists and cannot be read.
    pub unreadable: Vec<PathBuf>,
    /// Bytes in all files, and their number.
    pub bytes: u64,
    pub count: usize,
    /// Where the links lead that are being followed.
    followed: Vec<PathBuf>,
}

impl Found {
    /// Nothing yet, of what is below `root`.
    pub fn new(root: &Path, uses_git: bool, bound: Bound) -> Self {
        Self {
            root: root.to_owned(),
            uses_git,
            bound,
            files: Files::default(),
            unreadable: Vec::new(),
            bytes: 0,
            count: 0,
            followed: Vec::new(),
        }
    }

    /// True if there is more than the bound.
    pub fn is_too_much(&self) -> bool {
        self.bytes > self.bound.bytes || self.count > self.bound.files
    }

    /// Adds the files of a directory, and of those directories below it that belong to it; or a single file.
    pub fn take(&mut self, path: &Path, belongs: fn(&Path) -> bool) -> Result<(), Stop> {
        if !path.is_dir() {
            return self.add(path);
        }
        let listed = if self.uses_git { list(path) } else { Vec::new() };
        // Git lists nothing of a directory that it ignores, although something it does not ignore leads there.
        if listed.is_empty() { self.walk(path, belongs) } else { self.take_listed(path, &listed, belongs) }
    }

    /// Adds what Git lists in a directory.
    fn take_listed(
        &mut self,
        directory: &Path,
        listed: &[PathBuf],
        belongs: fn(&Path) -> bool,
    ) -> Result<(), Stop> {
        self.add_directory(directory);
        let mut known = BTreeMap::new();
        for path in listed {
            let path = directory.join(path);
            let mut above: Vec<_> =
                path.ancestors().skip(1).take_while(|above| *above != directory).collect();
            above.reverse();
            let is_foreign =
                |above: &&Path| !*known.entry(above.to_path_buf()).or_insert_with(|| belongs(above));
            match above.into_iter().find(is_foreign) {
                // A test that lists the directory above it finds its name.
                Some(foreign) => self.add_directory(foreign),
                None => self.take_entry(&path, belongs)?,
            }
        }
        Ok(())
    }

    /// Adds everything in a directory.
    fn walk(&mut self, directory: &Path, belongs: fn(&Path) -> bool) -> Result<(), Stop> {
        self.add_directory(directory);
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                self.unreadable.push(directory.to_owned());
                return Ok(());
            }
            entries => entries.map_err(|error| Stop::Failed(Error::io("read", directory)(error)))?,
        };
        for entry in entries {
            let entry = entry.map_err(|error| Stop::Failed(Error::io("read", directory)(error)))?;
            self.take_entry(&entry.path(), belongs)?;
        }
        Ok(())
    }

    fn take_entry(&mut self, path: &Path, belongs: fn(&Path) -> bool) -> Result<(), Stop> {
        if path.file_name().is_some_and(|name| VERSION_CONTROL.iter().any(|known| name == *known)) {
            return Ok(());
        }
        // Git knows files that are not there any more.
        let Ok(own) = fs::symlink_metadata(path) else { return Ok(()) };
        let is_directory = fs::metadata(path).is_ok_and(|metadata| metadata.is_dir());
        if is_directory && !belongs(path) {
            self.add_directory(path);
            Ok(())
        } else if is_directory && own.is_symlink() {
            self.follow(path, belongs)
        } else if is_directory {
            // Of a submodule, Git lists the directory.
            self.take(path, belongs)
        } else if own.is_file() || own.is_symlink() {
            self.add(path)
        } else {
            Ok(())
        }
    }

    /// Adds what is behind a link to a directory, or the link, if that would be without end.
    fn follow(&mut self, link: &Path, belongs: fn(&Path) -> bool) -> Result<(), Stop> {
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let (target, place) = (real(link), real(link.parent().unwrap_or(link)));
        let is_circle = place.starts_with(&target) || self.followed.contains(&target);
        if is_circle || self.followed.len() >= MAX_LINKS {
            return self.add(link);
        }
        self.followed.push(target);
        let taken = self.take(link, belongs);
        self.followed.pop();
        taken
    }

    fn add(&mut self, path: &Path) -> Result<(), Stop> {
        let metadata = fs::metadata(path).ok().filter(|metadata| metadata.is_file());
        if metadata.is_some()
            && File::open(path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
        {
            self.unreadable.push(path.to_owned());
            return Ok(());
        }
        // What is beyond the bound as well, so that the error can name the largest.
        let below = path.strip_prefix(&self.root).unwrap_or(path);
        if self.files.has(below) {
            return Ok(());
        }
        self.files.add(below, path).map_err(|error| Stop::Failed(error.into()))?;
        self.bytes += metadata.map_or(0, |metadata| metadata.len());
        self.count += 1;
        let stops = self.is_too_much() && (!self.bound.counts_on || self.count >= MAX_LOOKED_AT);
        if stops { Err(Stop::TooMuch) } else { Ok(()) }
    }

    fn add_directory(&mut self, path: &Path) {
        self.files.add_directory(path.strip_prefix(&self.root).unwrap_or(path));
    }
}

/// True if Git knows the file `go.mod` of a module, or would add it: a module that a repository around it ignores is none of it.
pub fn is_known_to_git(module: &Path) -> bool {
    !git(module, &["--", "go.mod"]).is_empty()
}

/// What Git lists in a directory: files, and directories of other repositories.
fn list(directory: &Path) -> Vec<PathBuf> {
    git(directory, &[])
}

/// Files that Git knows and those that it would add, below a directory; none if there is no Git, or no repository.
fn git(directory: &Path, more: &[&str]) -> Vec<PathBuf> {
    let mut git = Command::new("git");
    OF_GIT.iter().for_each(|variable| _ = git.env_remove(variable));
    // The monitor of a repository is a program that it names.
    git.arg("-C").arg(directory).args(["-c", "core.fsmonitor=false", "ls-files", "-z"]);
    git.args(["--cached", "--others", "--exclude-standard"])
        .args(more)
        .stderr(Stdio::null())
        .stdin(Stdio::null());
    let listed = git.output().ok().filter(|output| output.status.success());
    let listed = listed.map(|output| output.stdout).unwrap_or_default();
    let names = listed.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| Path::new(OsStr::from_bytes(name)).components().collect()).collect()
}
