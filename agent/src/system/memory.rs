//! The router's RAM: how much is available, and how much of it a program may have.
//!
//! A file in tmpfs is RAM that the kernel cannot reclaim, so the agent counts a program before it receives it.
//!
//! **Invariants:** the agent never gives away the last [`RESERVE`] bytes.

use std::fs;
use std::io;
use std::ops::Deref;

use hop_formats::meminfo::{self, MEMINFO, MIN_FREE_KBYTES, OVERCOMMIT_MEMORY};

use crate::system::error::Error;

/// Bytes that stay free for the router itself and for the memory that a program allocates while it starts: a Go program
/// that prints one line has 4 MB resident in addition to its file, and a 64 MB router under load needs the other half.
///
/// They lie above the kernel's lowest watermark, and so include the memory that the kernel itself holds back above
/// that: half of these 8 MiB on a 64 MB OpenWrt router. If they came on top of both, users would get 4 MiB less, and
/// nobody would be safer.
pub const RESERVE: u64 = 8 * 1024 * 1024;

/// Bytes in which Go maps its heap on 32-bit MIPS (heapArenaBytes, runtime/malloc.go). A kernel with strict overcommit
/// counts all of them at once, so a heap of any size may take one arena more than GOMEMLIMIT says.
const GO_ARENA: u64 = 4 * 1024 * 1024;

/// Asks the kernel's OOM killer to spare this agent (proc(5), oom_score_adj), because only the agent would then kill
/// the programs. Only root may ask; an agent of another user runs without this.
pub fn be_spared() {
    let _ = fs::write("/proc/self/oom_score_adj", "-500");
}

/// The value of a kernel setting; empty if the kernel does not have it.
fn sysctl(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// The kernel's settings of its memory.
pub(super) fn settings() -> meminfo::Settings {
    meminfo::Settings::parse(&sysctl(MIN_FREE_KBYTES), &sysctl(OVERCOMMIT_MEMORY))
}

/// The router's memory at one moment, and how much of it the agent may give away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory(pub meminfo::Memory);

impl Deref for Memory {
    type Target = meminfo::Memory;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Memory {
    /// Reads the current state.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub fn read() -> io::Result<Self> {
        let meminfo = fs::read_to_string(MEMINFO)?;
        Ok(Self(meminfo::Memory::parse(&meminfo, &sysctl(MIN_FREE_KBYTES), &sysctl(OVERCOMMIT_MEMORY))))
    }

    /// Bytes that programs may have by RAM and by the commit limit, before the reserve is subtracted.
    pub fn for_programs(&self) -> u64 {
        self.promisable().min(self.available)
    }

    /// True if the commit limit is the bound, and not RAM.
    pub fn is_bound_by_promises(&self) -> bool {
        self.promisable() < self.available
    }

    /// Bytes below the commit limit, less one arena of Go's; `u64::MAX` without strict overcommit.
    fn promisable(&self) -> u64 {
        self.promisable.map_or(u64::MAX, |promisable| promisable.saturating_sub(GO_ARENA))
    }

    /// Bytes that the agent may still give away, if it has already given away `promised` bytes that are not used yet.
    pub fn spare(&self, promised: u64) -> u64 {
        self.spare_without(promised, 0)
    }

    /// Bytes that the agent may still give away once `unused` bytes of files are gone. Files in ramfs do not count
    /// towards the commit limit, so removing them frees nothing of that.
    pub fn spare_without(&self, promised: u64, unused: u64) -> u64 {
        let spare = |bytes: u64| bytes.saturating_sub(promised).saturating_sub(RESERVE);
        spare(self.available).saturating_add(unused).min(spare(self.promisable()))
    }

    /// Checks that a program can start now: a fork makes the kernel commit all memory again that the agent may write
    /// to, and Go's runtime allocates an arena before it does anything.
    ///
    /// # Errors
    /// [`Error::NoPromise`] with the amounts.
    pub fn check_start(&self) -> Result<(), Error> {
        match self.0.promisable {
            Some(available) if available < RESERVE => Err(Error::NoPromise { needed: RESERVE, available }),
            _ => Ok(()),
        }
    }

    /// Admits `needed` further bytes, if `promised` bytes are already given away and not used yet.
    ///
    /// # Errors
    /// [`Error::NoMemory`] or [`Error::NoPromise`] with the amounts.
    pub fn admit(&self, needed: u64, promised: u64) -> Result<(), Error> {
        let available = self.spare(promised);
        match needed <= available {
            true => Ok(()),
            false if self.is_bound_by_promises() => Err(Error::NoPromise { needed, available }),
            false => Err(Error::NoMemory { needed, available }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(available: u64, promisable: Option<u64>) -> Memory {
        Memory(meminfo::Memory {
            total: 64 << 20,
            available: available << 20,
            promisable: promisable.map(|mib| mib << 20),
        })
    }

    #[test]
    fn reserve_and_reservations_are_not_spare() {
        let memory = memory(20, None);
        assert!(memory.admit(12 << 20, 0).is_ok());
        assert!(memory.admit((12 << 20) + 1, 0).is_err());
        assert!(memory.admit(2 << 20, 10 << 20).is_ok());
        match memory.admit(3 << 20, 10 << 20) {
            Err(Error::NoMemory { needed, available }) => assert_eq!((needed, available), (3 << 20, 2 << 20)),
            other => panic!("{other:?}"),
        }
        assert_eq!(memory.spare_without(1 << 20, 4 << 20), 15 << 20);
    }

    #[test]
    fn strict_overcommit_bounds_spare_memory() {
        // The commit limit is high enough, and RAM is the bound.
        assert_eq!(memory(20, Some(40)).spare(0), 12 << 20);
        // Below the commit limit, an arena of Go's stays free in addition to the reserve.
        let bound = memory(30, Some(20));
        assert_eq!((bound.for_programs(), bound.spare(0)), (16 << 20, 8 << 20));
        assert_eq!(bound.spare_without(0, 9 << 20), 8 << 20);
        assert!(bound.check_start().is_ok() && memory(2, None).check_start().is_ok());
        assert!(matches!(memory(30, Some(7)).check_start(), Err(Error::NoPromise { .. })));
        match bound.admit(9 << 20, 0) {
            Err(Error::NoPromise { needed, available }) => {
                assert_eq!((needed, available), (9 << 20, 8 << 20))
            }
            other => panic!("{other:?}"),
        }
    }
}
