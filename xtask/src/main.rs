//! What a developer of Hop does: `cargo xtask COMMAND`. `cargo xtask help` lists the commands.

mod agents;
mod bench;
mod cache;
mod command;
mod demo;
mod dist;
#[path = "../../controller/src/elf.rs"]
mod elf;
mod fuzz;
mod packages;
mod paths;
mod reproduce;
#[path = "../../controller/src/segments.rs"]
mod segments;
mod size;
mod symbols;
mod test;
mod toolchain;
mod virtual_routers;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
What a developer of Hop does.

  cargo xtask setup     install what the other commands need, saying what and why first
  cargo xtask build     build target/dist/{hop,hopd-mips,hopd-mipsel,hopd-host}
  cargo xtask demo      set up, build, and run a Go program on a big- and a little-endian virtual router
  cargo xtask test      set up, build, and run the tests, in ten minutes; further words go to `cargo test`
  cargo xtask test --all
                        the same with the tests that take long; `cargo xtask test rest` runs only those
  cargo xtask test SUITE
                        run all tests of a suite: behaviour, enrolment, faults, hostile, soak, third_party, virtual_router;
                        further words are parts of their names
  cargo xtask bench     measure what Hop costs a router, beside raw TCP, ssh, and scp with ssh; further words name rows;
                        `--write` puts it into docs/benchmarks and README.md, `--check` compares what repeats well
  cargo xtask bench profile ROWS
                        show which functions the router's instructions of these rows are spent in
  cargo xtask fuzz      build the fuzz targets and run each for `--seconds N`, or 10; with 0, only on the checked-in
                        corpus; further words name targets
  cargo xtask virtual-routers
                        build kernels and systems of the virtual routers from Debian's sources, into the cache
  cargo xtask size      compare the agents with their size budget, and print what they consist of
  cargo xtask reproduce build an agent once more, in another directory and another home, and compare it to the last byte
  cargo xtask codegen   write proto/src/generated from proto/hop/v1/agent.proto
  cargo xtask docs      write docs/commands.md from the help of hop
  cargo xtask help      print this";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error.chain().skip(1).for_each(|cause| eprintln!("caused by: {cause}"));
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<()> {
    let (command, rest) = words.split_first().map_or(("help", words), |(first, rest)| (first.as_str(), rest));
    match (command, rest) {
        ("test", rest) => match rest.split_first() {
            Some((all, words)) if all == "--all" => test::run(true, words),
            _ => test::run(false, rest),
        },
        ("bench", rest) => bench::run(rest),
        ("fuzz", rest) => fuzz::fuzz(rest),
        ("help" | "--help" | "-h", _) => {
            println!("{HELP}");
            Ok(())
        }
        (command, [extra, ..]) => bail!("`cargo xtask {command}` takes no argument, and got {extra}"),
        ("setup", []) => toolchain::Toolchain::set_up().map(|_| ()).and_then(|()| packages::qemu_user()),
        ("build", []) => dist::build(),
        ("virtual-routers", []) => virtual_routers::build(),
        ("demo", []) => demo::run(),
        ("size", []) => size::check(),
        ("reproduce", []) => reproduce::check(),
        ("codegen", []) => test::write("HOP_CODEGEN", &["-p", "xtask", "--test", "codegen"]),
        ("docs", []) => dist::build().and_then(|()| {
            test::write("HOP_DOCS", &["-p", "hop-tests", "--test", "host", "commands_page_is_the_programs_help"])
        }),
        (unknown, []) => bail!("there is no `cargo xtask {unknown}`; `cargo xtask help` lists what there is"),
    }
}
