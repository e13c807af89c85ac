//! What a job can use up beside memory, so that the router's own daemons fail: the inodes of the file system that jobs work on,
//! and the threads that the kernel can have.
//!
//! **Invariants:** what is kept free is never given away, and a file system without a limit has none here.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::system::error::Error;

/// The part of the inodes, and of the threads, below which a job is killed: one of this many. A tmpfs has one inode for each two
/// pages of RAM: 7,400 on a router of 64 MB, whose daemons use some 100. Threads are 450 to 900 there.
const LIMIT_FRACTION: u64 = 8;

/// More inodes than this are not kept free, however many there are: what a program makes in the time of a few looks.
const MAX_RESERVED_INODES: u64 = 1024;

/// More threads than this are not kept free.
const MAX_RESERVED_THREADS: u64 = 256;

/// How fast they can go, in a millisecond: a 500 MIPS CPU makes 25 files, and starts three threads.
const FILES_RATE: u64 = 30;
const THREADS_RATE: u64 = 3;

/// Inodes that a job takes beside its input files: its directory, three names in that, its program and four archives on
/// their way.
pub const JOB_INODES: u64 = 10;

/// What was used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The inodes of the file system that is mounted there.
    Inodes(Arc<Path>),
    /// Threads, of which each process has at least one.
    Threads,
}

/// Why a job was killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// What there was too little of.
    pub resource: Resource,
    /// How many were left.
    pub available: u64,
    /// Below how many a job is killed.
    pub limit: u64,
    /// How many the job held.
    pub held: u64,
}

/// How many there are of something, and how few there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// All.
    pub total: u64,
    /// Those that are left.
    pub available: u64,
    /// Below this a job is killed.
    pub limit: u64,
    rate: u64,
}

#[cfg(test)]
impl Level {
    /// So many are left.
    pub fn of_test(total: u64, available: u64, limit: u64) -> Self {
        Self { total, available, limit, rate: FILES_RATE }
    }
}

impl Level {
    /// How many are missing.
    pub fn missing(&self) -> u64 {
        self.limit.saturating_sub(self.available)
    }

    /// How long what is left lasts at the fastest rate.
    pub fn lasts(&self) -> Duration {
        Duration::from_millis(self.available.saturating_sub(self.limit) / self.rate)
    }

    /// How many are never given to a job that is to begin: a third more, so that it need not be ended at once.
    pub fn reserve(&self) -> u64 {
        self.limit + self.limit / 3
    }

    /// How many a job that is to begin may have, of which `promised` are given already and not used yet.
    pub fn spare(&self, promised: u64) -> u64 {
        self.available.saturating_sub(promised).saturating_sub(self.reserve())
    }
}

/// The inodes of the file system on which `directory` is; `None` where nothing but the memory sets a limit (ramfs, and a
/// tmpfs with nr_inodes=0).
///
/// # Errors
/// The file system does not answer.
pub fn inodes(directory: &Path) -> Result<Option<Level>, Error> {
    let known = rustix::fs::statvfs(directory);
    let known = known.map_err(|error| Error::io("look at", directory)(error.into()))?;
    Ok((known.f_files > 0).then(|| {
        let limit = (known.f_files / LIMIT_FRACTION).min(MAX_RESERVED_INODES);
        Level { total: known.f_files, available: known.f_favail, limit, rate: FILES_RATE }
    }))
}

/// The threads of all processes; `None` where the kernel does not tell.
pub fn threads() -> Option<Level> {
    let number =
        |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse::<u64>().ok();
    // Each has a number as well, as a process has that nobody waited for.
    let total = number("threads-max")?.min(number("pid_max")?);
    let used = read_threads(&fs::read_to_string("/proc/loadavg").ok()?)?;
    let limit = (total / LIMIT_FRACTION).min(MAX_RESERVED_THREADS);
    Some(Level { total, available: total.saturating_sub(used), limit, rate: THREADS_RATE })
}

/// "0.20 0.18 0.12 1/80 11206": behind the slash is how many there are (proc_loadavg(5)).
fn read_threads(loadavg: &str) -> Option<u64> {
    loadavg.split(' ').nth(3)?.split_once('/')?.1.parse().ok()
}

/// Where the file system is mounted on which `directory` is.
pub fn mount_point(directory: &Path) -> PathBuf {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let own = device(directory);
    let mut place = directory;
    while let Some(parent) = place.parent().filter(|parent| device(parent) == own) {
        place = parent;
    }
    place.to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn inode_reserve_is_a_bounded_fraction() {
        let level = |total: u64, available| {
            let limit = (total / LIMIT_FRACTION).min(MAX_RESERVED_INODES);
            Level { total, available, limit, rate: FILES_RATE }
        };
        let router = level(7_400, 7_000);
        assert_eq!((router.limit, router.reserve(), router.missing()), (925, 1_233, 0));
        assert_eq!((router.spare(0), router.spare(5_000), router.spare(6_000)), (5_767, 767, 0));
        assert_eq!(router.lasts(), Duration::from_millis(202));
        assert_eq!((level(7_400, 900).missing(), level(7_400, 900).lasts()), (25, Duration::ZERO));
        assert_eq!(level(1 << 20, 1 << 20).limit, MAX_RESERVED_INODES);
    }

    #[test]
    fn threads_and_mount_points_are_read() {
        assert_eq!(read_threads("0.20 0.18 0.12 1/80 11206\n"), Some(80));
        assert_eq!(read_threads("0.20"), None);
        let level = threads().unwrap();
        assert!(level.available < level.total, "{level:?}");
        assert_eq!(mount_point(Path::new("/proc/self/fd")), Path::new("/proc"));
        assert!(inodes(Path::new("/proc")).unwrap().is_none());
    }
}
