//! hopd: the agent of Hop. Reads the options, does the one thing that they request, and reports how that ended.

use std::env;
use std::process::ExitCode;

use hopd::cli::options::{self, Command};
use hopd::cli::{print, self_test};
use hopd::daemon::{serve, supervisor};
use hopd::logging;

fn main() -> ExitCode {
    logging::report_panics();
    let command = match options::parse(env::args_os()) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("error: {error}\nhint: hopd --help");
            return ExitCode::from(2);
        }
    };
    match command {
        Command::Print(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Command::SelfTest { directory } => self_test::run(&directory),
        Command::Fingerprint { key } => print::fingerprint(&key),
        Command::InterfaceTo(address) => print::interface_to(&address),
        Command::Digest => print::digest(),
        Command::OptionsAreGood => ExitCode::SUCCESS,
        Command::Supervise(supervision) => supervisor::run(&supervision),
        Command::Serve(options) => {
            logging::start(options.log.clone());
            match serve::run(options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => logging::fatal(&error),
            }
        }
    }
}
