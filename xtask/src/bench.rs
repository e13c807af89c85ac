//! `cargo xtask bench`: sets up, builds, and measures what Hop costs a router; docs/benchmarks tells how to read it.

use anyhow::{Result, bail};

use crate::agents::AGENTS;
use crate::command::{self, cargo};
use crate::{dist, packages, paths, toolchain, virtual_routers};

/// Measures. `words` are rows and options of the bench itself; `profile` before them shows where instructions go.
pub fn run(words: &[String]) -> Result<()> {
    toolchain::check_go()?;
    packages::qemu_user()?;
    if measures_many(words) {
        packages::ssh_server()?;
    }
    dist::build()?;
    virtual_routers::build()?;
    // QEMU calls it a billion times.
    command::run(cargo().args([
        "build",
        "--locked",
        "--quiet",
        "--release",
        "--package",
        "hop-instructions",
    ]))?;
    // What is measured is counted in the guest, or is a program in target/dist: the bench itself need not be fast, and what
    // the tests are built from serves it as well.
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
    match words.split_first() {
        Some((first, rows)) if first == "profile" => {
            if rows.is_empty() {
                bail!("of which rows? `cargo xtask bench profile first again`");
            }
            let agent = AGENTS.iter().find(|agent| agent.name == "mips");
            let Some(agent) = agent else { bail!("there is no agent for the router that is measured") };
            let agent = agent.build_with_symbols(&toolchain::Toolchain::set_up()?)?;
            bench.args(["--", "--profile", "--agent"]).arg(agent).args(rows);
        }
        _ => {
            bench.arg("--").args(words);
        }
    }
    command::run(bench.current_dir(paths::root()))
}

/// Whether one program goes to many: that needs a server of ssh here, which is not installed for nothing.
fn measures_many(words: &[String]) -> bool {
    let (mut words, mut rows) = (words.iter().map(String::as_str), Vec::new());
    while let Some(word) = words.next() {
        match word {
            "profile" | "--check" => return false,
            "--runs" | "--hop" | "--agent" => _ = words.next(),
            "--write" => {}
            row => rows.push(row),
        }
    }
    rows.is_empty() || rows.contains(&"fan-out")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_measures_one_program_to_many_needs_a_server_of_ssh() {
        let measures =
            |words: &str| measures_many(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        for words in ["", "--write", "--runs 1 --hop target/hop", "first fan-out"] {
            assert!(measures(words), "{words}");
        }
        for words in ["--check", "profile first", "first again", "--runs 1 first"] {
            assert!(!measures(words), "{words}");
        }
    }
}
