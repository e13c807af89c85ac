//! Starting processes from PID 1: each in its own session, with an empty environment and no signal blocked.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit};

/// procd's search path.
pub const PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

/// A command for a child of PID 1.
pub fn command(words: &[String], path: &str) -> Command {
    let mut command = Command::new(words.first().map_or("", String::as_str));
    command.args(words.get(1..).unwrap_or_default()).env_clear().env("PATH", path).stdin(Stdio::null());
    prepare(&mut command, Vec::new(), 0);
    command
}

/// Prepares the child between fork and exec.
pub fn prepare(command: &mut Command, limits: Vec<(Resource, Rlimit)>, nice: i32) {
    let before = move || -> io::Result<()> {
        unblock_signals()?;
        let _ = rustix::process::setsid();
        for (resource, limit) in &limits {
            rustix::process::setrlimit(*resource, *limit)?;
        }
        if nice != 0 {
            rustix::process::nice(nice)?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only: it allocates nothing and takes no lock.
    unsafe { command.pre_exec(before) };
}

/// Signals that PID 1 blocks, and reads from a descriptor.
const WATCHED: [libc::c_int; 5] = [libc::SIGCHLD, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2, libc::SIGHUP];

/// A signalfd with the signals for PID 1.
pub fn watch_signals() -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::{FromRawFd, OwnedFd};
    let set = signal_set(&WATCHED);
    // SAFETY: the set is initialised, the old one is not asked for.
    if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the set is initialised.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and this is its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn unblock_signals() -> io::Result<()> {
    let set = signal_set(&[]);
    // SAFETY: the set is initialised, the old one is not asked for.
    let result = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn signal_set(signals: &[libc::c_int]) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the whole set before it is used.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

/// Sends a signal to everything but PID 1 itself.
pub fn signal_all(signal: libc::c_int) {
    // SAFETY: kill takes plain numbers.
    unsafe { libc::kill(-1, signal) };
}

/// Sends a signal to a process, which may have exited.
pub fn signal(pid: u32, signal: libc::c_int) -> bool {
    // SAFETY: kill takes plain numbers; PID 1 reaps its children itself, so the number is not reused.
    pid != 0 && unsafe { libc::kill(pid as libc::pid_t, signal) } == 0
}
