//! The router's description of itself: facts to show, and the one fact that builds depend on.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// The identity of an executable that runs here, as its ELF header states it (elf(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// EI_CLASS: 1 is 32 bits, 2 is 64 bits.
    pub class: u8,
    /// EI_DATA: 1 is little endian, 2 is big endian.
    pub data: u8,
    /// e_machine.
    pub machine: u16,
}

/// The target that this agent was built for, which is therefore the router's.
pub const TARGET: Target = Target {
    class: if cfg!(target_pointer_width = "64") { 2 } else { 1 },
    data: if cfg!(target_endian = "big") { 2 } else { 1 },
    machine: if cfg!(target_arch = "mips") {
        8
    } else if cfg!(target_arch = "x86_64") {
        62
    } else if cfg!(target_arch = "aarch64") {
        183
    } else {
        0
    },
};

/// True if a file that begins with `start` is a program for this machine, or a script.
///
/// The kernel would refuse other files with ENOEXEC; but a launcher does not expect that, and glibc's execvp(3) passes
/// a file that the kernel refuses to a shell.
pub fn can_execute(start: &[u8]) -> bool {
    if start.starts_with(b"#!") {
        return true;
    }
    // e_ident, e_type, e_machine (elf(5)).
    let Some(header) = start.first_chunk::<20>() else { return false };
    let machine = [header[18], header[19]];
    let machine = if TARGET.data == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
    header.starts_with(b"\x7fELF")
        && header[4] == TARGET.class
        && header[5] == TARGET.data
        && machine == TARGET.machine
}

/// Number of CPUs that are online; at least 1.
pub fn processors() -> u32 {
    // SAFETY: the call only returns a number.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    u32::try_from(count).unwrap_or(1).max(1)
}

/// Facts to show; empty if the router does not tell.
#[derive(Debug)]
pub struct Host {
    /// Host name of the router.
    pub hostname: String,
    /// "OpenWrt 23.05.5", from os-release(5).
    pub firmware: String,
    /// "Linux 5.15.167".
    pub kernel: String,
    /// "MIPS 24Kc V7.4", from /proc/cpuinfo.
    pub cpu: String,
    /// Milliseconds since boot.
    pub uptime_ms: u64,
    /// Changes with every boot.
    pub boot_id: String,
    /// Seconds since 1970, by the router's clock.
    pub clock_s: u64,
    /// No name server is configured.
    pub lacks_resolver: bool,
}

impl Host {
    /// Reads all facts.
    pub fn read() -> Self {
        let uname = rustix::system::uname();
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            hostname: uname.nodename().to_string_lossy().into_owned(),
            firmware: value(&read("/etc/os-release"), "PRETTY_NAME", '=').trim_matches('"').to_owned(),
            kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
            cpu: cpu(&read("/proc/cpuinfo")).to_owned(),
            uptime_ms: uptime_ms(),
            boot_id: read("/proc/sys/kernel/random/boot_id").trim().to_owned(),
            clock_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()),
            lacks_resolver: !names_a_server(&read("/etc/resolv.conf")),
        }
    }
}

/// True if a resolv.conf(5) names a server.
fn names_a_server(text: &str) -> bool {
    text.lines().any(|line| line.trim_start().starts_with("nameserver"))
}

/// Milliseconds since boot; 0 if /proc does not tell.
fn uptime_ms() -> u64 {
    read_uptime(&fs::read_to_string("/proc/uptime").unwrap_or_default()).unwrap_or(0)
}

/// Parses "12345.67 …", seconds with two decimal places (proc_uptime(5)). Not as `f64`, whose parser takes 15 kB.
fn read_uptime(text: &str) -> Option<u64> {
    let (seconds, hundredths) = text.split(' ').next()?.trim_end().split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1000 + hundredths.parse::<u64>().ok()? * 10)
}

/// MIPS kernels call it "cpu model", others "model name".
fn cpu(cpuinfo: &str) -> &str {
    match value(cpuinfo, "cpu model", ':') {
        "" => value(cpuinfo, "model name", ':'),
        model => model,
    }
}

/// The value of the first line `key separator value`, or nothing.
fn value<'a>(text: &'a str, key: &str, separator: char) -> &'a str {
    text.lines()
        .filter_map(|line| line.split_once(separator))
        .find(|(name, _)| name.trim() == key)
        .map_or("", |(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_names_of_mips_and_pc() {
        let mips = "system type\t\t: Qualcomm Atheros QCA9533\ncpu model\t\t: MIPS 24Kc V7.4\nBogoMIPS\t\t: 432.53\n";
        assert_eq!(cpu(mips), "MIPS 24Kc V7.4");
        assert_eq!(cpu("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n"), "Some CPU @ 2 GHz");
        assert_eq!(cpu(""), "");
    }

    #[test]
    fn only_native_programs_and_scripts_run() {
        let this = std::env::current_exe().and_then(fs::read).unwrap_or_default();
        assert!(can_execute(&this) && can_execute(b"#!/bin/sh\n"));
        let mut other = this.clone();
        other[5] ^= 3;
        assert!(!can_execute(&other), "the other byte order");
        assert!(!can_execute(b"") && !can_execute(b"text") && !can_execute(&this[..19]));
    }

    #[test]
    fn name_servers_are_found() {
        assert!(names_a_server("search lan\nnameserver 127.0.0.1\n") && names_a_server("nameserver\t::1"));
        assert!(!names_a_server("") && !names_a_server("# nameserver 127.0.0.1\nsearch lan\n"));
    }

    #[test]
    fn uptime_is_in_milliseconds() {
        assert_eq!(read_uptime("12345.07 23456.00\n"), Some(12_345_070));
        for other in ["", "12", "12.x", "-1.00 2.00"] {
            assert_eq!(read_uptime(other), None, "{other}");
        }
    }

    #[test]
    fn firmware_name_is_that_of_openwrt() {
        let text = "NAME=\"OpenWrt\"\nPRETTY_NAME=\"OpenWrt 23.05.5\"\n";
        assert_eq!(value(text, "PRETTY_NAME", '=').trim_matches('"'), "OpenWrt 23.05.5");
    }
}
