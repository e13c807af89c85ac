//! `cargo xtask COMMAND`: set up, build, test and measure Hop.

mod agents;
mod bench;
mod cache;
mod cli;
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
