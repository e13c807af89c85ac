//! A user's desk: a home directory for one test, and `hop` with it.

use std::fs;
use std::path::PathBuf;

use hop_tests::{Hop, Ran};
use serde_json::Value;
use tempfile::TempDir;

/// A home directory of its own. Dropping it stops its virtual routers.
pub struct Desk {
    pub home: TempDir,
}

impl Desk {
    pub fn new() -> Self {
        Self { home: TempDir::new().unwrap() }
    }

    pub fn hop(&self) -> Hop {
        Hop::at(self.home.path())
    }

    pub fn run(&self, words: &[&str]) -> Ran {
        self.hop().args(words).run()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The virtual routers, by name.
    pub fn list(&self) -> Value {
        serde_json::from_slice(&self.run(&["virtual", "list", "--json"]).stdout).unwrap()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let ran = self.run(&["virtual", "down", "--all"]);
        if !std::thread::panicking() {
            assert_eq!(ran.code, 0, "{}", ran.stderr());
            let directory = self.path("virtual");
            assert!(!directory.exists() || is_empty(&directory), "nothing is left of a virtual router");
        }
    }
}

pub fn is_empty(directory: &std::path::Path) -> bool {
    fs::read_dir(directory).unwrap().count() == 0
}
