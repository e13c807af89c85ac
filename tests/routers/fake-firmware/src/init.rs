//! PID 1 from the kernel's hand to the router's own root. Then it becomes the flavour's init, by its name and in its root.

use std::env;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::system::{RebootCommand, reboot, sethostname};

use crate::boot;
use crate::console::{fail, log, report};
use crate::firmware;
use crate::interrupts;
use crate::mounts;
use crate::profile::{Flavour, Profile};
use crate::system_calls;

/// Carries the profile over the change of root: the file does not exist there. Nothing else that is started gets it.
const PROFILE: &str = "VIRTUAL_ROUTER";

/// `/init`, and what it becomes.
pub fn main() -> ExitCode {
    if std::process::id() != 1 {
        return fail("this is for PID 1 of a virtual router");
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
    // The same program is in the root; in RAM once is enough.
    report("/init", fs::remove_file("/init"));
    mounts::change_root(profile.flavour);
    let program = if profile.flavour == Flavour::DdWrt { "/sbin/init" } else { "/sbin/procd" };
    let error = Command::new(program).env_clear().env(PROFILE, text).exec();
    log(&format!("{program}: {error}"));
    boot::run(profile)
}

/// Sets the clock to 1970. The kernel refuses a time that would put its own start before the epoch, so it is the time since
/// then. (rustix cannot be asked: with musl on 32-bit MIPS it takes `timespec` for larger than it is.)
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
