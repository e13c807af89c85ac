//! `cargo xtask demo`: a Go program on two virtual routers, from build to exit code.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build::agents::AGENTS;
use crate::build::{dist, toolchain};
use crate::command::{self, line};
use crate::{packages, paths};

/// Sets up, builds, and shows what Hop does. It uses a home of its own, and stops the routers that it started.
pub fn run() -> Result<()> {
    toolchain::check_go()?;
    packages::qemu_user()?;
    dist::build()?;
    let home = paths::root().join("target/demo");
    let hop = || {
        let mut hop = Command::new(paths::dist().join("hop"));
        hop.current_dir(paths::root()).env("HOP_HOME", &home).env_remove("HOP_ROUTER");
        hop
    };
    let shown = AGENTS.iter().try_for_each(|agent| show(agent.name, &hop));
    command::run(hop().args(["virtual", "down", "--all"]))?;
    shown
}

fn show(arch: &str, hop: &dyn Fn() -> Command) -> Result<()> {
    // Go's name is mipsle, everybody else's mipsel.
    let goarch = if arch == "mipsel" { "mipsle" } else { arch };
    let router = format!("virtual-{goarch}");
    announce_and_run(hop().args(["virtual", "up", "--arch", goarch]))?;
    announce_and_run(hop().args(["run", "-r", &router, "./examples/hello", "a", "b c", ""]))?;
    let mut command = hop();
    command.args(["run", "-r", &router, "./examples/hello", "-exit", "42"]);
    println!("\n$ {}", line(&command));
    let status = command.status().context("cannot run hop")?;
    println!("exit code {}", status.code().unwrap_or(-1));
    ensure!(status.code() == Some(42), "the program exits with 42, and hop with {status}");
    Ok(())
}

fn announce_and_run(command: &mut Command) -> Result<()> {
    println!("\n$ {}", line(command));
    command::run(command)
}
