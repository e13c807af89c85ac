//! Words to the serial console and to whoever called a command. Nothing here can panic: `println!` would, and a panic of
//! PID 1 ends the router.

use std::io::{self, Write};
use std::process::ExitCode;

/// Says something to the serial console.
pub fn log(text: &str) {
    let _ = writeln!(io::stdout(), "virtual router: {text}");
}

/// Says what went wrong, if something did: a router goes on without.
pub fn report<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            log(&format!("{what}: {error}"));
            None
        }
    }
}

/// Writes the output of a command. A reader that has gone is no error.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The end of a command that failed.
pub fn fail(text: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "{text}");
    ExitCode::FAILURE
}
