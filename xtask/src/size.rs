//! `cargo xtask size`: the agents against their budget, and what they consist of.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::agents::{AGENTS, Agent};
use crate::paths::{self, which};
use crate::symbols;
use crate::toolchain::Toolchain;

/// The page that has the budget, and the row of it.
const SPECIFICATION: &str = "docs/specification.md";
const ROW: &str = "| size of an agent |";

/// How many crates are printed.
const CRATES: usize = 25;

/// Builds the agents, or takes them from the cache, and prints what they weigh. Fails if one is over its budget.
pub fn check() -> Result<()> {
    let budget = budget()?;
    let toolchain = Toolchain::set_up()?;
    for agent in &AGENTS {
        agent.build(&toolchain)?;
        let path = agent.path();
        let size = path.metadata().with_context(|| format!("cannot look at {}", path.display()))?.len();
        let packed = packed(agent)?.map_or_else(String::new, |size| format!(", {size} under xz"));
        println!("hopd-{}: {size} of {budget} bytes{packed}", agent.name);
        print_origins(agent, &toolchain)?;
        ensure!(size <= budget, "hopd-{} is {} bytes over its budget", agent.name, size - budget);
    }
    Ok(())
}

/// Bytes of an agent, from the one place that promises them.
fn budget() -> Result<u64> {
    let path = paths::root().join(SPECIFICATION);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    read_budget(&text).with_context(|| format!("{SPECIFICATION} has no line `{ROW} N bytes |`"))
}

fn read_budget(text: &str) -> Option<u64> {
    let row = text.lines().find_map(|line| line.strip_prefix(ROW))?;
    row.split_once(" bytes")?.0.trim().replace(',', "").parse().ok()
}

/// What it takes of a squashfs, about; nothing where there is no xz.
fn packed(agent: &Agent) -> Result<Option<usize>> {
    if which("xz").is_none() {
        return Ok(None);
    }
    let mut xz = Command::new("xz");
    xz.args(["-9", "--extreme", "--stdout", "--keep"]).arg(agent.path()).stderr(Stdio::inherit());
    let output = xz.output().context("cannot run xz")?;
    ensure!(output.status.success(), "xz failed: {}", output.status);
    Ok(Some(output.stdout.len()))
}

fn print_origins(agent: &Agent, toolchain: &Toolchain) -> Result<()> {
    let path = agent.build_with_symbols(toolchain)?;
    let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let origins = symbols::origins(&content).with_context(|| path.display().to_string())?;
    for (origin, size) in origins.iter().take(CRATES) {
        println!("{size:>10}  {origin}");
    }
    let rest: u64 = origins.iter().skip(CRATES).map(|(_, size)| size).sum();
    println!("{rest:>10}  {} others", origins.len().saturating_sub(CRATES));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_read_from_the_specification() {
        assert_eq!(read_budget("| a | b |\n| size of an agent | 1,048,576 bytes | `x` |\n"), Some(1_048_576));
        assert_eq!(read_budget("| size of a hop | 1 bytes |"), None);
        assert!(budget().is_ok_and(|budget| budget > 0));
    }
}
