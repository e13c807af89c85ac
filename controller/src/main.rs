//! hop: runs Go programs on routers. This file is the story: read the command line, do it, end like the program.

use std::process;

use hop::cli::{self, Parsed};
use hop::commands;

fn main() {
    let code = match cli::parse(std::env::args_os()) {
        Parsed::Command(command) => commands::run(*command),
        Parsed::Answered(answer) => {
            answer.print();
            answer.exit_code()
        }
    };
    // Not by returning: a thread may be waiting for standard input, and nobody waits for that thread.
    process::exit(code.into());
}
