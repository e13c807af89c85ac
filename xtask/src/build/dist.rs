//! `cargo xtask build`: `hop` and the agents, in `target/dist`.

use anyhow::{Context, Result};

use crate::build::agents::{AGENTS, copy};
use crate::build::cache::evict_unused;
use crate::build::toolchain::{Toolchain, host_cargo_build};
use crate::command::run;
use crate::paths;

/// Builds the agents, a `hop` that embeds them, and an agent for this machine, which the tests use.
pub fn build() -> Result<()> {
    let toolchain = Toolchain::set_up()?;
    for agent in &AGENTS {
        agent.build(&toolchain)?;
    }
    evict_unused(&paths::cache()?.join("agents"));
    eprintln!("building hop");
    let release = ["--quiet", "--release", "--package"];
    run(host_cargo_build()?.args(release).arg("hop").env("HOP_AGENTS", paths::dist()))?;
    run(host_cargo_build()?.args(release).arg("hopd"))?;
    let built = paths::root().join("target/release");
    copy(&built.join("hop"), &paths::dist().join("hop"))?;
    copy(&built.join("hopd"), &paths::dist().join("hopd-host"))?;
    for name in ["hop", "hopd-mips", "hopd-mipsel", "hopd-host"] {
        let path = paths::dist().join(name);
        let size = path.metadata().with_context(|| format!("cannot look at {}", path.display()))?.len();
        eprintln!("{:>10} bytes  target/dist/{name}", size);
    }
    Ok(())
}
