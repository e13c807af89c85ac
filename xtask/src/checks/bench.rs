//! `cargo xtask bench`: sets up, builds, and measures what Hop costs a router; docs/benchmarks explains the figures.

use anyhow::{Context, Result};

use crate::build::agents::AGENTS;
use crate::build::{dist, toolchain};
use crate::cli::{BenchArgs, MeasureArgs, Profile};
use crate::command::{self, cargo};
use crate::{packages, paths, virtual_routers};

/// Measures the rows, or shows in which functions the instructions of some are spent.
pub fn run(arguments: &BenchArgs) -> Result<()> {
    toolchain::check_go()?;
    packages::qemu_user()?;
    if arguments.profile.is_none() && arguments.measure.is_fan_out() {
        packages::ssh_server()?;
    }
    dist::build()?;
    virtual_routers::build()?;
    // An optimized build: QEMU calls this plugin a billion times.
    command::run(cargo().args([
        "build",
        "--locked",
        "--quiet",
        "--release",
        "--package",
        "qemu-insn-counter",
    ]))?;
    // The profile of the tests, which saves a second build: the bench counts in the guest, or measures programs in target/dist,
    // and need not be fast itself.
    let mut bench = cargo();
    bench.args([
        "bench",
        "--locked",
        "--quiet",
        "--profile",
        "dev",
        "--package",
        "hop-tests",
        "--bench",
        "figures",
    ]);
    match &arguments.profile {
        Some(Profile::Profile { rows }) => {
            let agent = AGENTS.iter().find(|agent| agent.name == "mips");
            let agent = agent.context("there is no agent for the router that is measured")?;
            let agent = agent.build_with_symbols(&toolchain::Toolchain::set_up()?)?;
            bench.args(["--", "--profile", "--agent"]).arg(agent).args(rows);
        }
        None => {
            bench.arg("--").args(arguments.measure.words());
        }
    }
    command::run(bench.current_dir(paths::root()))
}

impl MeasureArgs {
    /// True if the row that sends one program to many routers is measured, which needs an ssh server on this machine.
    fn is_fan_out(&self) -> bool {
        !self.check && (self.rows.is_empty() || self.rows.iter().any(|row| row == "fan-out"))
    }

    /// The command line of the bench.
    fn words(&self) -> Vec<String> {
        let options = [("--write", self.write), ("--check", self.check), ("--hop-only", self.hop_only)];
        let options = options.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name.to_owned());
        let runs = self.runs.map(|runs| runs.to_string());
        let values = [("--runs", &runs), ("--hop", &self.hop), ("--agent", &self.agent)];
        let values = values.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value.clone()?]));
        options.chain(values.flatten()).chain(self.rows.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(rows: &[&str]) -> MeasureArgs {
        let rows = rows.iter().map(|row| (*row).to_owned()).collect();
        MeasureArgs { write: false, check: false, hop_only: false, runs: None, hop: None, agent: None, rows }
    }

    #[test]
    fn only_fan_out_needs_sshd() {
        assert!(measure(&[]).is_fan_out());
        assert!(measure(&["first", "fan-out"]).is_fan_out());
        assert!(!measure(&["first", "again"]).is_fan_out());
        assert!(!MeasureArgs { check: true, ..measure(&[]) }.is_fan_out());
    }

    #[test]
    fn options_reach_the_bench() {
        let hop = Some("target/hop".to_owned());
        let arguments = MeasureArgs { write: true, runs: Some(1), hop, ..measure(&["first"]) };
        assert_eq!(arguments.words().join(" "), "--write --runs 1 --hop target/hop first");
        assert_eq!(MeasureArgs { check: true, ..measure(&[]) }.words(), ["--check"]);
    }
}
