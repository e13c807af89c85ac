//! Resources other than memory that a job can use up, so that the router's own daemons fail: the inodes of the file
//! system on which jobs work, and the threads of the kernel.
//!
//! **Invariants:** the agent never gives the reserve away; and a file system without a limit has none here.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::system::error::Error;

/// Fraction of the inodes, and of the threads, below which the OOM guard kills a job: one in this many. A tmpfs has one
/// inode for each two pages of RAM: 7,400 on a 64 MB router, whose daemons use some 100. Such a router has 450 to 900
/// threads.
const LIMIT_FRACTION: u64 = 8;

/// Maximum number of inodes to keep free: as many as a program creates during a few polls.
const MAX_RESERVED_INODES: u64 = 1024;

/// Maximum number of threads to keep free.
const MAX_RESERVED_THREADS: u64 = 256;

/// How many a program can use up in a millisecond: a 500 MIPS CPU creates 25 files, and starts three threads.
const FILES_RATE: u64 = 30;
const THREADS_RATE: u64 = 3;

/// Inodes that a job takes in addition to its input files: its directory, three names in that, its program, and four
/// archives that are being uploaded.
pub const JOB_INODES: u64 = 10;

/// A resource that a job has used up.
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
    /// The scarce resource.
    pub resource: Resource,
    /// How many were left.
    pub available: u64,
    /// The limit below which the guard kills a job.
    pub limit: u64,
    /// How many the job held.
    pub held: u64,
}

/// The level of a resource: how many there are, are left, and must be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// How many there are.
    pub total: u64,
    /// How many are left.
    pub available: u64,
    /// Below this the guard kills a job.
    pub limit: u64,
    rate: u64,
}

#[cfg(test)]
impl Level {
    /// A level with this many left.
    pub fn of_test(total: u64, available: u64, limit: u64) -> Self {
        Self { total, available, limit, rate: FILES_RATE }
    }
}

impl Level {
    /// How many are missing to the limit.
    pub fn missing(&self) -> u64 {
        self.limit.saturating_sub(self.available)
    }

    /// How long the rest above the limit lasts at the fastest rate.
    pub fn lasts(&self) -> Duration {
        Duration::from_millis(self.available.saturating_sub(self.limit) / self.rate)
    }

    /// How many a job that is about to start never gets: a third more than the limit, so that the guard need not kill
    /// it at once.
    pub fn reserve(&self) -> u64 {
        self.limit + self.limit / 3
    }

    /// How many a job that is about to start may have, if `promised` are given away already and not used yet.
    pub fn spare(&self, promised: u64) -> u64 {
        self.available.saturating_sub(promised).saturating_sub(self.reserve())
    }
}

/// The inodes of the file system that contains `directory`; `None` if only the memory sets a limit (ramfs, and a tmpfs
/// with nr_inodes=0).
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

/// How many threads the kernel can have; `None` if it does not tell.
pub(super) fn max_threads() -> Option<u64> {
    let number =
        |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse::<u64>().ok();
    // Each thread also takes a PID, and so does a zombie.
    Some(number("threads-max")?.min(number("pid_max")?))
}

/// The level of threads, of which the kernel can have `total`. `counted` is the number of them in sysinfo(2), which has
/// 16 bits for it; the file of a kernel that can have more tells how many there are. `None` if it does not.
pub(super) fn threads(total: u64, counted: u16) -> Option<Level> {
    let used = match total <= u64::from(u16::MAX) {
        true => counted.into(),
        false => read_threads(&fs::read_to_string("/proc/loadavg").ok()?)?,
    };
    let limit = (total / LIMIT_FRACTION).min(MAX_RESERVED_THREADS);
    Some(Level { total, available: total.saturating_sub(used), limit, rate: THREADS_RATE })
}

/// Parses "0.20 0.18 0.12 1/80 11206": the number after the slash (proc_loadavg(5)).
fn read_threads(loadavg: &str) -> Option<u64> {
    loadavg.split(' ').nth(3)?.split_once('/')?.1.parse().ok()
}

/// The mount point of the file system that contains `directory`.
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
        let total = max_threads().unwrap();
        let level = threads(total.max(1 << 16), 0).unwrap();
        assert!(level.available < level.total, "{level:?}");
        let router = Level { total: 450, available: 370, limit: 56, rate: THREADS_RATE };
        assert_eq!(threads(450, 80), Some(router));
        assert_eq!(mount_point(Path::new("/proc/self/fd")), Path::new("/proc"));
        assert!(inodes(Path::new("/proc")).unwrap().is_none());
    }
}
