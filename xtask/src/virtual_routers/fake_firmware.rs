//! The program that stands in for init, procd, nvram and the other programs of a router's maker.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::part::Part;
use super::{System, routers};
use crate::build::agents::AGENTS;
use crate::build::toolchain::Toolchain;
use crate::command::run;
use crate::paths;
use crate::segments;

/// What the program is built from, beside the toolchain and its own sources.
const SOURCES: [&str; 2] = ["Cargo.toml", "Cargo.lock"];

/// The program for the system's CPU.
pub fn build(system: System, toolchain: &Toolchain) -> Result<PathBuf> {
    let architecture = system.architecture;
    let mut part = Part::new(format!("fake-firmware-{architecture}"), include_str!("fake_firmware.rs"))
        .of(toolchain.version()?)
        .of(include_str!("../build/toolchain.rs"));
    for source in SOURCES {
        part = part.of_file(&paths::root().join(source))?;
    }
    for source in ["Cargo.toml", "src"] {
        part = part.of_file(&routers().join("fake-firmware").join(source))?;
    }
    let place = part.get(&["fake-firmware"], |place| {
        eprintln!(
            "building the fake-firmware for {architecture} with their standard library: a minute on two cores"
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
