//! The router's RAM: what there is, and what a program may have of it.
//!
//! A file in tmpfs is RAM that nothing can take back, so a program is counted before it is received.
//!
//! **Invariants:** [`RESERVE`] bytes are never given away.

use std::fs;
use std::io;
use std::ops::Deref;

use hop_formats::meminfo::{self, MEMINFO, MIN_FREE_KBYTES, OVERCOMMIT_MEMORY};

use crate::system::error::Error;

/// Bytes that stay free for the router itself and for what the program allocates while it starts: a Go program that
/// prints one line has 4 MB resident beside its file, and a 64 MB router under load wants the other half.
///
/// It lies above the kernel's lowest watermark, and so includes what the kernel itself keeps back above that: on an OpenWrt
/// router of 64 MB, half of these 8 MiB. Were it on top of both, a user would get 4 MiB less, and nobody would be safer.
pub const RESERVE: u64 = 8 * 1024 * 1024;

/// Bytes by which Go maps its heap on 32-bit MIPS (heapArenaBytes, runtime/malloc.go). A kernel that promises no more than it
/// has counts all of them at once, so a heap of any size may take one more than GOMEMLIMIT says.
const GO_ARENA: u64 = 4 * 1024 * 1024;

/// Asks the kernel to kill something else than this agent when memory runs out (proc(5), oom_score_adj): who else would end
/// the programs? Only root may ask; others take their chance.
pub fn be_spared() {
    let _ = fs::write("/proc/self/oom_score_adj", "-500");
}

/// Bytes that are available at the least: what is free above the kernel's lowest watermark. What it could take back from its
/// caches is not in it, and so the answer costs a fraction of [`Memory::read`] (sysinfo(2)). It is 0 where the kernel
/// promises no more than it has: how much that is, only /proc/meminfo says.
pub fn surely_available() -> u64 {
    let known = rustix::system::sysinfo();
    // A long is 32 bits on MIPS.
    #[allow(clippy::useless_conversion)]
    let free = u64::from(known.freeram).saturating_mul(u64::from(known.mem_unit));
    let meminfo = format!("MemFree: {} kB", free / 1024);
    meminfo::Memory::parse(&meminfo, &sysctl(MIN_FREE_KBYTES), &sysctl(OVERCOMMIT_MEMORY)).least()
}

/// The value of a setting of the kernel; nothing if it has none of this name.
fn sysctl(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// The router's memory at one moment, and what of it may be given away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory(pub meminfo::Memory);

impl Deref for Memory {
    type Target = meminfo::Memory;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Memory {
    /// Reads the current figures.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub fn read() -> io::Result<Self> {
        let meminfo = fs::read_to_string(MEMINFO)?;
        Ok(Self(meminfo::Memory::parse(&meminfo, &sysctl(MIN_FREE_KBYTES), &sysctl(OVERCOMMIT_MEMORY))))
    }

    /// Bytes that programs may have by RAM and by what the kernel promises, the reserve not yet taken off.
    pub fn for_programs(&self) -> u64 {
        self.promisable().min(self.available)
    }

    /// True if it is not RAM that is short, but what the kernel promises.
    pub fn is_bound_by_promises(&self) -> bool {
        self.promisable() < self.available
    }

    /// Bytes that the kernel promises whatever a program does with them.
    fn promisable(&self) -> u64 {
        self.promisable.map_or(u64::MAX, |promisable| promisable.saturating_sub(GO_ARENA))
    }

    /// Bytes that may still be given away, of which `promised` are already but not yet used.
    pub fn spare(&self, promised: u64) -> u64 {
        self.spare_without(promised, 0)
    }

    /// Bytes that may still be given away when `unused` bytes of files are gone. Files in ramfs are none of what the kernel has
    /// promised, so of that nothing comes back with them.
    pub fn spare_without(&self, promised: u64, unused: u64) -> u64 {
        let spare = |bytes: u64| bytes.saturating_sub(promised).saturating_sub(RESERVE);
        spare(self.available).saturating_add(unused).min(spare(self.promisable()))
    }

    /// Sees to it that a program can start now: a fork asks the kernel to promise all that the agent may write to once more, and
    /// Go's runtime an arena before it does anything.
    ///
    /// # Errors
    /// [`Error::NoPromise`] with the figures.
    pub fn check_start(&self) -> Result<(), Error> {
        match self.0.promisable {
            Some(available) if available < RESERVE => Err(Error::NoPromise { needed: RESERVE, available }),
            _ => Ok(()),
        }
    }

    /// Admits `needed` further bytes, of which `promised` are already given away but not yet used.
    ///
    /// # Errors
    /// [`Error::NoMemory`] or [`Error::NoPromise`] with the figures.
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
        // Enough is promised, and RAM decides.
        assert_eq!(memory(20, Some(40)).spare(0), 12 << 20);
        // Of what is promised, an arena of Go's is left beside the reserve.
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
