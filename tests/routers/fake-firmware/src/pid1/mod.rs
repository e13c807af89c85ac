//! PID 1 from the start of the kernel to the change of root. Then it executes the flavour's init, by its name and in its root.

mod boot;
pub mod disk;
mod firmware;
mod interrupts;
pub mod mounts;
pub mod power;
pub mod spawn;
mod system_calls;

use std::env;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::system::{RebootCommand, reboot, sethostname};

use crate::console::{fail, log, report};
use crate::profile::{Flavour, Profile};

/// The variable with the profile after the change of root, where the file does not exist. No other process gets it.
const PROFILE: &str = "VIRTUAL_ROUTER";

/// `/init`, `/sbin/procd` and `/sbin/init`.
pub fn main() -> ExitCode {
    if std::process::id() != 1 {
        return fail("this is the init of a virtual router, and runs only as PID 1");
    }
    match env::var(PROFILE) {
        Ok(profile) => boot::run(Profile::parse(&profile)),
        Err(_) => enter_root(&fs::read_to_string("/profile").unwrap_or_default()),
    }
}

fn enter_root(text: &str) -> ExitCode {
    let profile = Profile::parse(text);
    if let Some(last) = profile.last_system_call {
        report("system call filter", system_calls::hide_above(last));
    }
    report("Ctrl-Alt-Del", reboot(RebootCommand::CadOff));
    if profile.time_1970 {
        report("clock", set_clock_to_epoch());
    }
    report("hostname", sethostname(profile.hostname.as_bytes()));
    log(&format!("{} as {}", profile.model, profile.hostname));
    mounts::of_the_kernel(&profile);
    report("interrupts of PCI", interrupts::of_pci_are_levels());
    mounts::serial_links(&profile.serial);
    firmware::write(&profile);
    // The root has the same program; this frees the RAM of a second copy.
    report("/init", fs::remove_file("/init"));
    mounts::change_root(profile.flavour);
    let program = if profile.flavour == Flavour::DdWrt { "/sbin/init" } else { "/sbin/procd" };
    let error = Command::new(program).env_clear().env(PROFILE, text).exec();
    log(&format!("{program}: {error}"));
    boot::run(profile)
}

/// Sets the clock to 1970: to the uptime, because the kernel refuses a time that puts its start before the epoch. (libc, because
/// rustix on 32-bit MIPS with musl has a `timespec` that is larger than the kernel's.)
fn set_clock_to_epoch() -> io::Result<()> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls get a valid timespec.
    let set = unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time);
        time.tv_sec += 1;
        libc::clock_settime(libc::CLOCK_REALTIME, &raw const time)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
