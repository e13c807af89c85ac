//! Eviction from the build cache, in which every change of a source makes a new directory.
//!
//! **Invariants:** a directory that was used within 30 days stays.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// How long an unused directory stays.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Marks a directory of the cache as used now.
pub fn touch(directory: &Path) {
    // Best effort: at worst the directory is evicted early, and built again.
    let _ = File::open(directory).and_then(|directory| directory.set_modified(SystemTime::now()));
}

/// Removes the entries of a directory of the cache that were not used for 30 days.
pub fn evict_unused(directory: &Path) {
    let now = SystemTime::now();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let age =
            entry.metadata().ok().and_then(|metadata| now.duration_since(metadata.modified().ok()?).ok());
        if age.is_some_and(|age| age > MAX_AGE) {
            // Best effort: the next build tries again.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn unused_directories_are_evicted() {
        let cache = tempfile::tempdir().unwrap();
        let long_ago = SystemTime::now() - MAX_AGE - Duration::from_secs(60);
        for name in ["old", "old-but-used", "new"] {
            let directory = cache.path().join(name);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("content"), name).unwrap();
            if name != "new" {
                File::open(&directory).unwrap().set_modified(long_ago).unwrap();
            }
        }
        touch(&cache.path().join("old-but-used"));
        evict_unused(cache.path());
        let left =
            ["old", "old-but-used", "new"].map(|name| cache.path().join(name).join("content").exists());
        assert_eq!(left, [false, true, true]);
        evict_unused(&cache.path().join("absent"));
    }
}
