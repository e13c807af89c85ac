//! The age of what is in the cache. Each change of a source gives what is built from it a new name, and leaves the old.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A checkout that waited for longer builds again.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Notes that a directory of the cache is used now.
pub fn touch(directory: &Path) {
    // Where it cannot be noted the directory is built again some day, and that is all.
    let _ = File::open(directory).and_then(|directory| directory.set_modified(SystemTime::now()));
}

/// Removes the directories in a directory of the cache that were not used for 30 days.
pub fn forget_unused(directory: &Path) {
    let now = SystemTime::now();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let age =
            entry.metadata().ok().and_then(|metadata| now.duration_since(metadata.modified().ok()?).ok());
        if age.is_some_and(|age| age > KEPT) {
            // What cannot be removed is in the way of nobody.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_used_stays_and_what_was_not_goes() {
        let cache = tempfile::tempdir().unwrap();
        let long_ago = SystemTime::now() - KEPT - Duration::from_secs(60);
        for name in ["old", "old-but-used", "new"] {
            let directory = cache.path().join(name);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("content"), name).unwrap();
            if name != "new" {
                File::open(&directory).unwrap().set_modified(long_ago).unwrap();
            }
        }
        touch(&cache.path().join("old-but-used"));
        forget_unused(cache.path());
        let left =
            ["old", "old-but-used", "new"].map(|name| cache.path().join(name).join("content").exists());
        assert_eq!(left, [false, true, true]);
        forget_unused(&cache.path().join("absent"));
    }
}
