//! The directory of one job: its program, and the directory in which that works.
//!
//! The paths are short, because programs put Unix sockets into their temporary directory, and the path of one has at
//! most 107 bytes (unix(7)): `/tmp/hop/j/7/w`.
//!
//! **Invariants:** dropping a [`JobDirectory`] removes the directory and everything in it or, if that is impossible,
//! frees its name; no two jobs have the same at a time; and only root and the user as whom the program runs can look
//! into it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::job::error::Error;
use crate::process::user::User;
use crate::system::fs_remove;

/// Mode of a directory that other users may pass through, but not read.
const PASS: u32 = 0o711;

/// Name of the directory with the directories of all jobs, in the agent's own.
pub const JOBS: &str = "j";

/// Names of job directories, three digits at most. A name comes again only after all others, so that what a process
/// that escaped from its job still writes by path hits no job soon.
const NAMES: u32 = 1000;

/// Gives each job's directory a name.
#[derive(Default)]
pub struct Names(AtomicU32);

/// A directory of one job.
pub struct JobDirectory {
    path: PathBuf,
}

impl JobDirectory {
    /// Creates it in `parent`, the agent's directory for all jobs, under the next free name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(parent: &Path, names: &Names) -> Result<Self, Error> {
        let mut tries = 0..NAMES;
        let path = loop {
            let number = names.0.fetch_add(1, Ordering::Relaxed) % NAMES;
            let path = parent.join(number.to_string());
            match new_directory(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries.next().is_some() => {}
                made => break made.map(|()| path.clone()).map_err(Error::io("create", &path))?,
            }
        };
        let directory = Self { path };
        create(&directory.bin())?;
        create(&directory.work())?;
        Ok(directory)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of the program.
    fn bin(&self) -> PathBuf {
        self.path.join("bin")
    }

    /// The directory in which the program starts, and puts its temporary files.
    pub fn work(&self) -> PathBuf {
        self.path.join("w")
    }

    /// The path of the program with this name.
    pub fn executable(&self, name: &OsStr) -> PathBuf {
        self.bin().join(name)
    }

    /// Removes the program, which has ended. Only the files that it worked on are still needed.
    pub fn remove_program(&self) {
        if let Err(error) = fs_remove::remove(&self.bin()) {
            tracing::error!(path = %self.path.display(), %error, "cannot remove a job's program");
        }
    }

    /// Lets a user execute the program and work there. Others can then pass through the agent's directories, but read
    /// none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open_to(&self, user: &User) -> Result<(), Error> {
        // The agent's directory, that of all jobs, and this one.
        for place in self.path.ancestors().take(3).chain([&*self.bin()]) {
            set_mode(place, PASS)?;
        }
        let work = self.work();
        chown(&work, Some(user.uid), Some(user.gid)).map_err(Error::io("give away", &work))
    }
}

impl Drop for JobDirectory {
    fn drop(&mut self) {
        // The reason why the rest of another job could not be removed may be gone by now.
        if let Some(jobs) = self.path.parent() {
            fs_remove::retry(jobs);
        }
        if let Err(error) = fs_remove::clear(&self.path) {
            tracing::error!(path = %self.path.display(), %error, "cannot remove a job's directory");
        }
    }
}

fn create(path: &Path) -> Result<(), Error> {
    new_directory(path).map_err(Error::io("create", path))
}

fn new_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Error::io("open", path))
}
