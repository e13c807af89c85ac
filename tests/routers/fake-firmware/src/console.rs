//! Output on the serial console, and of commands.
//!
//! **Invariants:** nothing here panics, as `println!` does: a panic of PID 1 stops the router.

use std::io::{self, Write};
use std::process::ExitCode;

/// Writes a line to the serial console.
pub fn log(text: &str) {
    let _ = writeln!(io::stdout(), "virtual router: {text}");
}

/// Logs an error, if there is one. The router continues without the value.
pub fn report<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            log(&format!("{what}: {error}"));
            None
        }
    }
}

/// Writes the output of a command. A closed pipe is no error.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes an error message, and returns the exit code of a failed command.
pub fn fail(text: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "{text}");
    ExitCode::FAILURE
}
