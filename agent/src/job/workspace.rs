//! The directory of one job: its program, and the directory in which that works.
//!
//! **Invariants:** dropping a [`JobDirectory`] removes the directory and everything in it or, if that is impossible,
//! frees its name; and only root and the user as whom the program runs can look into it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::job::error::Error;
use crate::process::user::User;
use crate::system::fs_remove;

/// Mode of a directory that other users may pass through, but not read.
const PASS: u32 = 0o711;

/// A directory of one job.
pub struct JobDirectory {
    path: PathBuf,
}

impl JobDirectory {
    /// Creates it in `parent`, the agent's directory for all jobs.
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
        self.path.join("work")
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
    pub fn open_to(&self, user: &User, executable: &Path) -> Result<(), Error> {
        // The agent's directory, that of all jobs, and this one.
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
    DirBuilder::new().mode(0o700).create(path).map_err(Error::io("create", path))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Error::io("open", path))
}
