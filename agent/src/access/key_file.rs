//! The agent's key, in a file that may be replaced while the agent serves.
//!
//! **Invariants:** the agent uses no key that others could read or write. While the file has no usable key, the agent
//! keeps its current one.

use std::fs::{self, DirBuilder, Metadata};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use hop_proto::identity::{self, Identity};
use hop_proto::tls::CurrentIdentity;

use crate::access::safe_path;

/// Errors of the agent's key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key cannot be read or created.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// Others could have read or written the key.
    #[error("the agent's key is not private: {0}")]
    Unsafe(#[from] safe_path::Error),
}

/// The key, and its file.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    identity: Identity,
    /// Metadata of the file when it was last read: its inode, its size, and its time of change.
    seen: Option<(u64, u64, i64, i64)>,
}

impl KeyFile {
    /// Reads the key in `path`. Creates it if it does not exist, and its directory, into which nobody else can look.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(path: PathBuf) -> Result<Self, Error> {
        let identity = load_or_create(&path)?;
        safe_path::check_private(&path)?;
        let seen = stamp(&path);
        Ok(Self { path, state: Mutex::new(State { identity, seen }) })
    }
}

impl CurrentIdentity for KeyFile {
    fn current(&self) -> Identity {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamp(&self.path);
        if now != state.seen {
            state.seen = now;
            let loaded = safe_path::check_private(&self.path)
                .map_err(Error::from)
                .and_then(|()| Ok(Identity::load(&self.path)?));
            match loaded {
                Ok(identity) => {
                    tracing::info!(fingerprint = %identity.fingerprint(), "the agent has a new key");
                    state.identity = identity;
                }
                Err(error) => {
                    tracing::warn!(path = %self.path.display(), %error, "cannot use the new key; keeping the current one");
                }
            }
        }
        state.identity.clone()
    }
}

/// Reads the key in `path`, and creates it if it does not exist.
///
/// # Errors
/// The key cannot be read or created.
pub fn load_or_create(path: &Path) -> Result<Identity, identity::Error> {
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|error| identity::Error::Write(path.to_owned(), error))?;
    }
    Identity::load_or_create(path)
}

fn stamp(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let stamp = |file: Metadata| (file.ino(), file.len(), file.ctime(), file.ctime_nsec());
    fs::metadata(path).ok().map(stamp)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn replaced_key_takes_effect_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let [path, next] = ["key", "key.next"].map(|name| dir.path().join("state").join(name));
        let key = KeyFile::open(path.clone()).unwrap();
        let first = key.current().fingerprint();
        let second = load_or_create(&next).unwrap().fingerprint();
        assert_eq!(key.current().fingerprint(), first);
        fs::rename(&next, &path).unwrap();
        assert_eq!(key.current().fingerprint(), second);
        // An unusable key does not replace a usable one.
        fs::write(&path, "not a key").unwrap();
        assert_eq!(key.current().fingerprint(), second);
        fs::remove_file(&path).unwrap();
        assert_eq!(key.current().fingerprint(), second);
    }

    #[test]
    fn keys_readable_by_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(KeyFile::open(path), Err(Error::Unsafe(safe_path::Error::NotPrivate { .. }))));
    }
}
