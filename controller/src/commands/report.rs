//! Prints how a job ended, or why a command failed, to standard error, and chooses the exit code.

use std::error::Error as _;

use super::Error;
use super::failure::{self, LET_IT_PROMISE_MORE};
use hop_formats::size::Size;

use crate::config::home::Home;
use crate::console::exit_code::ExitCode;
use crate::console::printable::printable_bytes;
use crate::console::say;
use crate::session::artifacts::{CorePlace, Fetched};
use crate::session::outcome::{Ending, Exhausted, FilesLost, Outcome, Resource};

/// The exit code of `hop`.
pub fn exit_code(outcome: &Outcome) -> ExitCode {
    match &outcome.ending {
        _ if outcome.has_lost_files() => ExitCode::HopFailed,
        Ending::Exited(code) => ExitCode::Program(*code),
        Ending::Signaled { name, .. } => ExitCode::of_signal(name),
        Ending::TimedOut | Ending::Idle => ExitCode::TimedOut,
        // As docker says it, and as it is: KILL ended it.
        Ending::OutOfMemory { .. } | Ending::Exhausted(_) => ExitCode::of_signal("KILL"),
        Ending::AgentStopped | Ending::Abandoned => ExitCode::HopFailed,
        Ending::NotExecuted { .. } => ExitCode::NotExecutable,
        Ending::Detached => ExitCode::Program(0),
    }
}

/// Prints what the user needs to know in addition to the program's own output: nothing if the program exited by itself.
pub fn tell(outcome: &Outcome) {
    match &outcome.ending {
        Ending::Exited(_) | Ending::Signaled { core_dumped: false, .. } | Ending::Detached => {}
        Ending::Signaled { name, .. } => tell_core(outcome, name),
        Ending::TimedOut => say!("hop: program timed out and was killed"),
        Ending::Idle => say!("hop: program wrote no output for too long and was killed"),
        Ending::OutOfMemory { held: 0, .. } => {
            say!("hop: the router ran out of memory, and its kernel killed the program")
        }
        Ending::OutOfMemory { available, limit, held, of_promises } => {
            let which = if *of_promises { " that its kernel promises" } else { "" };
            say!(
                "hop: the router was running out of memory{which}, and the agent killed the program: {} available, limit {}, held by the program {}",
                Size(*available),
                Size(*limit),
                Size(*held)
            );
            if *of_promises {
                say!("hint: {LET_IT_PROMISE_MORE}");
            }
        }
        Ending::Exhausted(Exhausted { resource, available, limit, held, place }) => {
            let what = match resource {
                Resource::Inodes => format!("used up the inodes of {}", place.escape_debug()),
                Resource::Threads => "used up the router's threads".to_owned(),
                Resource::Other => "used up something of the router".to_owned(),
            };
            say!(
                "hop: the program {what} and was killed: {available} left, limit {limit}, held by the program {held}"
            );
        }
        Ending::AgentStopped => say!("error: hopd was stopped on the router and killed the program"),
        Ending::Abandoned => say!("error: job was killed: no client reconnected within --reconnect-timeout"),
        Ending::NotExecuted { why } => say!("error: the router cannot execute the program: {why}"),
    }
    match outcome.orphans {
        0 => {}
        1 => say!("hop: killed a process that the program had left running"),
        many => say!("hop: killed {many} processes that the program had left running"),
    }
    for Fetched { path, problem, .. } in &outcome.files {
        if let Some(problem) = problem {
            let path = if path.is_empty() { b".".as_slice() } else { path };
            say!("hop: {} was not fetched: {problem}", printable_bytes(path));
        }
    }
    match outcome.files_lost {
        Some(why) if outcome.has_lost_files() => say!("error: {}", lost_files(outcome, why)),
        Some(_) => say!("hop: its artifacts are lost with it"),
        None => {}
    }
    if outcome.output_abandoned {
        say!(
            "hop: a process that the program left behind still had its output open; what it writes now is lost"
        );
    }
}

/// It left a core: where is that?
fn tell_core(outcome: &Outcome, signal: &str) {
    let core = outcome.files.iter().find_map(|file| Some((file.file.as_ref()?, file.core?)));
    let Some((core, is_truncated)) = core else {
        return say!("hop: program was killed by SIG{signal}; its core was not fetched");
    };
    let (core, program) = (core.display(), CorePlace::program_place(core));
    say!(
        "hop: program was killed by SIG{signal}; `gdb-multiarch {} {core}` opens its core",
        program.display()
    );
    if is_truncated {
        say!("hop: the core is truncated, because the router has no memory for the rest");
    }
}

pub fn lost_files(outcome: &Outcome, why: FilesLost) -> String {
    let how = match &outcome.ending {
        Ending::Exited(code) => format!("exited with {code}"),
        Ending::Signaled { name, .. } => format!("was killed by SIG{name}"),
        _ => "was killed".to_owned(),
    };
    let why = match why {
        FilesLost::Memory => "the router was running out of memory, and they used most of it",
        FilesLost::Inodes => "the router was running out of inodes, and they used most of them",
        FilesLost::AgentStopped => "hopd was stopped on the router",
        FilesLost::Abandoned => "the agent no longer kept them",
    };
    format!("the program {how}, and some of its artifacts were lost before hop had fetched them: {why}")
}

/// Prints a failure: what, why, what to do; and gives its exit code. `home` is of use to the hint.
pub fn report(error: &Error, home: Option<&Home>) -> ExitCode {
    say!("error: {error}");
    let mut cause = error.source();
    // A source whose text is already in the line above is not worth a line.
    let mut said = error.to_string();
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.contains(&text) {
            say!("caused by: {text}");
            said = text;
        }
        cause = error.source();
    }
    if let Some(hint) = failure::hint(error, home) {
        say!("hint: {hint}");
    }
    failure::exit_code(error)
}

/// Prints a failure and its hint in one line, and gives its exit code.
pub fn report_in_a_line(error: &Error, home: &Home) -> ExitCode {
    match failure::hint(error, Some(home)) {
        Some(hint) => say!("error: {error}; {hint}"),
        None => say!("error: {error}"),
    }
    failure::exit_code(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(ending: Ending) -> Outcome {
        Outcome { ending, ..Outcome::detached("1-1".into()) }
    }

    #[test]
    fn exit_codes_match_the_specification() {
        let killed = |name: &str| Ending::Signaled { name: name.into(), core_dumped: false };
        for (ending, code) in [
            (Ending::Exited(0), 0),
            (Ending::Exited(125), 125),
            (killed("KILL"), 137),
            (killed("USR1"), 138),
            (killed("SIG99"), 128),
            (Ending::TimedOut, 124),
            (Ending::Idle, 124),
            (Ending::OutOfMemory { available: 0, limit: 1, held: 2, of_promises: false }, 137),
            (Ending::NotExecuted { why: String::new() }, 126),
            (Ending::AgentStopped, 125),
            (Ending::Abandoned, 125),
            (Ending::Detached, 0),
        ] {
            assert_eq!(i32::from(exit_code(&outcome(ending.clone()))), code, "{ending:?}");
        }
    }
}
