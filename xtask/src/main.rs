//! `cargo xtask COMMAND`: set up, build, test and measure Hop.

mod build;
mod checks;
mod cli;
mod command;
#[path = "../../controller/src/program/elf.rs"]
mod elf;
mod packages;
mod paths;
#[path = "../../controller/src/program/segments.rs"]
mod segments;
mod virtual_routers;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error.chain().skip(1).for_each(|cause| eprintln!("caused by: {cause}"));
            ExitCode::FAILURE
        }
    }
}
