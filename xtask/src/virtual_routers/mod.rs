//! `cargo xtask virtual-routers`: kernels and root archives of the virtual routers, built from Debian's source packages.
//!
//! Each part is kept in the cache by what it was built from, and put into `virtual-routers` in the cache whole. When
//! every part is there, nothing is installed and nobody is asked: neither apt nor the network. So busybox and dropbear stay
//! at the version that Debian had when they were built, until their recipe changes or the cache is removed. Kernels are
//! built again when the package of their source is upgraded.

mod archive;
mod busybox;
mod config;
mod dropbear;
mod fake_firmware;
mod kernel;
mod part;
mod root;
mod sources;
mod stick;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::agents::AGENTS;
use crate::build::cache::forget_unused;
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
    /// The file under `tests/routers` that bears its name says what is on it.
    flavour: &'static str,
    /// `mips` or `mipsel`: zig's, QEMU's and our own name for the CPU.
    architecture: &'static str,
}

impl System {
    /// Fails unless a program runs on the system's CPU without its libraries and without an FPU.
    fn check(&self, program: &Path) -> Result<()> {
        let agent = AGENTS.iter().find(|agent| agent.name == self.architecture);
        agent.context("there is an agent for every CPU")?.check(program)
    }
}

/// Builds what is missing and puts everything where `hop` looks for it.
pub fn build() -> Result<()> {
    let cache = paths::cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    // A second build waits here and then finds everything done.
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
    // Nobody else is building a part: the lock is ours.
    forget_unused(&part::directory()?);
    Ok(())
}

/// The files of the repository that virtual routers are made of.
fn routers() -> PathBuf {
    paths::root().join("tests/routers")
}

/// Puts a file into a directory, whole or not at all, with its holes.
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
