//! The program that stands in for init, procd, nvram and the other programs of a router's maker.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::part::Part;
use super::{System, routers};
use crate::agents::AGENTS;
use crate::command::run;
use crate::paths;
use crate::segments;
use crate::toolchain::Toolchain;

/// What the program is built from, beside the toolchain and its own sources.
const SOURCES: [&str; 2] = ["Cargo.toml", "Cargo.lock"];

/// The program for the system's CPU.
pub fn build(system: System, toolchain: &Toolchain) -> Result<PathBuf> {
    let architecture = system.architecture;
    let mut part = Part::new(format!("stand-ins-{architecture}"), include_str!("stand_ins.rs"))
        .of(toolchain.version()?)
        .of(include_str!("../toolchain.rs"));
    for source in SOURCES {
        part = part.of_file(&paths::root().join(source))?;
    }
    for source in ["Cargo.toml", "src"] {
        part = part.of_file(&routers().join("stand-ins").join(source))?;
    }
    let place = part.get(&["stand-ins"], |place| {
        eprintln!(
            "building the stand-ins for {architecture} with their standard library: a minute on two cores"
        );
        let agent = AGENTS.iter().find(|agent| agent.name == architecture);
        let target = agent.context("an agent for every CPU")?.target;
        run(toolchain.cargo_build(target)?.args([
            "--quiet",
            "--profile",
            "device",
            "--package",
            "stand-ins",
        ]))?;
        let built = paths::root().join(format!("target/device/{target}/device/stand-ins"));
        let content = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
        let content =
            segments::alone(&content).with_context(|| format!("{} has no symbols", built.display()))?;
        let stand_ins = place.join("stand-ins");
        fs::write(&stand_ins, content)
            .and_then(|()| fs::set_permissions(&stand_ins, Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {}", stand_ins.display()))?;
        system.check(&place.join("stand-ins"))
    })?;
    Ok(place.join("stand-ins"))
}
