//! The processes of a program: started in a group of their own, signalled as a group, killed as a group.
//!
//! **Invariants:** the agent never uses the number of a group after the kernel may have given it to somebody else. A
//! process that has exited keeps its PID until it is reaped, so [`Child`] first waits without reaping (`WNOWAIT`), then
//! kills the rest of the group, then reaps.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hop_proto::signal;
use rustix::fs::{Mode, OFlags};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getppid, getrlimit, kill_process_group,
    set_parent_process_death_signal, setpriority_process, setrlimit, waitid,
};
use tokio::signal::unix::{self, SignalKind};

use crate::process::cgroup::Cgroup;
use crate::process::descriptors;
use crate::process::pty::{Size, Terminal, take_control};
use crate::process::reaper::{self, ProcessReaper, Registration};
use crate::process::user::User;

/// Fraction of the kernel's file descriptors that one process of a program may have: one in this many. The kernel of a
/// 64 MB router has some 6,000 (file-max, proc_sys_fs(5)).
const DESCRIPTORS_FRACTION: u64 = 4;

/// A process may have this many in any case.
const MIN_DESCRIPTORS: u64 = 256;

/// The program to start, and how to start it.
pub struct Start<'a> {
    /// The executable.
    pub program: &'a Path,
    /// Command and arguments in front of it; the first one is executed instead.
    pub launcher: &'a [OsString],
    /// Its arguments, from argv[1] on.
    pub args: &'a [OsString],
    /// The whole environment; the last variable of a name counts.
    pub env: &'a [(OsString, OsString)],
    /// Its working directory.
    pub working_directory: &'a Path,
    /// Its nice value.
    pub nice: u8,
    /// The user as whom it runs, if not as the agent's own.
    pub user: Option<&'a User>,
    /// Its two outputs share one pipe.
    pub merges_outputs: bool,
    /// Size of its terminal, if it has one.
    pub terminal: Option<Size>,
    /// The cgroup that it joins before it executes.
    pub cgroup: Option<&'a Cgroup>,
    /// Maximum size of its core file in bytes.
    pub core: u64,
}

/// A program that has been started.
pub struct Child {
    process: std::process::Child,
    pid: Pid,
    ended: unix::Signal,
    is_reaped: bool,
    /// Registers the program as long as it has its PID.
    _registration: Registration,
}

/// The agent's ends of the program's streams: three pipes, or one terminal.
pub struct Streams {
    /// The agent writes here, and the program reads it.
    pub stdin: OwnedFd,
    /// The program writes here; to a terminal or a single pipe, all of its output.
    pub stdout: OwnedFd,
    /// The program writes its standard error here.
    pub stderr: Option<OwnedFd>,
    /// The terminal, to change its size.
    pub terminal: Option<Terminal>,
}

/// How the program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It called exit with this code, 0 to 255.
    Exited(i32),
    /// A signal killed it.
    Signaled {
        /// Name without SIG.
        name: String,
        /// The kernel wrote a core file.
        core_dumped: bool,
    },
}

impl Ending {
    /// The kernel wrote a core file.
    pub fn has_core(&self) -> bool {
        matches!(self, Self::Signaled { core_dumped: true, .. })
    }
}

/// The resources that the program and the children that it waited for have used (getrusage(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time in user mode.
    pub user: Duration,
    /// Time in the kernel.
    pub system: Duration,
    /// Largest resident set, in bytes.
    pub max_rss: u64,
}

impl Child {
    /// Starts a program in a process group of its own; with a terminal, in a session of its own.
    ///
    /// # Errors
    /// The kernel's error of execve(2) or fork(2).
    pub fn start(start: &Start<'_>, reaper: &Arc<ProcessReaper>) -> io::Result<(Self, Streams)> {
        // Listens first, because a program may exit before spawn returns.
        let ended = unix::signal(SignalKind::child())?;
        let mut words = start.launcher.iter().map(OsString::as_os_str).chain([start.program.as_os_str()]);
        let executable = words.next().unwrap_or(start.program.as_os_str());
        let mut command = Command::new(executable);
        command
            .args(words)
            .args(start.args)
            .env_clear()
            .envs(start.env.iter().map(|(name, value)| (name, value)))
            .current_dir(start.working_directory);
        let mut merged = None;
        let terminal = match start.terminal {
            Some(size) => {
                let (terminal, theirs) = Terminal::open(size)?;
                command.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs);
                let (stdin, stdout) = (terminal.again()?, terminal.again()?);
                Some(Streams { stdin, stdout, stderr: None, terminal: Some(terminal) })
            }
            None => {
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
                if start.merges_outputs {
                    let (ours, theirs) = io::pipe()?;
                    command.stdout(theirs.try_clone()?).stderr(theirs);
                    merged = Some(OwnedFd::from(ours));
                }
                None
            }
        };
        // The kernel sends the signal when the thread that spawned the child dies (prctl(2)); the agent has only one.
        let agent = rustix::process::getpid();
        let (nice, user, core) = (start.nice, start.user.cloned(), Some(start.core));
        let descriptors = descriptors();
        let has_terminal = terminal.is_some();
        let procs_file = start.cgroup.and_then(|cgroup| cgroup.open_procs_file().ok());
        let pre_exec_setup = move || {
            if has_terminal {
                take_control(io::stdin().as_fd())?;
            }
            reaper::become_subreaper();
            raise_oom_score();
            set_nice(nice.into());
            // Nobody would remove a core from /tmp that was not requested.
            setrlimit(Resource::Core, Rlimit { current: core, maximum: core })?;
            // A kernel whose nr_open was lowered since then refuses even the current limit.
            let _ = setrlimit(Resource::Nofile, descriptors);
            if let Some(procs_file) = &procs_file {
                // A program that cannot join its cgroup runs without one.
                let _ = rustix::io::write(procs_file, b"0");
            }
            descriptors::close_all_on_exec();
            // From here on the child has fewer rights.
            if let Some(user) = &user {
                user.drop_privileges()?;
            }
            // The kernel would have forgotten it when the user changed (PR_SET_PDEATHSIG, prctl(2)).
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The agent may have died before this was set.
            if getppid() == Some(agent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        };
        // SAFETY: between fork and exec the closure makes system calls and touches no memory that a lock guards.
        unsafe { command.pre_exec(pre_exec_setup) };
        let mut process = command.spawn()?;
        // Closes the agent's copies of the program's ends: the outputs do not end while they are open.
        drop(command);
        let pid = Pid::from_child(&process);
        let stdout = merged.or(process.stdout.take().map(OwnedFd::from));
        let streams = match (terminal, process.stdin.take(), stdout) {
            (Some(streams), ..) => streams,
            (None, Some(stdin), Some(stdout)) => {
                let stderr = process.stderr.take().map(OwnedFd::from);
                Streams { stdin: stdin.into(), stdout, stderr, terminal: None }
            }
            _ => unreachable!("they were asked for as pipes"),
        };
        let registration = reaper.register(pid);
        Ok((Self { process, pid, ended, is_reaped: false, _registration: registration }, streams))
    }

    /// The PID of the process, which is also the number of its group.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal to every process of the group.
    pub fn signal(&self, signal: Signal) {
        // The only possible error is ESRCH: the group has exited, and the signal has no effect.
        let _ = kill_process_group(self.pid, signal);
    }

    /// Waits until the program has exited. It stays a zombie until [`Child::reap`]. Cancel safe.
    pub async fn ended(&mut self) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        // An error means that there is no such child, and only `reap` can have that effect.
        while let Ok(None) = waitid(WaitId::Pid(self.pid), options) {
            self.ended.recv().await;
        }
    }

    /// Kills the rest of the group and reaps the program, which must have exited.
    ///
    /// # Errors
    /// wait4(2) failed, because the program is not a child of this process.
    pub fn reap(&mut self) -> io::Result<(Ending, Usage)> {
        self.signal(Signal::KILL);
        self.is_reaped = true;
        let (status, usage) = wait4(self.pid)?;
        Ok((ending(ExitStatus::from_raw(status)), usage))
    }
}

/// Kills a program that nobody waits for any more, and its group.
impl Drop for Child {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.signal(Signal::KILL);
            // No process can refuse KILL, so this does not wait long; an error means that there is nothing to wait for.
            let _ = wait4(self.pid);
        }
    }
}

/// The limits on the file descriptors of a program. Go uses as many as it may (`syscall.adjustFileLimit`).
fn descriptors() -> Rlimit {
    let most = std::fs::read_to_string("/proc/sys/fs/file-max").ok();
    let most = most.and_then(|most| most.trim().parse::<u64>().ok()).unwrap_or(u64::MAX);
    let part = (most / DESCRIPTORS_FRACTION).max(MIN_DESCRIPTORS);
    let own = getrlimit(Resource::Nofile);
    let limit = |own: Option<u64>| Some(own.map_or(part, |own| own.min(part)));
    Rlimit { current: limit(own.current), maximum: limit(own.maximum) }
}

/// Makes the kernel's OOM killer choose the program before any process of the router (proc(5), oom_score_adj). A
/// failure does not keep the program from running.
fn raise_oom_score() {
    let path = c"/proc/self/oom_score_adj";
    if let Ok(file) = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::io::write(file, b"500");
    }
}

/// Sets the nice value of the calling process (setpriority(2)). Only root may lower it; for others it stays as it is.
pub fn set_nice(value: i32) {
    let _ = setpriority_process(None, value);
}

fn ending(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exited(code),
        (None, signal) => Ending::Signaled {
            name: signal::name(signal.unwrap_or_default()),
            core_dumped: status.core_dumped(),
        },
    }
}

/// wait4(2), the only call that reports the resources that one child has used.
///
/// This makes the system call instead of calling the C library's function: on MIPS, libc's `wait4` is musl's
/// `__wait4_time32`, which fills in nothing for a child that it found (compat/time32/wait4_time32.c tests for 0). The
/// kernel's rusage has 18 longs on every Linux (include/uapi/linux/resource.h): two times of two, then ru_maxrss in
/// KiB.
fn wait4(pid: Pid) -> io::Result<(i32, Usage)> {
    let mut status: libc::c_int = 0;
    let mut rusage = [0 as libc::c_long; 18];
    loop {
        // SAFETY: both pointers are to live values, of the types and at least the sizes that the kernel writes.
        let result =
            unsafe { libc::syscall(libc::SYS_wait4, pid.as_raw_pid(), &raw mut status, 0, &raw mut rusage) };
        if result >= 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let [user_s, user_us, system_s, system_us, max_rss_kib, ..] =
        rusage.map(i64::from).map(i64::unsigned_abs);
    let usage = Usage {
        user: Duration::from_secs(user_s) + Duration::from_micros(user_us),
        system: Duration::from_secs(system_s) + Duration::from_micros(system_us),
        max_rss: max_rss_kib * 1024,
    };
    Ok((status, usage))
}

/// True if a program did not start because the router has no memory, process or file descriptor left (fork(2),
/// pipe(2)).
pub fn is_scarcity(error: &io::Error) -> bool {
    let scarce = [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE];
    error.raw_os_error().is_some_and(|errno| scarce.contains(&errno))
}

/// The error of execve(2) for a file that is no program.
pub fn not_executable() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOEXEC)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn start(script: &str) -> (Child, Streams) {
        let args = ["-c".into(), script.into()];
        let env = [("PATH".into(), "/usr/bin:/bin".into())];
        let start = Start {
            program: Path::new("/bin/sh"),
            launcher: &[],
            args: &args,
            env: &env,
            working_directory: Path::new("/"),
            nice: 0,
            user: None,
            merges_outputs: false,
            terminal: None,
            cgroup: None,
            core: 0,
        };
        Child::start(&start, &ProcessReaper::of_none()).unwrap()
    }

    #[tokio::test]
    async fn exit_code_and_signal_are_distinct() {
        let killed = Ending::Signaled { name: "KILL".into(), core_dumped: false };
        for (script, expected) in [("exit 137", Ending::Exited(137)), ("kill -KILL $$", killed)] {
            let (mut child, _pipes) = start(script);
            child.ended().await;
            assert_eq!(child.reap().unwrap().0, expected);
        }
    }

    #[tokio::test]
    async fn agent_environment_is_not_inherited() {
        let env = [("A".into(), "1".into()), ("B".into(), "2".into())];
        let start = Start {
            program: Path::new("/usr/bin/env"),
            launcher: &[],
            args: &[],
            env: &env,
            working_directory: Path::new("/"),
            nice: 0,
            user: None,
            merges_outputs: false,
            terminal: None,
            cgroup: None,
            core: 0,
        };
        assert!(std::env::vars_os().count() > 2, "there is something to inherit");
        let (mut child, pipes) = Child::start(&start, &ProcessReaper::of_none()).unwrap();
        child.ended().await;
        let mut said = String::new();
        io::Read::read_to_string(&mut std::fs::File::from(pipes.stdout), &mut said).unwrap();
        assert_eq!(said, "A=1\nB=2\n");
    }

    #[tokio::test]
    async fn program_descriptors_are_limited() {
        let (mut child, pipes) = start("ulimit -Sn; ulimit -Hn");
        child.ended().await;
        let mut said = String::new();
        io::Read::read_to_string(&mut std::fs::File::from(pipes.stdout), &mut said).unwrap();
        let said: Vec<Option<u64>> = said.lines().map(|line| line.parse().ok()).collect();
        let Rlimit { current, maximum } = descriptors();
        assert_eq!(said, [current, maximum]);
        let most: u64 = std::fs::read_to_string("/proc/sys/fs/file-max").unwrap().trim().parse().unwrap();
        assert!(maximum.unwrap() <= (most / DESCRIPTORS_FRACTION).max(MIN_DESCRIPTORS));
        assert!(current <= getrlimit(Resource::Nofile).current);
    }

    #[tokio::test]
    async fn programs_inherit_only_their_streams() {
        let inherited = std::fs::File::open("/dev/null").unwrap();
        rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
        let (mut child, pipes) =
            start("for file in /proc/$$/fd/*; do [ -e $file ] && echo ${file##*/}; done; true");
        child.ended().await;
        let mut said = String::new();
        io::Read::read_to_string(&mut std::fs::File::from(pipes.stdout), &mut said).unwrap();
        let open: Vec<u32> = said.lines().filter_map(|line| line.parse().ok()).collect();
        assert_eq!(open, [0, 1, 2], "{said}");
    }

    #[tokio::test]
    async fn resource_usage_is_reported() {
        let (mut child, _pipes) = start("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done");
        child.ended().await;
        let usage = child.reap().unwrap().1;
        assert!(usage.user + usage.system > Duration::ZERO, "{usage:?}");
        assert!((100 << 10..1 << 30).contains(&usage.max_rss), "{usage:?}");
    }

    #[tokio::test]
    async fn dropped_child_is_killed() {
        let (child, pipes) = start("sleep 1000");
        drop(child);
        let mut rest = String::new();
        io::Read::read_to_string(&mut std::fs::File::from(pipes.stdout), &mut rest).unwrap();
        assert_eq!(rest, "");
    }

    #[tokio::test]
    async fn leftover_processes_are_killed_with_group() {
        let (mut child, pipes) = start("sleep 1000 & exit 3");
        child.ended().await;
        assert_eq!(child.reap().unwrap().0, Ending::Exited(3));
        // The sleep holds the pipe open: its end of file is the proof that the sleep is gone.
        let mut rest = String::new();
        io::Read::read_to_string(&mut std::fs::File::from(pipes.stdout), &mut rest).unwrap();
        assert_eq!(rest, "");
    }
}
