//! `cargo xtask test`: sets up, builds, and runs every test.

use anyhow::Result;

use crate::command::{self, cargo};
use crate::{dist, packages, toolchain, virtual_routers};

/// Runs all tests; `filter` goes to `cargo test`.
pub fn run(filter: &[String]) -> Result<()> {
    toolchain::check_go()?;
    packages::qemu_user()?;
    dist::build()?;
    virtual_routers::build()?;
    command::run(cargo().args(["test", "--locked", "--workspace", "--all-features"]).args(filter))
}

/// Runs the test that compares a generated file, and lets it write the file first.
pub fn write(variable: &str, filter: &[&str]) -> Result<()> {
    command::run(cargo().args(["test", "--quiet"]).args(filter).env(variable, "write"))
}
