//! Sets PCI interrupts to level-triggered, as a boot loader does on this board and the PCI specification demands.
//!
//! QEMU starts the kernel without a boot loader, the interrupt controllers (i8259) are edge-triggered after reset, and Linux does not
//! change that. Devices share a line: when one asserts it while another does, there is no edge, the line never falls, and no
//! device on it is served again. Under load a network card stops that way after some tens of megabytes.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The physical address of the I/O ports of PCI and ISA: `MALTA_PCI0_IO`, to which both QEMU and a boot loader set the bridge.
const PORTS: u64 = 0x1800_0000;
/// The size of the mapping: a page.
const LENGTH: usize = 4096;
/// The edge/level control register of the second i8259, a bit for each of its lines from 8 on (ELCR2, data sheet of Intel's
/// 82371AB).
const LEVELS: usize = 0x4d1;
/// The lines to which the bridge routes PCI interrupts: 10 and 11.
const LINES_OF_PCI: u8 = 1 << (10 - 8) | 1 << (11 - 8);

/// Makes the lines of PCI level-triggered. /dev must be mounted.
pub fn of_pci_are_levels() -> io::Result<()> {
    // O_DSYNC on /dev/mem means an uncached mapping.
    let memory = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DSYNC).open("/dev/mem")?;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses. The register is within it, and is a byte that can be read and
    // written.
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
