//! Builds the fake firmware: one program for init, procd, nvram and the other programs of a router's maker.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::cached_build::CachedBuild;
use super::{System, routers};
use crate::build::agents::AGENTS;
use crate::build::toolchain::Toolchain;
use crate::command::run;
use crate::paths;
use hop_formats::segments;

/// Inputs of the build, apart from the toolchain and the program's own sources.
const SOURCES: [&str; 2] = ["Cargo.toml", "Cargo.lock"];

/// Builds the program for the system's CPU.
pub fn build(system: System, toolchain: &Toolchain) -> Result<PathBuf> {
    let architecture = system.architecture;
    let mut build =
        CachedBuild::new(format!("fake-firmware-{architecture}"), include_str!("fake_firmware.rs"))
            .input(toolchain.version()?)
            .input(include_str!("../build/toolchain.rs"));
    for source in SOURCES {
        build = build.input_file(&paths::root().join(source))?;
    }
    for source in ["Cargo.toml", "src"] {
        build = build.input_file(&routers().join("fake-firmware").join(source))?;
    }
    let place = build.get(&["fake-firmware"], |place| {
        eprintln!(
            "building the fake firmware for {architecture} with its standard library: a minute on two cores"
        );
        let agent = AGENTS.iter().find(|agent| agent.name == architecture);
        let target = agent.context("an agent for every CPU")?.target;
        run(toolchain.cargo_build(target)?.args([
            "--quiet",
            "--profile",
            "device",
            "--package",
            "fake-firmware",
        ]))?;
        let built = paths::root().join(format!("target/device/{target}/device/fake-firmware"));
        let content = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
        let content =
            segments::alone(&content).with_context(|| format!("{} has no symbols", built.display()))?;
        let fake_firmware = place.join("fake-firmware");
        fs::write(&fake_firmware, content)
            .and_then(|()| fs::set_permissions(&fake_firmware, Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {}", fake_firmware.display()))?;
        system.check(&place.join("fake-firmware"))
    })?;
    Ok(place.join("fake-firmware"))
}
