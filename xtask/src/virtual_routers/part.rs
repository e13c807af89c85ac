//! Parts: what is built once and kept in the cache under a name that says what it was built from.
//! What must stay true: a part in the cache is whole, and nothing is asked to find it.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::agents;
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

    /// Where the part is kept.
    pub fn place(&self) -> Result<PathBuf> {
        Ok(paths::cache()?.join(format!("virtual-router-parts/{}-{:016x}", self.name, self.hasher.finish())))
    }

    /// The directory with the part; `build` fills it if it is not there.
    pub fn get(&self, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let place = self.place()?;
        if !place.exists() {
            let new = place.with_extension("new");
            empty(&new)?;
            build(&new)?;
            fs::rename(&new, &place).with_context(|| format!("cannot write {}", place.display()))?;
        }
        Ok(place)
    }
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
