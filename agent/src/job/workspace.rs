//! The directory of one job: its program, and the place where that works.
//!
//! **Invariants:** it is gone with everything in it when its owner is dropped, or, if that cannot be, its name is free again;
//! and nobody but root looks into it, or the user that the program runs as.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::job::error::Error;
use crate::process::user::User;
use crate::system::fs_remove;

/// What others may do with a directory that they must pass.
const PASS: u32 = 0o711;

/// A directory of one job.
pub struct JobDirectory {
    path: PathBuf,
}

impl JobDirectory {
    /// Makes it in `parent`, the agent's directory of all jobs.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(parent: &Path, job: &str) -> Result<Self, Error> {
        let path = parent.join(job);
        create(&path)?;
        let directory = Self { path };
        create(&directory.bin())?;
        create(&directory.work())?;
        Ok(directory)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the program is.
    fn bin(&self) -> PathBuf {
        self.path.join("bin")
    }

    /// Where the program starts, and puts what it needs for a while.
    pub fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// The program, whose name this is.
    pub fn executable(&self, name: &OsStr) -> PathBuf {
        self.bin().join(name)
    }

    /// The program has ended, and what it worked on is all that is wanted of it.
    pub fn remove_program(&self) {
        if let Err(error) = fs_remove::remove(&self.bin()) {
            tracing::error!(path = %self.path.display(), %error, "cannot remove a job's program");
        }
    }

    /// Lets a user execute the program and work there. Others can pass the agent's directories by then, and look into none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open_to(&self, user: &User, executable: &Path) -> Result<(), Error> {
        // The agent's own, that of all jobs, this one.
        for place in self.path.ancestors().take(3).chain([&*self.bin()]) {
            set_mode(place, PASS)?;
        }
        set_mode(executable, 0o755)?;
        let work = self.work();
        chown(&work, Some(user.uid), Some(user.gid)).map_err(Error::io("give away", &work))
    }
}

impl Drop for JobDirectory {
    fn drop(&mut self) {
        // What kept the rest of another job may be gone by now.
        if let Some(jobs) = self.path.parent() {
            fs_remove::retry(jobs);
        }
        if let Err(error) = fs_remove::clear(&self.path) {
            tracing::error!(path = %self.path.display(), %error, "cannot remove a job's directory");
        }
    }
}

fn create(path: &Path) -> Result<(), Error> {
    DirBuilder::new().mode(0o700).create(path).map_err(Error::io("create", path))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Error::io("open", path))
}
