//! `cargo xtask virtual-routers`: kernels and root archives of the virtual routers, built from Debian's source packages.
//!
//! Each build is cached under a hash of its inputs, and its result is published in the cache's `virtual-routers`. When all
//! builds are cached, nothing is installed, and neither apt nor the network is used. So busybox and dropbear stay at the version
//! that Debian had when they were built, until their recipe changes or the cache is removed. The kernels are rebuilt when the
//! package of their source is upgraded.

mod archive;
mod busybox;
mod cached_build;
mod config;
mod dropbear;
mod fake_firmware;
mod kernel;
mod root;
mod sources;
mod stick;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::agents::AGENTS;
use crate::build::cache::evict_unused;
use crate::build::toolchain::Toolchain;
use crate::command::run;
use crate::{packages, paths};
use sources::Sources;

/// The systems that are built, each for the CPU of a router that runs it.
const SYSTEMS: [System; 4] = [
    System { flavour: "openwrt", architecture: "mips" },
    System { flavour: "rutos", architecture: "mips" },
    System { flavour: "dd-wrt", architecture: "mipsel" },
    System { flavour: "openwrt", architecture: "mipsel" },
];

/// One root archive.
#[derive(Clone, Copy)]
struct System {
    /// The firmware; files of `tests/routers` with this name say what is on it.
    flavour: &'static str,
    /// `mips` or `mipsel`: the CPU's name in zig and QEMU.
    architecture: &'static str,
}

impl System {
    /// Fails unless a program is static and for the system's CPU, without FPU.
    fn check(&self, program: &Path) -> Result<()> {
        let agent = AGENTS.iter().find(|agent| agent.name == self.architecture);
        agent.context("there is an agent for every CPU")?.check(program)
    }
}

/// Builds what is missing and publishes everything where `hop` looks for it.
pub fn build() -> Result<()> {
    let cache = paths::cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    // A concurrent build waits here, and then finds everything cached.
    let lock = cache.join("virtual-routers.lock");
    let lock = File::create(&lock).with_context(|| format!("cannot create {}", lock.display()))?;
    lock.lock().context("cannot lock the cache")?;

    packages::qemu_system()?;
    let toolchain = Toolchain::set_up()?;
    let mut sources = Sources::new();
    let mut artifacts = kernel::build()?;
    for system in SYSTEMS {
        let busybox = busybox::build(system, &toolchain, &mut sources)?;
        let dropbear = dropbear::build(system, &toolchain, &mut sources)?;
        let fake_firmware = fake_firmware::build(system, &toolchain)?;
        artifacts.push(root::build(system, &busybox, &dropbear, &fake_firmware)?);
    }
    artifacts.push(stick::build()?);

    let place = cache.join("virtual-routers");
    fs::create_dir_all(&place).with_context(|| format!("cannot create {}", place.display()))?;
    for artifact in &artifacts {
        publish(artifact, &place)?;
    }
    // Safe under the lock: no other build is running.
    evict_unused(&cached_build::directory()?);
    Ok(())
}

/// The files of the repository that virtual routers are made of.
fn routers() -> PathBuf {
    paths::root().join("tests/routers")
}

/// Copies a file into a directory, whole or not at all, with its holes.
fn publish(artifact: &Path, place: &Path) -> Result<()> {
    let name = artifact.file_name().context("an artifact has a name")?;
    let published = place.join(name);
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let content = read(artifact)?;
    if !published.exists() || read(&published)? != content {
        let temporary = place.join(format!("{}.new", name.to_string_lossy()));
        run(Command::new("cp").arg("--sparse=always").args([artifact, &temporary]))?;
        fs::rename(&temporary, &published)
            .with_context(|| format!("cannot write {}", published.display()))?;
    }
    println!("{:>10} bytes  {}", content.len(), published.display());
    Ok(())
}
