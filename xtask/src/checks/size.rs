//! `cargo xtask size`: the agents against their budget, and what they consist of.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::build::agents::{AGENTS, Agent};
use crate::build::toolchain::Toolchain;
use crate::checks::symbols;
use crate::paths::{self, which};

/// The page that has the budgets, and the rows of it: of the file, and of what it takes of a router's flash.
const SPECIFICATION: &str = "docs/specification.md";
const FILE_ROW: &str = "| size of an agent |";
const PACKED_ROW: &str = "| the same under xz |";

/// How many crates are printed.
const CRATES: usize = 25;

/// Builds the agents, or takes them from the cache, and prints what they weigh. Fails if one is over a budget.
pub fn check() -> Result<()> {
    let (most, most_packed) = (budget(FILE_ROW)?, budget(PACKED_ROW)?);
    let toolchain = Toolchain::set_up()?;
    for agent in &AGENTS {
        agent.build(&toolchain)?;
        let path = agent.path();
        let size = path.metadata().with_context(|| format!("cannot look at {}", path.display()))?.len();
        let packed = packed(agent)?;
        print!("hopd-{}: {size} of {most} bytes", agent.name);
        match packed {
            Some(packed) => println!(", {packed} of {most_packed} under xz"),
            None => println!("; there is no xz here to tell what it takes of a squashfs"),
        }
        print_origins(agent, &toolchain)?;
        ensure!(size <= most, "hopd-{} is {} bytes over its budget", agent.name, size - most);
        let over = packed.unwrap_or(0).saturating_sub(most_packed);
        ensure!(over == 0, "hopd-{} under xz is {over} bytes over its budget", agent.name);
    }
    Ok(())
}

/// Bytes of an agent, from the one place that promises them.
fn budget(row: &str) -> Result<u64> {
    let path = paths::root().join(SPECIFICATION);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    read_budget(&text, row).with_context(|| format!("{SPECIFICATION} has no line `{row} N bytes |`"))
}

fn read_budget(text: &str, row: &str) -> Option<u64> {
    let row = text.lines().find_map(|line| line.strip_prefix(row))?;
    row.split_once(" bytes")?.0.trim().replace(',', "").parse().ok()
}

/// What it takes of a squashfs, about; nothing where there is no xz.
fn packed(agent: &Agent) -> Result<Option<u64>> {
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
        let text = "| a | b |\n| size of an agent | 1,048,576 bytes | `x` |\n| size of a hop | 1 bytes |";
        assert_eq!(read_budget(text, FILE_ROW), Some(1_048_576));
        assert_eq!(read_budget(text, PACKED_ROW), None);
        for row in [FILE_ROW, PACKED_ROW] {
            assert!(budget(row).is_ok_and(|budget| budget > 0), "{row}");
        }
    }
}
