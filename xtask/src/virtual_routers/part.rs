//! Parts: what is built once and kept in the cache under a name that says what it was built from.
//! What must stay true: a part that is given out is whole, whatever was interrupted, and nothing is asked to find it.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::build::agents;
use crate::build::cache::touch;
use crate::paths;

/// What a part is built from: texts, and files of the repository.
pub struct Part {
    name: String,
    hasher: DefaultHasher,
}

impl Part {
    /// A part that depends on nothing yet; `recipe` is the source text that builds it.
    pub fn new(name: impl Into<String>, recipe: &str) -> Self {
        let mut part = Self { name: name.into(), hasher: DefaultHasher::new() };
        part.hasher.write(recipe.as_bytes());
        part
    }

    /// Adds what the part depends on.
    pub fn of(mut self, input: impl Hash) -> Self {
        input.hash(&mut self.hasher);
        self
    }

    /// Adds a file or a directory of the repository.
    pub fn of_file(mut self, path: &Path) -> Result<Self> {
        agents::hash(path, &mut self.hasher)?;
        Ok(self)
    }

    /// The directory with the part, in which there are these files; `build` puts them there if one is missing.
    pub fn get(&self, files: &[&str], build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        self.get_if(|_| true, files, build)
    }

    /// As `get`, but what is not good is built again. It stays until the new one is whole.
    pub fn get_if(
        &self,
        is_good: impl FnOnce(&Path) -> bool,
        files: &[&str],
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let place = directory()?.join(format!("{}-{:016x}", self.name, self.hasher.finish()));
        if !(is_whole(&place, files) && is_good(&place)) {
            let new = place.with_extension("new");
            empty(&new)?;
            build(&new)?;
            ensure!(is_whole(&new, files), "{} has not all of {}", new.display(), files.join(", "));
            put(&new, &place)?;
        }
        touch(&place);
        Ok(place)
    }
}

/// Where the parts are kept.
pub fn directory() -> Result<PathBuf> {
    Ok(paths::cache()?.join("virtual-router-parts"))
}

/// A removal that was interrupted leaves a directory without some of its files, and a crash of the machine empty ones.
fn is_whole(place: &Path, files: &[&str]) -> bool {
    files.iter().all(|file| place.join(file).metadata().is_ok_and(|file| file.len() > 0))
}

/// Renames a directory to where there may be one: that one is out of the way before its files are removed.
fn put(new: &Path, place: &Path) -> Result<()> {
    let old = place.with_extension("old");
    if place.exists() {
        empty(&old)?;
        fs::rename(place, &old).with_context(|| format!("cannot move {}", place.display()))?;
    }
    fs::rename(new, place).with_context(|| format!("cannot write {}", place.display()))?;
    if old.exists() { remove(&old) } else { Ok(()) }
}

/// An empty directory to build in, which the caller removes when it is done.
pub fn scratch(name: &str) -> Result<PathBuf> {
    let directory = paths::root().join("target/virtual-routers").join(name);
    empty(&directory)?;
    Ok(directory)
}

/// Removes what `scratch` gave.
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
    fn a_part_that_lost_a_file_is_not_whole() {
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
    fn a_part_takes_the_place_of_what_is_there() {
        let cache = tempfile::tempdir().unwrap();
        let place = cache.path().join("kernels-0123");
        // With the rest of a removal that was interrupted.
        fs::create_dir_all(place.with_extension("old").join("rest")).unwrap();
        for content in ["first", "second"] {
            let new = place.with_extension("new");
            fs::create_dir(&new).unwrap();
            fs::write(new.join("kernel"), content).unwrap();
            put(&new, &place).unwrap();
            assert_eq!(fs::read_to_string(place.join("kernel")).unwrap(), content);
            assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1);
        }
    }
}
