//! What a boot loader leaves behind on this board: its interrupt controllers know that PCI devices pull on a line until they
//! are served, as the PCI specification has it.
//!
//! QEMU jumps to the kernel without a boot loader, the controllers (i8259) come up looking for edges, and Linux relies on
//! what it finds. Devices share a line: one that begins to pull while another does makes no edge, nor does the line
//! fall again, and nobody on it is ever served again. Under load that is a network card after some tens of megabytes.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Where the memory shows the ports of PCI and ISA: `MALTA_PCI0_IO`, to which both QEMU and a boot loader set the bridge.
const PORTS: u64 = 0x1800_0000;
/// How much of it is looked at: a page.
const LENGTH: usize = 4096;
/// The edge/level control register of the second i8259, a bit for each of its lines from 8 on (ELCR2, data sheet of Intel's
/// 82371AB).
const LEVELS: usize = 0x4d1;
/// The lines that the bridge leads PCI to: 10 and 11.
const LINES_OF_PCI: u8 = 1 << (10 - 8) | 1 << (11 - 8);

/// Makes the lines of PCI levels. /dev must be there.
pub fn of_pci_are_levels() -> io::Result<()> {
    // Without the cache, which is what O_DSYNC means there.
    let memory = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DSYNC).open("/dev/mem")?;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a mapping of its own at an address that the kernel chooses. The register is within it, and is a byte that can
    // be read and written.
    let found = unsafe {
        let ports = mmap(std::ptr::null_mut(), LENGTH, protection, MapFlags::SHARED, &memory, PORTS)?;
        let levels = ports.cast::<u8>().add(LEVELS);
        levels.write_volatile(LINES_OF_PCI);
        let found = levels.read_volatile();
        munmap(ports, LENGTH)?;
        found
    };
    if found == LINES_OF_PCI { Ok(()) } else { Err(io::Error::other(format!("it says {found:#04x}"))) }
}
