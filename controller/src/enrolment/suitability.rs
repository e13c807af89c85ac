//! Decides from the survey whether Hop can work on a router.

use std::path::Path;

use hop_formats::meminfo::Memory;
use hop_formats::size::Size;

use super::survey::{Flavour, Survey};
use crate::program::embedded::Arch;
use hop_formats::elf;

/// Bytes of memory that a router must have to spare beside the agent's own file: what the agent takes when it serves,
/// and the reserve that it never gives away (8 MiB).
pub(super) const MEMORY_TO_SPARE: u64 = 10 << 20;

/// The oldest kernel that the agent runs on: Rust's standard library and Go 1.24 both want 3.2.
const OLDEST_KERNEL: (u32, u32) = (3, 2);

/// Why Hop cannot work on a router.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say what the fields are")]
pub enum Unsupported {
    #[error("the login is not root's, and only root may start programs there and see that they end")]
    NotRoot,
    #[error("it has no {}, and Hop's scripts need it", .0.iter().map(|tool| format!("`{tool}`")).collect::<Vec<_>>().join(" and no "))]
    NoTool(Vec<String>),
    #[error("it is {0}, and there are agents for 32-bit MIPS only")]
    NotMips(String),
    #[error("its kernel runs 64-bit programs and none for 32-bit MIPS (o32)")]
    NoO32,
    #[error("its kernel is Linux {kernel}, and 3.2 is the oldest that runs an agent")]
    OldKernel { kernel: String, flavour: Flavour },
    #[error("/tmp is mounted noexec, so no program can run from it")]
    NoExec,
    #[error("/tmp is on {0} and not in RAM: programs would wear out the flash")]
    NotInRam(String),
    #[error("the agent needs {} in /tmp, and {} are free", Size(*.needed), Size(*.free))]
    NoRoom { needed: u64, free: u64 },
    #[error("it has {} of memory to spare, and {} are needed", Size(*.available), Size(*.needed))]
    NoMemory { needed: u64, available: u64 },
    #[error(
        "its kernel promises {} of memory more, and {} are needed; its vm.overcommit_memory is 2",
        Size(*.available),
        Size(*.needed)
    )]
    NoPromise { needed: u64, available: u64 },
}

impl Survey {
    /// The agent that can run there, after all that could keep it from running was looked at. `size` is its file's.
    ///
    /// # Errors
    /// The first reason why none can.
    pub fn agent_for(&self, size: impl Fn(Arch) -> u64) -> Result<Arch, Unsupported> {
        if !self.is_root {
            return Err(Unsupported::NotRoot);
        }
        if !self.missing.is_empty() {
            return Err(Unsupported::NoTool(self.missing.clone()));
        }
        let arch = self.arch()?;
        let version: Vec<u32> =
            self.kernel.split(['.', '-']).map_while(|number| number.parse().ok()).collect();
        if let [major, minor, ..] = version[..]
            && (major, minor) < OLDEST_KERNEL
        {
            return Err(Unsupported::OldKernel { kernel: self.kernel.clone(), flavour: self.flavour });
        }
        let needed = size(arch);
        if let Some(tmp) = self.mount_of(Path::new("/tmp")) {
            if tmp.has("noexec") {
                return Err(Unsupported::NoExec);
            }
            if !tmp.is_in_ram() {
                return Err(Unsupported::NotInRam(tmp.kind.clone()));
            }
            if let Some((_, free)) = tmp.size
                && free < needed
                // The root of an initramfs says 0 of 0.
                && tmp.size != Some((0, 0))
            {
                return Err(Unsupported::NoRoom { needed, free });
            }
        }
        let needed = needed + MEMORY_TO_SPARE;
        let Memory { available, promisable, .. } = self.memory;
        if available < needed {
            return Err(Unsupported::NoMemory { needed, available });
        }
        match promisable {
            Some(available) if available < needed => Err(Unsupported::NoPromise { needed, available }),
            _ => Ok(arch),
        }
    }

    fn arch(&self) -> Result<Arch, Unsupported> {
        match self.target {
            Some(elf::Target { class: 1, data: 2, machine: 8 }) => Ok(Arch::Mips),
            Some(elf::Target { class: 1, data: 1, machine: 8 }) => Ok(Arch::Mipsle),
            // A 64-bit userland may or may not run 32-bit programs; that the agent runs is what decides.
            Some(elf::Target { class: 2, data: 2, machine: 8 }) => Ok(Arch::Mips),
            Some(elf::Target { class: 2, data: 1, machine: 8 }) => Ok(Arch::Mipsle),
            Some(other) => Err(Unsupported::NotMips(other.to_string())),
            None => Err(Unsupported::NotMips(self.machine.clone())),
        }
    }
}
