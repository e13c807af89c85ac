//! What to bring back of the files that a program leaves, and where to put it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hop_proto::limits::MAX_OUTPUT_REQUESTS;
use hop_proto::output_path;

use crate::session::Error;
use crate::session::staged_file::Place;

/// Modes of what comes, before the umask.
pub(super) const FILE_MODE: u32 = 0o666;
pub(super) const EXECUTABLE_MODE: u32 = 0o777;

/// What to bring back, and where to put it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The path below the program's directory, by the rules of [`output_path`].
    pub remote: Vec<u8>,
    /// Where it goes.
    pub local: Local,
    /// What exists is replaced also where the user named only the directory.
    pub overwrites: bool,
    /// What its owner may execute there may be executed here.
    pub keeps_executability: bool,
}

/// Where the files of a request go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// Into this directory, under the path that they have there, without as many names at its beginning.
    Below {
        /// The directory; empty: the working directory.
        directory: PathBuf,
        /// Names to leave out.
        skip: usize,
    },
    /// The file or the directory goes to this path; what a pattern stands for, below it.
    Path(PathBuf),
    /// Into this directory, which exists or was written with a slash, under its last name.
    Into(PathBuf),
}

/// What the user says of all output files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Existing files are replaced also where the user named only a directory.
    pub overwrites: bool,
    /// Fetched files keep their executable bit.
    pub keeps_executability: bool,
    /// The files come to this `hop`, so it must be known where they go.
    pub needs_places: bool,
}

impl Request {
    /// Reads `REMOTE[:LOCAL]`. LOCAL is relative to `directory`, which is the working directory if it is empty.
    ///
    /// # Errors
    /// [`Error::InvalidOutput`].
    pub fn parse(text: &OsStr, policy: Policy, directory: &Path) -> Result<Self, Error> {
        let bytes = text.as_bytes();
        let (remote, local) = match bytes.iter().position(|byte| *byte == b':') {
            Some(colon) => (&bytes[..colon], Some(&bytes[colon + 1..])),
            None => (bytes, None),
        };
        let refuse = |why| Error::InvalidOutput { request: text.to_string_lossy().into_owned(), why };
        let remote = output_path::normal(remote).ok_or_else(|| {
            refuse("it must be below the directory in which the program starts, without ..")
        })?;
        if local.is_some_and(<[u8]>::is_empty) {
            return Err(refuse("there is nothing behind the colon"));
        }
        let names = output_path::names(&remote);
        let local_names = local.unwrap_or_default().split(|byte| *byte == b'/');
        if names.iter().copied().chain(local_names).any(output_path::is_repository) {
            return Err(refuse("nothing is written into .git, because Git executes what is there"));
        }
        if policy.needs_places && local.is_none() && is_several(&names) {
            let directory =
                "files whose names are the router's choice need a directory: PATH:DIR, with . for this one";
            return Err(refuse(directory));
        }
        let local = match local {
            Some(local) => Local::written(directory.join(OsStr::from_bytes(local))),
            None => Local::Below { directory: directory.to_owned(), skip: 0 },
        };
        let Policy { overwrites, keeps_executability, .. } = policy;
        Ok(Self { remote, local, overwrites, keeps_executability })
    }

    /// Reads all of them.
    ///
    /// # Errors
    /// [`Error::InvalidOutput`], [`Error::TooManyOutputs`].
    pub fn parse_all(texts: &[std::ffi::OsString], policy: Policy) -> Result<Vec<Self>, Error> {
        if texts.len() > MAX_OUTPUT_REQUESTS {
            return Err(Error::TooManyOutputs { most: MAX_OUTPUT_REQUESTS });
        }
        texts.iter().map(|text| Self::parse(text, policy, Path::new(""))).collect()
    }

    /// Where the file at `path` goes, which this request covers. `None` if it is where the directory should be.
    pub(super) fn place(&self, path: &[u8]) -> Option<Place> {
        let (asked, names) = (output_path::names(&self.remote), output_path::names(path));
        let below = |directory: &PathBuf, skip: usize| {
            let names = names.get(skip..).filter(|names| !names.is_empty())?;
            Some(Place::below(directory.clone(), names))
        };
        match &self.local {
            Local::Below { directory, skip } => below(directory, *skip),
            Local::Path(local) if self.names(path) => Some(Place::of(local)),
            Local::Path(local) => below(local, literal(&asked)),
            // A directory keeps its own name, and what a pattern stands for keeps all from there.
            Local::Into(local) => below(local, literal(&asked).min(asked.len().saturating_sub(1))),
        }
    }

    /// True if the user has written the whole path, so that no part of it is the router's choice.
    pub(super) fn names(&self, path: &[u8]) -> bool {
        self.remote == path
    }

    pub(super) fn mode(&self, is_executable: bool) -> u32 {
        if is_executable && self.keeps_executability { EXECUTABLE_MODE } else { FILE_MODE }
    }
}

impl Local {
    /// The path that the user has written, as `cp -r` reads it: what is a directory by now is one to put things into.
    pub fn written(path: PathBuf) -> Self {
        let is_directory = path.as_os_str().as_bytes().ends_with(b"/") || path.is_dir();
        if is_directory { Self::Into(path) } else { Self::Path(path) }
    }
}

/// Number of names in front of the first pattern.
fn literal(names: &[&[u8]]) -> usize {
    names.iter().take_while(|name| !output_path::is_pattern(name)).count()
}

/// True if a path stands for files of which the user has not written the names.
fn is_several(names: &[&[u8]]) -> bool {
    names.is_empty() || names.iter().any(|name| output_path::is_pattern(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(text: &str) -> Request {
        Request::parse(text.as_ref(), Policy::default(), Path::new("")).unwrap()
    }

    #[test]
    fn artifact_goes_where_cp_puts_it() {
        let directory = tempfile::tempdir().unwrap();
        let there = directory.path().display();
        for (asked, path, place) in [
            ("a/b", "a/b", "a/b".to_owned()),
            ("a/b:c", "a/b", "c".to_owned()),
            ("a/b:c/", "a/b", "c/b".to_owned()),
            (&format!("a/b:{there}"), "a/b", format!("{there}/b")),
            ("a:c", "a/b/d", "c/b/d".to_owned()),
            ("a:c/", "a/b/d", "c/a/b/d".to_owned()),
            (&format!("x/a:{there}"), "x/a/b/d", format!("{there}/a/b/d")),
            (".:c/", "a/b", "c/a/b".to_owned()),
            ("a/*:c/", "a/b/d", "c/b/d".to_owned()),
            (".:c", "a/b", "c/a/b".to_owned()),
            ("a/*:c", "a/b", "c/b".to_owned()),
            ("*/b:c", "a/b", "c/a/b".to_owned()),
            ("a:b:c", "a", "b:c".to_owned()),
        ] {
            assert_eq!(request(asked).place(path.as_bytes()).unwrap().path(), Path::new(&place), "{asked}");
        }
    }

    #[test]
    fn patterns_need_a_local_directory() {
        let policy = Policy { needs_places: true, ..Policy::default() };
        let refused =
            |text: &str| Request::parse(text.as_ref(), policy, Path::new("")).unwrap_err().to_string();
        for text in ["*", ".", "a/?", "./"] {
            assert!(refused(text).contains("need a directory: PATH:DIR"), "{text}");
            assert!(Request::parse(text.as_ref(), Policy::default(), Path::new("")).is_ok(), "{text}");
            assert!(Request::parse(format!("{text}:.").as_ref(), policy, Path::new("")).is_ok(), "{text}");
        }
        for text in [".git", "a/.Git/hooks", "hooks:.git/hooks", "x:/somewhere/.git"] {
            assert!(refused(text).contains("nothing is written into .git"), "{text}");
        }
    }
}
