//! Builds that are cached under a hash of their inputs.
//!
//! **Invariants:** a cached build is whole, whatever was interrupted; finding it needs neither apt nor the network.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::build::agents;
use crate::build::cache::touch;
use crate::paths;

/// A build and its inputs: texts, and files of the repository.
pub struct CachedBuild {
    name: String,
    hasher: DefaultHasher,
}

impl CachedBuild {
    /// A build without inputs; `recipe` is the source of the code that does it.
    pub fn new(name: impl Into<String>, recipe: &str) -> Self {
        let mut build = Self { name: name.into(), hasher: DefaultHasher::new() };
        build.hasher.write(recipe.as_bytes());
        build
    }

    /// Adds an input.
    pub fn input(mut self, input: impl Hash) -> Self {
        input.hash(&mut self.hasher);
        self
    }

    /// Adds a file or a directory of the repository as input.
    pub fn input_file(mut self, path: &Path) -> Result<Self> {
        agents::hash(path, &mut self.hasher)?;
        Ok(self)
    }

    /// The directory of the build, with these files in it; calls `build` if one is missing.
    pub fn get(&self, files: &[&str], build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        self.get_if(|_| true, files, build)
    }

    /// The directory of the build, with these files in it; calls `build` if one is missing or `is_current` is false. The old
    /// directory stays until the new one is whole.
    pub fn get_if(
        &self,
        is_current: impl FnOnce(&Path) -> bool,
        files: &[&str],
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let place = directory()?.join(format!("{}-{:016x}", self.name, self.hasher.finish()));
        if !(is_whole(&place, files) && is_current(&place)) {
            let new = place.with_extension("new");
            empty(&new)?;
            build(&new)?;
            ensure!(is_whole(&new, files), "{} lacks one of {}", new.display(), files.join(", "));
            replace(&new, &place)?;
        }
        touch(&place);
        Ok(place)
    }
}

/// The directory of all cached builds.
pub fn directory() -> Result<PathBuf> {
    Ok(paths::cache()?.join("virtual-router-parts"))
}

/// True if all files are there and none is empty: an interrupted removal leaves some, a crash of the machine empty ones.
fn is_whole(place: &Path, files: &[&str]) -> bool {
    files.iter().all(|file| place.join(file).metadata().is_ok_and(|file| file.len() > 0))
}

/// Replaces a directory by another. The old one is renamed before its files are removed, so that no half of it is left there.
fn replace(new: &Path, place: &Path) -> Result<()> {
    let old = place.with_extension("old");
    if place.exists() {
        empty(&old)?;
        fs::rename(place, &old).with_context(|| format!("cannot move {}", place.display()))?;
    }
    fs::rename(new, place).with_context(|| format!("cannot write {}", place.display()))?;
    if old.exists() { remove(&old) } else { Ok(()) }
}

/// An empty directory to build in, which the caller removes.
pub fn scratch(name: &str) -> Result<PathBuf> {
    let directory = paths::root().join("target/virtual-routers").join(name);
    empty(&directory)?;
    Ok(directory)
}

/// Removes a scratch directory.
pub fn remove(directory: &Path) -> Result<()> {
    fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))
}

fn empty(directory: &Path) -> Result<()> {
    if directory.exists() {
        remove(directory)?;
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn incomplete_builds_are_detected() {
        let cache = tempfile::tempdir().unwrap();
        let files = ["busybox", "links"];
        assert!(!is_whole(cache.path(), &files));
        fs::write(cache.path().join("busybox"), "program").unwrap();
        assert!(!is_whole(cache.path(), &files));
        fs::write(cache.path().join("links"), "").unwrap();
        assert!(!is_whole(cache.path(), &files));
        fs::write(cache.path().join("links"), "/bin/sh").unwrap();
        assert!(is_whole(cache.path(), &files));
    }

    #[test]
    fn builds_replace_older_ones() {
        let cache = tempfile::tempdir().unwrap();
        let place = cache.path().join("kernels-0123");
        // The rest of an interrupted removal.
        fs::create_dir_all(place.with_extension("old").join("rest")).unwrap();
        for content in ["first", "second"] {
            let new = place.with_extension("new");
            fs::create_dir(&new).unwrap();
            fs::write(new.join("kernel"), content).unwrap();
            replace(&new, &place).unwrap();
            assert_eq!(fs::read_to_string(place.join("kernel")).unwrap(), content);
            assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1);
        }
    }
}
