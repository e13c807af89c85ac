//! Installing what the build and the tests need: packages of Debian, of PyPI and of crates.io.
//!
//! **Invariants:** what is installed, and why, is printed before; what is there is not installed again.

pub mod cargo_fuzz;
pub mod debian;
pub mod zig;

use anyhow::Result;

use crate::paths::which;
use debian::{apt, require};

/// Installs qemu-user, which runs an agent and its programs without a whole router.
pub fn qemu_user() -> Result<()> {
    let found = |arch| ["", "-static"].iter().any(|suffix| which(&format!("qemu-{arch}{suffix}")).is_some());
    if !(found("mips") && found("mipsel")) {
        apt(&["qemu-user-static"], "virtual routers that are only an agent run under qemu-user")?;
    }
    require(&[("bwrap", "bubblewrap")], "virtual routers that are only an agent have a root of their own")
}

/// Installs QEMU's system emulators, for virtual routers, and ssh, which enrols them.
pub fn qemu_system() -> Result<()> {
    let needs = [("qemu-system-mipsel", "qemu-system-mips"), ("ssh", "openssh-client")];
    require(&needs, "virtual routers with a kernel of their own run under QEMU, and are enrolled over ssh")
}

/// Installs an ssh server, which Debian does not start with this package, and a library that gives it another home than the user's.
pub fn ssh_server() -> Result<()> {
    let wrapper = format!("/usr/lib/{}-linux-gnu/libnss_wrapper.so", std::env::consts::ARCH);
    let needs =
        [("/usr/sbin/dropbear", "dropbear-bin"), (&*wrapper, "libnss-wrapper"), ("ssh", "openssh-client")];
    require(&needs, "the bench compares one program on many routers with ssh, and runs the servers itself")
}
