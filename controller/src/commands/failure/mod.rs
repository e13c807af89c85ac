//! Maps each failure to the exit code of `hop`, a reason for machines, and a hint for the user. No other module does.
//!
//! **Invariants:** every match is exhaustive, so a new failure has a reason before it compiles; a reason is stable across
//! versions, and `docs/specification.md` lists it.

mod enrolment;
mod routers;

use std::borrow::Cow;

use hop_proto::v1::ErrorReason;

use self::enrolment::of_enrolment;
use super::Error;
use crate::client;
use crate::config::home::Home;
use crate::console::exit_code::ExitCode;
use crate::{config, golang, program, session, transfer, virtual_router};

/// What to do where vm.overcommit_memory is 2 and too little can be promised. DD-WRT sets it with each mount of a disk, unless
/// a variable of that name says otherwise.
pub const LET_IT_PROMISE_MORE: &str = "on DD-WRT: nvram set vm.overcommit_memory=0; nvram commit; echo 0 \
    >/proc/sys/vm/overcommit_memory (elsewhere: sysctl -w vm.overcommit_memory=0)";

/// A reason, and what to do about it, if there is something.
type Meaning = (&'static str, Option<Cow<'static, str>>);

/// The exit code of `hop`.
pub fn exit_code(error: &Error) -> ExitCode {
    match error {
        Error::Program(program::Error::NotRunnable { .. })
        | Error::Golang(golang::Error::Program(program::Error::NotRunnable { .. })) => {
            ExitCode::NotExecutable
        }
        Error::Interrupted { signal }
        | Error::Session(session::Error::Interrupted { signal })
        | Error::Enrolment(crate::enrolment::Error::Interrupted { signal }) => ExitCode::of_signal(signal),
        _ => ExitCode::HopFailed,
    }
}

/// A word for machines.
pub fn reason(error: &Error) -> &'static str {
    of_command(error).0
}

/// The hint, if there is one; `home` has the inventory that fills it in.
pub fn hint(error: &Error, home: Option<&Home>) -> Option<String> {
    home.and_then(|home| routers::hint(error, home)).or_else(|| of_command(error).1.map(Cow::into_owned))
}

/// The hint for a failure of enrolment, if there is one.
pub fn enrolment_hint(error: &crate::enrolment::Error) -> Option<String> {
    of_enrolment(error).1.map(Cow::into_owned)
}

fn some(hint: &'static str) -> Option<Cow<'static, str>> {
    Some(hint.into())
}

fn of_command(error: &Error) -> Meaning {
    match error {
        Error::Io(_) => ("local_io", None),
        Error::Config(error) => of_config(error),
        Error::Client(error) => of_client(error),
        Error::Transfer(error) => of_transfer(error),
        Error::Program(error) => of_program(error),
        Error::Session(error) => of_session(error),
        Error::Golang(error) => of_golang(error),
        Error::Enrolment(error) => of_enrolment(error),
        Error::VirtualRouter(error) => of_virtual_router(error),
        Error::Usage(_) => ("usage", None),
        Error::Lacks { what: "--core", .. } => {
            ("incompatible", some("an agent of this release supports it, but not under qemu-user"))
        }
        Error::Lacks { router, .. } => {
            let hint = format!("`hop router upgrade {router}` installs this hop's agent there");
            ("incompatible", Some(hint.into()))
        }
        Error::NoSuchJob { .. } | Error::NoJobs { .. } => ("no_such_job", some(LIST_JOBS)),
        Error::AmbiguousJob { .. } | Error::SeveralJobs { .. } => {
            ("no_such_job", some("give its id, or a prefix that is no other job's; `hop ps` lists them"))
        }
        Error::NotYours { .. } => ("not_yours", some(OWN_JOBS)),
        Error::Unfinished { .. } => {
            ("unfinished", some("run it again to finish it; --skip leaves a router out"))
        }
        Error::Interrupted { .. } => ("interrupted", None),
    }
}

const LIST_JOBS: &str = "`hop ps` lists the jobs; the agent keeps a finished one for a limited time";
const OWN_JOBS: &str = "only the controller that started a job can attach to it or kill it";

fn of_config(error: &config::Error) -> Meaning {
    use config::Error;
    match error {
        Error::Io(_) | Error::Malformed { .. } | Error::Identity(_) => ("local_io", None),
        Error::NoHome | Error::InvalidName(_) | Error::NameTaken(_) => ("usage", None),
        Error::UnknownRouter { .. } | Error::NoRouter => (
            "unknown_router",
            some("`hop router add NAME root@HOST` enrols a router, `hop virtual up` starts a virtual one"),
        ),
        Error::StaleDefault(_) => {
            ("unknown_router", some("`hop router use NAME` makes another one the default, --unset none"))
        }
        Error::AmbiguousRouter { .. } => (
            "unknown_router",
            some("select one with -r or HOP_ROUTER; `hop router use NAME` makes it the default"),
        ),
    }
}

fn of_client(error: &client::Error) -> Meaning {
    use client::Error;
    match error {
        Error::Io(_) => ("local_io", None),
        Error::Config(error) => of_config(error),
        Error::Unreachable { router, .. } => {
            let hint = format!(
                "is the router on, is hopd running, is the port right? `hop router check {router}` diagnoses it"
            );
            ("unreachable", Some(hint.into()))
        }
        Error::AgentGone { router, .. } => {
            let hint = format!("if it was rebooted, `hop router add {router}` starts the agent again");
            ("agent_gone", Some(hint.into()))
        }
        Error::NoAnswer { .. } => ("no_answer", some("a longer --connect-timeout may help")),
        Error::WrongKey { router, .. } => {
            let hint = format!(
                "nothing was sent. If the agent was reinstalled, `hop router add {router}` enrols it again; if not, another \
                 machine answers at this address"
            );
            ("wrong_key", Some(hint.into()))
        }
        Error::NotAuthorized { router, own } => {
            let hint = format!("on a controller that it authorizes: hop router authorize {router} {own}");
            ("not_authorized", Some(hint.into()))
        }
        Error::NotAnAgent { .. } => {
            ("not_an_agent", some("is the port right? hopd listens on 4670 unless told otherwise"))
        }
        Error::Incompatible { .. } => ("incompatible", some("use hop and hopd of the same release")),
        Error::Refused { reason, .. } => of_refusal(*reason),
        Error::Lost { .. } => (
            "lost",
            some(
                "the agent kills the program after --reconnect-timeout, unless it was started with --detach; \
                 `hop ps` shows whether it still runs",
            ),
        ),
        Error::Rebooted { .. } => ("router_rebooted", None),
        Error::AgentRestarted { .. } => ("agent_restarted", some("run it again")),
        Error::Protocol { .. } => ("protocol", None),
        Error::InvalidKeepConnection { .. } | Error::OtherPlace { .. } => ("usage", None),
    }
}

/// The failure that the agent reports.
fn of_refusal(reason: ErrorReason) -> Meaning {
    match reason {
        ErrorReason::NoSpace => (
            "no_space",
            some(
                "make the program smaller (-tags may leave parts out; -ldflags '-s -w' is already set), or free space in /tmp",
            ),
        ),
        ErrorReason::NoMemory => {
            ("no_memory", some("stop a service on the router, or make the program smaller"))
        }
        ErrorReason::NoPromise => ("no_promise", some(LET_IT_PROMISE_MORE)),
        ErrorReason::TooManyJobs => ("too_many_jobs", some("wait until one of them has finished")),
        ErrorReason::TooManyConnections => (
            "too_many_connections",
            some("wait until one of them has closed; the agent drops a broken connection within 40 s"),
        ),
        ErrorReason::NoSuchUser => ("no_such_user", None),
        ErrorReason::NoCore => ("no_core", None),
        ErrorReason::NoInodes => {
            ("no_inodes", some("remove files from that file system of the router, or stop what creates them"))
        }
        ErrorReason::OutputLost => ("output_lost", None),
        ErrorReason::NotExecutable => {
            ("noexec", some("start hopd with --dir on a file system without noexec"))
        }
        ErrorReason::DigestMismatch => {
            ("digest_mismatch", some("the file changed during the upload: run it again"))
        }
        ErrorReason::Protocol => ("protocol", None),
        ErrorReason::Io => ("router_io", None),
        ErrorReason::Stopping => ("agent_stopping", None),
        ErrorReason::NotStarted => ("not_started", None),
        ErrorReason::NotAuthorized => ("not_authorized", None),
        ErrorReason::NoSuchJob => ("no_such_job", some(LIST_JOBS)),
        ErrorReason::NotYours => ("not_yours", some(OWN_JOBS)),
        ErrorReason::TakenOver => {
            ("taken_over", some("the program keeps running; another `hop attach` has its streams now"))
        }
        ErrorReason::JobExists => ("job_exists", None),
        ErrorReason::UploadStalled => ("upload_stalled", None),
        ErrorReason::NoRandom => ("no_random", None),
        ErrorReason::Cancelled => ("cancelled", None),
        ErrorReason::Unspecified => ("refused", None),
    }
}

fn of_transfer(error: &transfer::Error) -> Meaning {
    match error {
        transfer::Error::Io(_) => ("local_io", None),
        transfer::Error::PathTooLong(_) => ("usage", None),
    }
}

fn of_program(error: &program::Error) -> Meaning {
    use program::{Error, NotRunnable};
    match error {
        Error::NotRunnable { why, .. } => {
            let hint = match why {
                NotRunnable::HardFloat => some("build it with GOMIPS=softfloat; `hop build` does"),
                NotRunnable::Dynamic(_) => some("build it with CGO_ENABLED=0; `hop build` does"),
                NotRunnable::OtherMachine { .. } => some("`hop build` builds for this router"),
                NotRunnable::Unreadable(_) | NotRunnable::NotAProgram(_) => None,
            };
            ("not_runnable", hint)
        }
        Error::ControlCharacters { .. } => ("usage", None),
        Error::NotPromised { .. } => ("no_promise", some(LET_IT_PROMISE_MORE)),
        Error::NoAgents => ("virtual_router", some("build hop with `cargo xtask build`")),
        Error::Malformed { .. } => ("local_io", None),
    }
}

fn of_session(error: &session::Error) -> Meaning {
    use session::Error;
    match error {
        Error::Io(_) | Error::NoRandom(_) => ("local_io", None),
        Error::Client(error) => of_client(error),
        Error::Config(error) => of_config(error),
        Error::LinkInTheWay { .. } => (
            "local_io",
            some(
                "hop follows no symbolic link below the destination; to write through one, name it yourself: PATH:DIR",
            ),
        ),
        Error::InvalidOutput { .. } | Error::TooManyOutputs { .. } | Error::TooManyArguments { .. } => {
            ("usage", None)
        }
        Error::RebootedAfter { .. } => ("router_rebooted", None),
        Error::AgentRestartedAfter { .. } => ("agent_restarted", None),
        Error::NoPlace { .. } => {
            ("usage", some("the agent still has them: `hop attach --artifact .:DIR` writes them to DIR"))
        }
        Error::Incomplete { .. } => ("incomplete", some("`hop kill` ends it")),
        Error::InputsTooLarge { .. } => ("too_many_files", some(FEWER_FILES)),
        Error::StoppedTooLong { .. } => {
            ("abandoned", some("a longer --reconnect-timeout, or --detach, lets a program outlive its hop"))
        }
        Error::Interrupted { .. } => ("interrupted", None),
    }
}

const FEWER_FILES: &str =
    "hop does not upload what .gitignore lists, nor directories with a go.mod of their own";

fn of_golang(error: &golang::Error) -> Meaning {
    use golang::Error;
    match error {
        Error::Io(_) | Error::Malformed { .. } => ("local_io", None),
        Error::Config(error) => of_config(error),
        Error::Program(error) => of_program(error),
        Error::Transfer(error) => of_transfer(error),
        Error::NoGo(_) => ("no_go", some("install Go (1.25, or 1.26.5 and later) and try again")),
        Error::BrokenGo { .. } => (
            "broken_go",
            some(
                "Go 1.26.0 to 1.26.4 must not be used for MIPS (golang.org/issue/77730, 81603): take 1.26.5 or later, \
                 or 1.25",
            ),
        ),
        Error::OldKernel { .. } => {
            ("old_kernel", some("Go 1.23 runs there: GOTOOLCHAIN=go1.23.12, if go.mod allows it"))
        }
        Error::CannotBuild { .. } | Error::InvalidPattern { .. } => ("usage", None),
        Error::NeedsC { .. } => (
            "not_built",
            some(
                "pass one with --cc 'zig cc -target mips-linux-musleabi' (mipsel- for little endian; zig is in PyPI's ziglang)",
            ),
        ),
        Error::NotBuilt { .. } => ("not_built", None),
        Error::Watch(_) => (
            "local_io",
            some(
                "`sysctl fs.inotify` says how much may be watched; the kernel counts all programs of a user",
            ),
        ),
        Error::SeveralPackages { .. } => ("usage", some("`hop run` runs one program: name its package")),
        Error::NoPackages { .. } => {
            ("usage", some("is it the right directory? `go list ./...` lists packages"))
        }
        Error::NotMain { .. } => ("not_built", some("name a directory with `package main` in it")),
        Error::Probe { file, .. } => {
            let hint =
                format!("try another Go, by GOTOOLCHAIN; hop remembers this result in {}", file.display());
            ("broken_go", Some(hint.into()))
        }
        Error::TooManyFiles { .. } => ("too_many_files", some(FEWER_FILES)),
        Error::NoFuzzing { .. } => (
            "no_memory",
            some("fuzz on this machine or on a larger router; without -fuzz, the corpus runs as tests"),
        ),
    }
}

fn of_virtual_router(error: &virtual_router::Error) -> Meaning {
    use virtual_router::Error;
    match error {
        Error::Io(_) | Error::Malformed { .. } => ("local_io", None),
        Error::Config(error) => of_config(error),
        Error::Program(error) => of_program(error),
        Error::Usage(_) => ("usage", None),
        Error::NoQemu { .. } => ("virtual_router", some("install the package qemu-user-static")),
        Error::NoSandbox { .. } => (
            "virtual_router",
            some(
                "install the package bubblewrap, or run `hop virtual up --no-sandbox` if you trust the programs",
            ),
        ),
        Error::VirtualRouter { .. } | Error::NotBack { .. } | Error::Monitor { .. } => {
            ("virtual_router", None)
        }
        Error::NoProgram { package, .. } => {
            ("virtual_router", Some(format!("install the package {package}").into()))
        }
        Error::NoArtifact { .. } => {
            ("virtual_router", some("run `cargo xtask virtual-routers` in a checkout of Hop"))
        }
        Error::UnknownProfile { own, .. } => {
            ("usage", Some(format!("one of your own is a file NAME.toml in {}", own.display()).into()))
        }
        Error::UnknownMachine { .. } => {
            ("unknown_router", some("`hop virtual up --profile PROFILE` starts one"))
        }
        Error::SeveralRun { .. } => ("unknown_router", some("`hop virtual down --all` stops all of them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_overcommit_has_a_hint() {
        let error = program::Error::NotPromised { router: "desk".into(), needed: 2, available: 1 };
        assert!(hint(&error.into(), None).is_some_and(|hint| hint.contains("vm.overcommit_memory=0")));
    }

    #[test]
    fn exit_codes_name_the_failure() {
        let why = program::NotRunnable::HardFloat;
        let not_runnable = program::Error::NotRunnable { program: "x".into(), router: "desk".into(), why };
        assert_eq!(exit_code(&not_runnable.into()), ExitCode::NotExecutable);
        let interrupted = session::Error::Interrupted { signal: "INT" };
        assert_eq!(i32::from(exit_code(&interrupted.into())), 130);
        let interrupted = crate::enrolment::Error::Interrupted { signal: "TERM" };
        assert_eq!(i32::from(exit_code(&interrupted.into())), 143);
        assert_eq!(exit_code(&Error::Usage("no".into())), ExitCode::HopFailed);
    }
}
