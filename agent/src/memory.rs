//! The router's RAM: what there is, and what a program may have of it.
//!
//! A file in tmpfs is RAM that nothing can take back, so a program is counted before it is received. What must stay true:
//! [`RESERVE`] bytes are never given away.

use std::fs;
use std::io;

use crate::error::Error;

/// Bytes that stay free for the router itself and for what the program allocates while it starts: a Go program that
/// prints one line has 4 MB resident beside its file, and a 64 MB router under load wants the other half.
pub const RESERVE: u64 = 8 * 1024 * 1024;

/// Asks the kernel to kill something else than this agent for want of memory (proc(5), oom_score_adj): who else would end
/// the programs? Only root may ask; others take their chance.
pub fn be_spared() {
    let _ = fs::write("/proc/self/oom_score_adj", "-500");
}

/// Bytes that are available at the least: what is free, less what the kernel may keep of it (its watermarks, which are far
/// below [`RESERVE`]). What it could take back from its caches is not in it, and so the answer costs a twentieth of
/// [`Memory::read`] (sysinfo(2)).
pub fn surely_available() -> u64 {
    let known = rustix::system::sysinfo();
    // A long is 32 bits on MIPS.
    #[allow(clippy::useless_conversion)]
    let free = u64::from(known.freeram).saturating_mul(u64::from(known.mem_unit));
    free.saturating_sub(RESERVE)
}

/// A reading of /proc/meminfo (proc(5)), in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All memory that the kernel manages.
    pub total: u64,
    /// What can be had without swapping or killing.
    pub available: u64,
}

impl Memory {
    /// Reads the current figures.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/meminfo")?))
    }

    /// Reads the text of /proc/meminfo. What it does not say is 0.
    pub fn parse(meminfo: &str) -> Self {
        let field = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kibibytes.saturating_mul(1024))
        };
        let value = |name| field(name).unwrap_or(0);
        // MemAvailable came with Linux 3.14; DD-WRT runs 3.10. Files in tmpfs (Shmem) and in ramfs (Unevictable) are in
        // Cached and cannot be dropped.
        let kept = || value("Shmem").saturating_add(value("Unevictable"));
        let all = || value("MemFree").saturating_add(value("Buffers")).saturating_add(value("Cached"));
        let estimate = || all().saturating_sub(kept());
        Self { total: value("MemTotal"), available: field("MemAvailable").unwrap_or_else(estimate) }
    }

    /// Bytes that may still be given away, of which `promised` are already but not yet used.
    pub fn spare(&self, promised: u64) -> u64 {
        self.available.saturating_sub(promised).saturating_sub(RESERVE)
    }

    /// Admits `needed` further bytes, of which `promised` are already given away but not yet used.
    ///
    /// # Errors
    /// [`Error::NoMemory`] with the figures.
    pub fn admit(&self, needed: u64, promised: u64) -> Result<(), Error> {
        let available = self.spare(promised);
        if needed <= available { Ok(()) } else { Err(Error::NoMemory { needed, available }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str =
        "MemTotal:          60000 kB\nMemFree:            9000 kB\nMemAvailable:      30000 kB\n";
    const OLD: &str = "MemTotal:          60000 kB\nMemFree:           10000 kB\nBuffers:            1000 kB\n\
                       Cached:            20000 kB\nSwapCached:            0 kB\nShmem:              5000 kB\nUnevictable:        2000 kB\n";

    #[test]
    fn the_kernels_own_figure_is_taken_where_there_is_one() {
        assert_eq!(Memory::parse(NEW), Memory { total: 60000 * 1024, available: 30000 * 1024 });
    }

    #[test]
    fn before_linux_3_14_files_in_tmpfs_do_not_count_as_available() {
        assert_eq!(Memory::parse(OLD).available, (10000 + 1000 + 20000 - 5000 - 2000) * 1024);
    }

    #[test]
    fn figures_that_no_router_has_are_no_reason_to_end() {
        let text = format!("MemTotal: {0} kB\nMemFree: {0} kB\nCached: {0} kB\n", u64::MAX);
        assert_eq!(Memory::parse(&text), Memory { total: u64::MAX, available: u64::MAX });
    }

    #[test]
    fn the_reserve_and_what_is_promised_are_never_given_away() {
        let memory = Memory { total: 64 << 20, available: 20 << 20 };
        assert!(memory.admit(12 << 20, 0).is_ok());
        assert!(memory.admit((12 << 20) + 1, 0).is_err());
        assert!(memory.admit(2 << 20, 10 << 20).is_ok());
        match memory.admit(3 << 20, 10 << 20) {
            Err(Error::NoMemory { needed, available }) => assert_eq!((needed, available), (3 << 20, 2 << 20)),
            other => panic!("{other:?}"),
        }
    }
}
