//! The package manager: its name says which one a router has, and it prints architectures.

use std::fs;
use std::process::ExitCode;

use crate::console::{fail, print};

/// `opkg print-architecture`; it cannot install packages.
pub fn main(arguments: &[String]) -> ExitCode {
    if arguments.first().is_none_or(|verb| verb != "print-architecture") {
        return fail("opkg: a virtual router installs no packages");
    }
    let release = fs::read_to_string("/etc/openwrt_release").unwrap_or_default();
    let arch = release.lines().find_map(|line| line.strip_prefix("DISTRIB_ARCH='")?.strip_suffix('\''));
    print(&format!("arch all 1\narch noarch 1\narch {} 10\n", arch.unwrap_or("unknown")));
    ExitCode::SUCCESS
}
