//! Keeps an agent running on a router that has no supervisor: DD-WRT, and RAM-only enrolment everywhere.
//!
//! **Invariants:** nobody ends up with an agent that nothing watches. The agent gets TERM when its supervisor dies, however
//! that happens, and it is the supervisor's child until it has been waited for, so no signal of ours goes astray.
//!
//! It is one blocking wait and no runtime: a supervisor that waits must cost a 64 MB router next to nothing.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal, setsid};

use crate::cli::options::Supervision;
use crate::daemon::pid_file::PidFile;
use crate::logging;
use crate::process::reaper::ProcessReaper;

/// The wait before an agent that failed is started again. It doubles up to the longest while agents live less than
/// [`HEALTHY`]: an address that is taken or a directory that is full is not cured by haste.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const HEALTHY: Duration = Duration::from_secs(60);

/// How long an agent that was told to stop may take. It ends its jobs in 3 s and says farewell for 1 s; what takes this
/// long is stuck, and the user who stops it must not have to look for it.
const STOPPING_LIMIT: Duration = Duration::from_secs(10);

/// Runs the agent until it ends well or until told to stop, and gives its exit code.
pub fn run(supervision: &Supervision) -> ExitCode {
    let Supervision { program, args, log, pid_file } = supervision;
    // Fails if we lead a group, as under an interactive shell; then the user has the say over us.
    let _ = setsid();
    let signals = Signals::block();
    let _pid_file = match pid_file.as_deref().map(PidFile::write).transpose() {
        Ok(pid_file) => pid_file,
        Err(error) => return logging::fatal(&error),
    };
    let reaper = ProcessReaper::become_subreaper(None);
    let mut wait = FIRST_WAIT;
    loop {
        let started = Instant::now();
        let end = match start(Command::new(program).args(args), &signals) {
            Ok(agent) => match watch(agent, &signals) {
                (status, Shutdown::Requested) => {
                    reaper.kill_orphans_blocking();
                    return code(status);
                }
                (status, Shutdown::NotRequested) if status.success() => return ExitCode::SUCCESS,
                (status, Shutdown::NotRequested) => {
                    // An agent that was killed could not end what its programs had started.
                    reaper.kill_orphans_blocking();
                    status.to_string()
                }
            },
            Err(error) => error.to_string(),
        };
        if started.elapsed() >= HEALTHY {
            wait = FIRST_WAIT;
        }
        log.note(&format!("supervisor: the agent ended ({end}); starting it again in {} s", wait.as_secs()));
        if signals.arrives_within(wait) {
            return ExitCode::SUCCESS;
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

fn start(command: &mut Command, signals: &Signals) -> io::Result<Child> {
    let supervisor = rustix::process::getpid();
    let signals = Signals(signals.0);
    let stop_with_supervisor = move || {
        // A mask is inherited, and an agent that does not hear TERM could not be stopped.
        signals.unblock();
        set_parent_process_death_signal(Some(Signal::TERM))?;
        // The supervisor may have died before that was set.
        if getppid() == Some(supervisor) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: between fork and exec the closure makes three system calls and touches no memory that a lock guards.
    unsafe { command.pre_exec(stop_with_supervisor) };
    command.spawn()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shutdown {
    NotRequested,
    Requested,
}

/// Waits for the agent's end, and hands it the signals that are ours.
fn watch(mut agent: Child, signals: &Signals) -> (ExitStatus, Shutdown) {
    let mut shutdown = Shutdown::NotRequested;
    // Not reaped yet, so the number is the agent's; and a signal to a process that has ended is nothing.
    let tell = |agent: &Child, signal| {
        let _ = kill_process(Pid::from_child(agent), signal);
    };
    loop {
        // Before each wait: a child may have ended before its signal was waited for, and the kernel merges signals.
        if let Ok(Some(status)) = agent.try_wait() {
            return (status, shutdown);
        }
        match signals.next() {
            libc::SIGCHLD => {}
            libc::SIGALRM if shutdown == Shutdown::Requested => tell(&agent, Signal::KILL),
            libc::SIGALRM => {}
            number => {
                shutdown = Shutdown::Requested;
                Signals::alarm_in(STOPPING_LIMIT);
                if let Some(signal) = Signal::from_named_raw(number) {
                    tell(&agent, signal);
                }
            }
        }
    }
}

/// The agent's exit code, in the shell's way if a signal ended it.
fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// The signals that a supervisor lives by. They are blocked and taken one by one (sigwait(3)); time is among them, as
/// SIGALRM, because a call with a timeout is not the same on every kernel and C library of 32 bits.
struct Signals(libc::sigset_t);

impl Signals {
    fn block() -> Self {
        let wanted = [libc::SIGCHLD, libc::SIGALRM, libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
        // SAFETY: the set is initialised by sigemptyset before it is read, and all pointers are to it.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in wanted {
                libc::sigaddset(&raw mut set, signal);
                // A shell starts what it puts into the background with INT and QUIT ignored, nohup ignores HUP: what
                // is ignored never arrives, and programs would inherit it.
                libc::signal(signal, libc::SIG_DFL);
            }
            libc::signal(libc::SIGQUIT, libc::SIG_DFL);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            Self(set)
        }
    }

    fn unblock(&self) {
        // SAFETY: the pointer is to a live set, and the old mask is not asked for.
        unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, &raw const self.0, std::ptr::null_mut()) };
    }

    fn next(&self) -> libc::c_int {
        let mut signal = 0;
        // SAFETY: both pointers are to live values. The one error is an invalid set, which this is not.
        unsafe { libc::sigwait(&raw const self.0, &raw mut signal) };
        signal
    }

    /// True if a signal to stop arrives within `time`, of whole seconds.
    fn arrives_within(&self, time: Duration) -> bool {
        Self::alarm_in(time);
        loop {
            match self.next() {
                libc::SIGALRM => return false,
                libc::SIGCHLD => {}
                _ => return true,
            }
        }
    }

    fn alarm_in(time: Duration) {
        // SAFETY: alarm(2) touches no memory.
        unsafe { libc::alarm(time.as_secs() as libc::c_uint) };
    }
}
