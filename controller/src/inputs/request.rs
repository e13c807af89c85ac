//! `--input PATH[:REMOTE]`: files and directories of this machine that a program is to find where it starts.
//!
//! **Invariants:** nothing is written on the router but in the program's own directory, which is new and goes with it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use hop_proto::output_path;

use super::Error;
use crate::transfer::inputs::Files;

/// What to send, and where to put it.
#[derive(Debug)]
pub struct Input {
    /// As the user has written it, for errors.
    text: String,
    /// The path on this machine.
    from: PathBuf,
    /// The path below the directory in which the program starts; empty for that itself.
    remote: PathBuf,
    /// That is a directory, whether there is one or not.
    goes_into: bool,
}

impl Input {
    /// Reads `PATH[:REMOTE]`.
    ///
    /// # Errors
    /// [`Error::InvalidInput`].
    pub fn parse(text: &OsStr) -> Result<Self, Error> {
        let bytes = text.as_bytes();
        let (from, remote) = match bytes.iter().position(|byte| *byte == b':') {
            Some(colon) => (&bytes[..colon], Some(&bytes[colon + 1..])),
            None => (bytes, None),
        };
        let text = text.to_string_lossy().into_owned();
        let invalid = |why| Error::InvalidInput { text: text.clone(), why };
        let from = Path::new(OsStr::from_bytes(from));
        if from == Path::new("") {
            return Err(invalid("there is nothing in front of the colon"));
        }
        let goes_into = remote.is_some_and(|remote| remote.ends_with(b"/"));
        let remote = match remote {
            Some(b"") => return Err(invalid("there is nothing behind the colon")),
            Some(remote) => output_path::normal(remote).ok_or_else(|| {
                invalid(
                    "REMOTE is below the directory in which the program starts, without ..; of the router's own files none is \
                     replaced",
                )
            })?,
            None => default_remote(from),
        };
        if output_path::names(&remote).into_iter().any(output_path::is_repository) {
            return Err(invalid(".git is not sent"));
        }
        let remote = Path::new(OsStr::from_bytes(&remote));
        let remote = if remote == Path::new(".") { PathBuf::new() } else { remote.to_owned() };
        Ok(Self { text, from: from.to_owned(), remote, goes_into })
    }

    /// Adds it to `files`, in which the program starts in the directory `start`; its own path is relative to `directory`.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] if something else is there already, [`Error::Io`], [`Error::Transfer`].
    pub fn add_to(&self, files: &mut Files, directory: &Path, start: &Path) -> Result<(), Error> {
        let from = directory.join(&self.from);
        let metadata = fs::metadata(&from).map_err(Error::io("read", &from))?;
        let remote = start.join(&self.remote);
        // As `cp -r` does it.
        let is_into = self.goes_into || files.has_directory(&remote) && !is_default(self);
        let to = match self.from.components().next_back() {
            Some(Component::Normal(name)) if is_into => remote.join(name),
            // Of `.` and `..`, the content.
            _ => remote,
        };
        let invalid = |why| Error::InvalidInput { text: self.text.clone(), why };
        if metadata.is_dir() {
            if files.is_blocked(&to) {
                return Err(invalid("there is a file already, where a directory would have to be"));
            }
            files.add_all(&to, &from)?;
        } else if metadata.is_file() {
            if to.parent().is_some_and(|parent| files.is_blocked(parent)) || files.has_directory(&to) {
                return Err(invalid("a file and a directory cannot have one name"));
            }
            files.add(&to, &from)?;
        } else {
            return Err(invalid("it is neither a file nor a directory"));
        }
        Ok(())
    }
}

/// Without REMOTE, what is below the working directory has the same path there; anything else only its name.
fn default_remote(from: &Path) -> Vec<u8> {
    let is_below = from.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let below = is_below.then(|| output_path::normal(from.as_os_str().as_bytes())).flatten();
    let name = || from.file_name().map_or(output_path::ALL.to_vec(), |name| name.as_bytes().to_vec());
    below.unwrap_or_else(name)
}

/// True if the user has not written where it goes.
fn is_default(input: &Input) -> bool {
    !input.text.contains(':')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        let at = |path: &str| tree.path().join(path);
        fs::create_dir_all(at("conf/sub")).unwrap();
        fs::create_dir_all(at(".git")).unwrap();
        for path in ["conf/a", "conf/sub/b", ".git/config", "main.json"] {
            fs::write(at(path), path).unwrap();
        }
        tree
    }

    fn sent(tree: &tempfile::TempDir, inputs: &[&str]) -> Result<Vec<String>, Error> {
        let mut files = Files::default();
        for input in inputs {
            Input::parse(input.as_ref())?.add_to(&mut files, tree.path(), Path::new(""))?;
        }
        Ok(files.paths().map(|path| path.display().to_string()).collect())
    }

    #[test]
    fn input_goes_where_cp_puts_it() {
        let tree = tree();
        let absolute = tree.path().join("conf").display().to_string();
        for (inputs, expected) in [
            (&["main.json"][..], &["main.json"][..]),
            (&["./conf/sub/"], &["conf/sub/b"]),
            (&[&*absolute], &["conf/a", "conf/sub/b"]),
            (&["main.json:other"], &["other"]),
            (&["main.json:d/"], &["d/main.json"]),
            (&["main.json:."], &["main.json"]),
            (&["conf:new"], &["new/a", "new/sub/b"]),
            (&["conf:new/"], &["new/conf/a", "new/conf/sub/b"]),
            (&["conf:d", "main.json:d"], &["d/a", "d/main.json", "d/sub/b"]),
            (&["conf:d", "conf:d"], &["d/a", "d/conf/a", "d/conf/sub/b", "d/sub/b"]),
            (&["."], &["conf/a", "conf/sub/b", "main.json"]),
            (&[".:d"], &["d/conf/a", "d/conf/sub/b", "d/main.json"]),
            (&["conf", "conf"], &["conf/a", "conf/sub/b"]),
            (&["main.json:x", "conf/a:x"], &["x"]),
        ] {
            assert_eq!(sent(&tree, inputs).unwrap(), expected, "{inputs:?}");
        }
    }

    #[test]
    fn input_outside_program_directory_is_refused() {
        let tree = tree();
        for input in [
            "main.json:/etc/x",
            "main.json:../x",
            "main.json:",
            ":x",
            "missing",
            "conf:.git/hooks",
            "/dev/null:x",
        ] {
            assert!(sent(&tree, &[input]).is_err(), "{input}");
        }
        for inputs in [["main.json:x", "conf:x"], ["main.json:x", "conf/a:x/y"], ["main.json:x", "conf:x/"]] {
            assert!(matches!(sent(&tree, &inputs), Err(Error::InvalidInput { .. })), "{inputs:?}");
        }
    }

    #[test]
    fn links_are_followed_without_circles() {
        let tree = tree();
        symlink("..", tree.path().join("conf/sub/around")).unwrap();
        symlink(tree.path().join("conf/sub"), tree.path().join("elsewhere")).unwrap();
        let expected = ["conf/a", "conf/sub/around", "conf/sub/b", "elsewhere/around/a", "elsewhere/b"];
        assert_eq!(sent(&tree, &["conf", "elsewhere"]).unwrap(), expected);
    }
}
