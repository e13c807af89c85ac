//! `cargo xtask COMMAND`: set up, build, test and measure Hop.

mod build;
mod checks;
mod cli;
mod command;
mod packages;
mod packaging;
mod paths;
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
