//! Where Hop keeps things on this machine: `$HOP_HOME`, or the directories of the XDG base directory specification.

use std::env;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use hop_proto::identity::Identity;

use super::Error;

/// The directories. They are made when something is put into them.
#[derive(Clone, Debug)]
pub struct Home {
    config: PathBuf,
    state: PathBuf,
    cache: PathBuf,
    runtime: PathBuf,
}

impl Home {
    /// Finds them in the environment.
    ///
    /// # Errors
    /// [`Error::NoHome`] if neither `HOP_HOME` nor `HOME` is set.
    pub fn from_environment() -> Result<Self, Error> {
        Self::find(|name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
    }

    fn find(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, Error> {
        if let Some(home) = variable("HOP_HOME") {
            // Absolute, because an agent is started in another directory than ours.
            let home = std::path::absolute(&home).map_err(Error::io("find", &home))?;
            return Ok(Self::at(&home));
        }
        let directory = |xdg: &str, default: &str| {
            variable(xdg)
                // The specification: a relative path is invalid and to be ignored.
                .filter(|path| path.is_absolute())
                .or_else(|| variable("HOME").map(|home| home.join(default)))
                .map(|path| path.join("hop"))
                .ok_or_else(|| Error::NoHome)
        };
        let state = directory("XDG_STATE_HOME", ".local/state")?;
        let runtime = match variable("XDG_RUNTIME_DIR").filter(|path| path.is_absolute()) {
            Some(runtime) => runtime.join("hop"),
            // Not everybody who has a home has logged in.
            None => state.join("run"),
        };
        Ok(Self {
            config: directory("XDG_CONFIG_HOME", ".config")?,
            state,
            cache: directory("XDG_CACHE_HOME", ".cache")?,
            runtime,
        })
    }

    /// Everything below one directory, as `HOP_HOME` has it.
    pub fn at(directory: &Path) -> Self {
        Self {
            config: directory.to_owned(),
            state: directory.to_owned(),
            cache: directory.join("cache"),
            runtime: directory.join("run"),
        }
    }

    /// This controller's key.
    ///
    /// # Errors
    /// It cannot be read or made.
    pub fn identity(&self) -> Result<Identity, Error> {
        make_private(&self.config)?;
        Identity::load_or_create(&self.key()).map_err(Error::Identity)
    }

    /// The file of this controller's key. While keys are exchanged, the next one is beside it in `key.next`, and the one
    /// before it in `key.previous`.
    pub fn key(&self) -> PathBuf {
        self.config.join("key")
    }

    /// A file for each enrolled router.
    pub fn routers(&self) -> PathBuf {
        self.config.join("routers")
    }

    /// The file with the name of the default router.
    pub fn default_router(&self) -> PathBuf {
        self.config.join("default-router")
    }

    /// The user's own profiles of virtual routers, a file each.
    pub fn profiles(&self) -> PathBuf {
        self.config.join("profiles")
    }

    /// Files that Hop can create again, and that only make it faster.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The directory of control sockets.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// A file for each detached job that has artifacts.
    pub fn saved_artifacts(&self) -> PathBuf {
        self.state.join("artifacts")
    }

    /// A directory for each virtual router.
    pub fn virtual_routers(&self) -> PathBuf {
        self.state.join("virtual")
    }

    /// The directory of one virtual router.
    pub fn virtual_router(&self, name: &str) -> PathBuf {
        self.virtual_routers().join(name)
    }
}

/// Makes a directory that only its owner may enter, and those above it.
///
/// # Errors
/// [`Error::Io`].
pub fn make_private(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io("create", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn find(variables: &[(&str, &str)]) -> Result<Home, Error> {
        Home::find(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn hop_home_overrides_xdg_and_home() {
        let home = find(&[("HOP_HOME", "/h"), ("HOME", "/u"), ("XDG_CONFIG_HOME", "/c")]).unwrap();
        assert_eq!((home.routers(), home.virtual_router("v")), ("/h/routers".into(), "/h/virtual/v".into()));
        let home =
            find(&[("HOME", "/u"), ("XDG_CONFIG_HOME", "/c"), ("XDG_STATE_HOME", "relative")]).unwrap();
        assert_eq!(home.routers(), Path::new("/c/hop/routers"));
        assert_eq!(home.virtual_router("v"), Path::new("/u/.local/state/hop/virtual/v"));
        assert_eq!(home.runtime(), Path::new("/u/.local/state/hop/run"));
        let home = find(&[("HOME", "/u"), ("XDG_RUNTIME_DIR", "/run/user/1")]).unwrap();
        assert_eq!(home.runtime(), Path::new("/run/user/1/hop"));
        assert!(find(&[]).is_err());
    }
}
