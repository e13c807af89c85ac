//! `hop ps`, `hop attach`, `hop logs` and `hop kill`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hop_proto::signal;

use super::{ArtifactOptions, EnrolledOptions};

/// `hop ps`.
#[derive(Args, Debug)]
pub struct Ps {
    /// Which router.
    #[command(flatten)]
    pub router: EnrolledOptions,
    /// The router, as with -r
    #[arg(value_name = "ROUTER", conflicts_with = "router")]
    pub name: Option<String>,
    /// Print only the ids of this controller's jobs
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `hop attach`.
#[derive(Args, Debug)]
pub struct Attach {
    /// Which router.
    #[command(flatten)]
    pub router: EnrolledOptions,
    /// What to fetch; other artifacts are lost.
    #[command(flatten)]
    pub artifacts: ArtifactOptions,
    /// If the program has a terminal, connect it to this one, as `hop run --tty` does: it gets every key, Ctrl-C included
    #[arg(short, long)]
    pub tty: bool,
    /// Leave the program's standard input alone, which stays open, and hop's own unread
    #[arg(short, long)]
    pub no_stdin: bool,
    /// Do not pass signals on: Ctrl-C ends hop, and the program runs on
    #[arg(long)]
    pub no_signals: bool,
    /// Write the outcome to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    pub status_file: Option<PathBuf>,
    /// The job's id, or a prefix of it (default: this controller's only job)
    pub job: Option<String>,
}

/// `hop logs`.
#[derive(Args, Debug)]
pub struct Logs {
    /// Which router.
    #[command(flatten)]
    pub router: EnrolledOptions,
    /// Go on with what the program writes, until it has exited
    #[arg(short, long)]
    pub follow: bool,
    /// Print only output of the last DURATION, such as 30s or 10m; in a log that covers long, a little more
    #[arg(long, value_name = "DURATION", value_parser = since)]
    pub since: Option<Duration>,
    /// Print only the last N lines of what there is, before following
    #[arg(short = 'n', long, value_name = "N")]
    pub tail: Option<usize>,
    /// The job's id, or a prefix of it (default: this controller's only job)
    pub job: Option<String>,
}

/// `hop kill`.
#[derive(Args, Debug)]
pub struct Kill {
    /// Which router.
    #[command(flatten)]
    pub router: EnrolledOptions,
    /// The signal: a name, with or without SIG, or its number on this machine; -9 and -KILL do as well
    #[arg(short, long, value_name = "SIGNAL", default_value = "TERM", value_parser = signal_name)]
    pub signal: String,
    /// List the signals that a job can get
    #[arg(short, long, exclusive = true)]
    pub list: bool,
    /// Send the signal to all jobs of this controller
    #[arg(long, conflicts_with = "jobs")]
    pub all: bool,
    /// The jobs' ids, or prefixes of them (default: this controller's only job)
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
}

/// Reads a time, of at least a millisecond.
fn since(text: &str) -> Result<Duration, String> {
    let since: Duration = text.parse::<humantime::Duration>().map_err(|error| error.to_string())?.into();
    Ok(since.max(Duration::from_millis(1)))
}

/// Rewrites `hop kill -9` and `-USR1`, as kill(1) has them, to options that clap can read. Options in lower case are ours.
pub fn mark_signals(mut words: Vec<OsString>) -> Vec<OsString> {
    if words.get(1).is_none_or(|command| command != "kill") {
        return words;
    }
    for word in words.iter_mut().skip(2).take_while(|word| *word != "--") {
        let name = word.to_str().and_then(|word| word.strip_prefix('-'));
        let is_signal = |name: &&str| {
            name.starts_with(|first: char| first.is_ascii_digit() || first.is_ascii_uppercase())
        };
        if let Some(name) = name.filter(is_signal) {
            *word = format!("--signal={name}").into();
        }
    }
    words
}

/// Reads a signal as kill(1) does, and gives the name under which it travels.
fn signal_name(text: &str) -> Result<String, String> {
    let name = match text.parse() {
        Ok(number) => signal::name(number),
        Err(_) => {
            let name = text.to_ascii_uppercase();
            name.strip_prefix("SIG").unwrap_or(&name).to_owned()
        }
    };
    match signal::sendable(&name) {
        Some(_) => Ok(name),
        None => Err(format!("it is none of {}", signal::SENDABLE.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn signals_are_named_as_in_kill() {
        for (text, name) in
            [("TERM", "TERM"), ("SIGTERM", "TERM"), ("sigint", "INT"), ("9", "KILL"), ("1", "HUP")]
        {
            assert_eq!(signal_name(text).unwrap(), name, "{text}");
        }
        assert_eq!(signal_name(&signal::number("USR1").unwrap().to_string()).unwrap(), "USR1");
        for text in ["STOP", "19", "0", "-9", "64", "", "SIG", "FOO"] {
            assert!(signal_name(text).unwrap_err().starts_with("it is none of HUP, INT"), "{text}");
        }
    }
}
