//! `cargo xtask size`: compares the agents with their budgets, and prints what they consist of.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::build::agents::{AGENTS, Agent};
use crate::build::toolchain::Toolchain;
use crate::checks::symbols;
use crate::paths::{self, which};

/// The page with the budgets.
const SPECIFICATION: &str = "docs/specification.md";
/// Its row for the size of the file.
const FILE_ROW: &str = "| size of an agent |";
/// Its row for the size under xz, which is about what the agent takes of a router's flash.
const XZ_ROW: &str = "| size of an agent under xz |";

/// How many origins are printed.
const MAX_ORIGINS: usize = 25;

/// Builds the agents, or takes them from the cache, and prints their sizes. Fails if one is over a budget.
pub fn check() -> Result<()> {
    let (max, max_xz) = (budget(FILE_ROW)?, budget(XZ_ROW)?);
    let toolchain = Toolchain::set_up()?;
    for agent in &AGENTS {
        agent.build(&toolchain)?;
        let path = agent.path();
        let size = path.metadata().with_context(|| format!("cannot look at {}", path.display()))?.len();
        let compressed = compressed(agent)?;
        print!("hopd-{}: {size} of {max} bytes", agent.name);
        match compressed {
            Some(compressed) => println!(", {compressed} of {max_xz} under xz"),
            None => println!("; install xz to check the size under xz"),
        }
        print_origins(agent, &toolchain)?;
        ensure!(size <= max, "hopd-{} is {} bytes over its budget", agent.name, size - max);
        let over = compressed.unwrap_or(0).saturating_sub(max_xz);
        ensure!(over == 0, "hopd-{} under xz is {over} bytes over its budget", agent.name);
    }
    Ok(())
}

/// A budget in bytes, from the specification.
fn budget(row: &str) -> Result<u64> {
    let path = paths::root().join(SPECIFICATION);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    parse_budget(&text, row).with_context(|| format!("{SPECIFICATION} has no row `{row} N bytes |`"))
}

fn parse_budget(text: &str, row: &str) -> Option<u64> {
    let row = text.lines().find_map(|line| line.strip_prefix(row))?;
    row.split_once(" bytes")?.0.trim().replace(',', "").parse().ok()
}

/// The size under xz, which squashfs uses; none where xz is not installed.
fn compressed(agent: &Agent) -> Result<Option<u64>> {
    if which("xz").is_none() {
        return Ok(None);
    }
    let mut xz = Command::new("xz");
    xz.args(["-9", "--extreme", "--stdout", "--keep"]).arg(agent.path()).stderr(Stdio::inherit());
    let output = xz.output().context("cannot run xz")?;
    ensure!(output.status.success(), "xz failed: {}", output.status);
    Ok(Some(output.stdout.len() as u64))
}

fn print_origins(agent: &Agent, toolchain: &Toolchain) -> Result<()> {
    let path = agent.build_with_symbols(toolchain)?;
    let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let origins = symbols::origins(&content).with_context(|| path.display().to_string())?;
    for (origin, size) in origins.iter().take(MAX_ORIGINS) {
        println!("{size:>10}  {origin}");
    }
    let rest: u64 = origins.iter().skip(MAX_ORIGINS).map(|(_, size)| size).sum();
    println!("{rest:>10}  {} others", origins.len().saturating_sub(MAX_ORIGINS));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_parsed_from_the_specification() {
        let text = "| a | b |\n| size of an agent | 1,048,576 bytes | `x` |\n| size of a hop | 1 bytes |";
        assert_eq!(parse_budget(text, FILE_ROW), Some(1_048_576));
        assert_eq!(parse_budget(text, XZ_ROW), None);
        for row in [FILE_ROW, XZ_ROW] {
            assert!(budget(row).is_ok_and(|budget| budget > 0), "{row}");
        }
    }
}
