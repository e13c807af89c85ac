//! The agent's log: one line an event on standard error, where procd and the shell expect it.
//!
//! Time is seconds since the agent started: a router's clock says 1970 until it has seen a network.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use tracing_subscriber::fmt::time::Uptime;

/// Sends events to standard error from now on.
pub fn start() {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_timer(Uptime::default())
        // Otherwise a log that cannot be written (a full /tmp, a closed pipe) is reported there too, which panics.
        .log_internal_errors(false)
        .init();
}

/// Says why the agent cannot go on: the error, then its causes, a line each.
pub fn fatal(error: &dyn Error) -> ExitCode {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("caused by: {error}");
        cause = error.source();
    }
    ExitCode::FAILURE
}
