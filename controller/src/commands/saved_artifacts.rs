//! Where the artifacts of a detached job go, as `hop run` was told, for the `hop attach` that fetches them.
//!
//! The agent does not keep this: paths of this machine are nothing to a router, and mean nothing on another machine.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::cli::ArtifactOptions;
use crate::config::home::{Home, make_private};
use crate::session::artifacts::Request;

/// How long it is kept. No router keeps a job as long that nobody comes back to.
const KEEP_TIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// The options of `hop run` that concern artifacts.
#[derive(Debug, Deserialize, Serialize)]
pub struct SavedArtifacts {
    /// Where `hop run` was called.
    directory: OsString,
    paths: Vec<OsString>,
    overwrites: bool,
    keeps_executability: bool,
    /// A missing one is a failure.
    pub requires: bool,
}

impl SavedArtifacts {
    /// Those of a call in the working directory.
    ///
    /// # Errors
    /// There is no working directory.
    pub fn of(options: &ArtifactOptions) -> Result<Self, Error> {
        let here = std::env::current_dir().map_err(Error::io("find", Path::new("the working directory")))?;
        Ok(Self {
            directory: here.into_os_string(),
            paths: options.paths.clone(),
            overwrites: options.artifact_overwrite,
            keeps_executability: options.artifact_executable,
            requires: options.require_artifacts,
        })
    }

    /// Keeps them for the job with this id on this router, and drops those of jobs that are long gone.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`].
    pub fn save(&self, home: &Home, router: &str, job: &str) -> Result<(), Error> {
        let directory = home.saved_artifacts();
        make_private(&directory)?;
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let age = entry.metadata().and_then(|metadata| metadata.modified()).map(|time| time.elapsed());
            if age.is_ok_and(|age| age.is_ok_and(|age| age > KEEP_TIME)) {
                // Another hop may have done it.
                let _ = fs::remove_file(entry.path());
            }
        }
        let path = place(home, router, job);
        let json =
            serde_json::to_vec(self).map_err(std::io::Error::from).map_err(Error::io("write", &path))?;
        fs::write(&path, json).map_err(Error::io("write", &path))
    }

    /// Those of a job; `None` if nothing was said, or on another machine.
    pub fn load(home: &Home, router: &str, job: &str) -> Option<Self> {
        serde_json::from_slice(&fs::read(place(home, router, job)).ok()?).ok()
    }

    /// Forgets those of a job, which is over.
    pub fn forget(home: &Home, router: &str, job: &str) {
        // There may be none.
        let _ = fs::remove_file(place(home, router, job));
    }

    /// What to fetch of it: all of which it is known where it goes.
    pub fn requests(&self) -> Vec<Request> {
        let policy = crate::session::artifacts::Policy {
            overwrites: self.overwrites,
            keeps_executability: self.keeps_executability,
            needs_places: true,
        };
        let directory = PathBuf::from(&self.directory);
        self.paths.iter().filter_map(|path| Request::parse(path, policy, &directory).ok()).collect()
    }
}

/// The file for a job. It has the router's name, so that no other router gets at them by a job of the same id.
fn place(home: &Home, router: &str, job: &str) -> PathBuf {
    home.saved_artifacts().join(format!("{router}-{job}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::session::artifacts::Local;

    #[test]
    fn saved_artifacts_go_where_run_said() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path());
        let saved = SavedArtifacts {
            directory: "/work".into(),
            paths: vec!["a:b".into(), "c".into(), "*.txt".into(), "d:/e".into()],
            overwrites: false,
            keeps_executability: false,
            requires: true,
        };
        saved.save(&home, "desk", "12ab").unwrap();
        assert!(SavedArtifacts::load(&home, "attic", "12ab").is_none());
        let loaded = SavedArtifacts::load(&home, "desk", "12ab").unwrap();
        let places: Vec<_> = loaded.requests().into_iter().map(|request| request.local).collect();
        let expected = [
            Local::Path("/work/b".into()),
            Local::Below { directory: "/work".into(), skip: 0 },
            // A pattern without LOCAL has no place.
            Local::Path("/e".into()),
        ];
        assert_eq!(places, expected);
        SavedArtifacts::forget(&home, "desk", "12ab");
        assert!(SavedArtifacts::load(&home, "desk", "12ab").is_none());
    }
}
