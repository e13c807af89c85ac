//! `cargo xtask size`: the agents against their budget.

use anyhow::{Context, Result, ensure};

use crate::agents::AGENTS;

/// Bytes of an agent. A router with 8 MB of flash has about 2 MB of it free (docs/specification.md).
const BUDGET: u64 = 1_940_000;

/// Fails if an agent in `target/dist` is over its budget.
pub fn check() -> Result<()> {
    for agent in &AGENTS {
        let path = agent.path();
        let size = path
            .metadata()
            .with_context(|| format!("cannot look at {}: run `cargo xtask build` first", path.display()))?
            .len();
        println!("hopd-{}: {size} of {BUDGET} bytes", agent.name);
        ensure!(size <= BUDGET, "hopd-{} is {} bytes over its budget", agent.name, size - BUDGET);
    }
    Ok(())
}
