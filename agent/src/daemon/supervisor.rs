//! Keeps an agent running on a router that has no supervisor: DD-WRT, and RAM-only enrolment everywhere.
//!
//! **Invariants:** no agent outlives the supervisor that started it: the agent gets TERM when its supervisor dies,
//! however that happens. It stays the supervisor's child until it has been reaped, so no signal of the supervisor
//! reaches another process.
//!
//! The supervisor waits in one blocking call, and has no runtime: while it waits, it must cost a 64 MB router next to
//! nothing.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal, setsid};

use crate::cli::options::Supervision;
use crate::daemon::pid_file::PidFile;
use crate::logging;
use crate::process::reaper::ProcessReaper;

/// The wait before a failed agent is started again. It doubles up to the longest while agents live for less than
/// [`HEALTHY`]: haste does not help if an address is in use or a directory is full.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const HEALTHY: Duration = Duration::from_secs(60);

/// How long an agent may take to stop. It kills its jobs within 3 s, and sends its last responses for 1 s. An agent
/// that takes longer is stuck, and the user who stops it must not have to search for it.
const STOPPING_LIMIT: Duration = Duration::from_secs(10);

/// Runs the agent until it exits successfully or somebody stops the supervisor. Returns the agent's exit code.
pub fn run(supervision: &Supervision) -> ExitCode {
    let Supervision { program, args, log, pid_file } = supervision;
    // Fails if this process leads a process group, as under an interactive shell; then the user controls it.
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
                    // A killed agent could not kill the processes that its programs had started.
                    reaper.kill_orphans_blocking();
                    status.to_string()
                }
            },
            Err(error) => error.to_string(),
        };
        if started.elapsed() >= HEALTHY {
            wait = FIRST_WAIT;
        }
        log.note(&format!("supervisor: the agent exited ({end}); restarting it in {} s", wait.as_secs()));
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
        // Children inherit the signal mask, and TERM could not stop an agent that blocks it.
        signals.unblock();
        set_parent_process_death_signal(Some(Signal::TERM))?;
        // The supervisor may have died before this was set.
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

/// Waits until the agent exits, and passes on the supervisor's signals to it.
fn watch(mut agent: Child, signals: &Signals) -> (ExitStatus, Shutdown) {
    let mut shutdown = Shutdown::NotRequested;
    // The agent is not reaped yet, so the PID is its own; and a signal to a process that has exited has no effect.
    let tell = |agent: &Child, signal| {
        let _ = kill_process(Pid::from_child(agent), signal);
    };
    loop {
        // Before each wait: a child may have exited before its signal was waited for, and the kernel merges signals.
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

/// The agent's exit code; as in a shell, 128 + N if signal N killed it.
fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// The signals that a supervisor handles. It blocks them and takes them one by one (sigwait(3)). A timeout is one of
/// them, SIGALRM, because a call with a timeout differs between the kernels and C libraries of 32-bit routers.
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
                // A shell starts background processes with INT and QUIT ignored, and nohup ignores HUP. An ignored
                // signal never arrives, and programs would inherit that.
                libc::signal(signal, libc::SIG_DFL);
            }
            libc::signal(libc::SIGQUIT, libc::SIG_DFL);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            Self(set)
        }
    }

    fn unblock(&self) {
        // SAFETY: the pointer is to a live set, and the old mask is not requested.
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
