//! The program's processes: started in a group of their own, signalled as a group, ended as a group.
//!
//! **Invariants:** the group's number is never used after the kernel may have given it to somebody else. A process that has
//! ended keeps its number until it is reaped, so [`Child`] first looks (`WNOWAIT`), then kills what is left of the group, then
//! reaps.

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

/// The part of the descriptors that the kernel can have which one process of a program may have: one of this many. A router
/// of 64 MB can have some 6,000 (file-max, proc_sys_fs(5)).
const DESCRIPTORS_FRACTION: u64 = 4;

/// A program may have as many in any case.
const MIN_DESCRIPTORS: u64 = 256;

/// What to start.
pub struct Start<'a> {
    /// The executable.
    pub program: &'a Path,
    /// Words in front of it; the first one is executed instead.
    pub launcher: &'a [OsString],
    /// argv[1] and on.
    pub args: &'a [OsString],
    /// The whole environment; the last one of a name counts.
    pub env: &'a [(OsString, OsString)],
    /// Where the program starts.
    pub working_directory: &'a Path,
    /// Its nice value.
    pub nice: u8,
    /// Whom it runs as, if not as the agent does.
    pub user: Option<&'a User>,
    /// Its two outputs are one pipe.
    pub merges_outputs: bool,
    /// How large its terminal is, if it has one.
    pub terminal: Option<Size>,
    /// What it enters before it executes.
    pub cgroup: Option<&'a Cgroup>,
    /// Bytes that its core file may have.
    pub core: u64,
}

/// A program that was started.
pub struct Child {
    process: std::process::Child,
    pid: Pid,
    ended: unix::Signal,
    is_reaped: bool,
    /// A program as long as it has its number.
    _registration: Registration,
}

/// Our ends of the program's streams: three pipes, or one terminal.
pub struct Streams {
    /// What we write the program reads.
    pub stdin: OwnedFd,
    /// What the program writes; to a terminal or a single pipe, all of it.
    pub stdout: OwnedFd,
    /// What the program writes to standard error.
    pub stderr: Option<OwnedFd>,
    /// The terminal, to give it another size.
    pub terminal: Option<Terminal>,
}

/// How the program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It called exit with this code, 0 to 255.
    Exited(i32),
    /// A signal ended it.
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

/// What the program and the children that it waited for used (getrusage(2)).
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
    /// What the kernel said to execve(2) or fork(2).
    pub fn start(start: &Start<'_>, reaper: &Arc<ProcessReaper>) -> io::Result<(Self, Streams)> {
        // Listen first: a program may end before spawn returns.
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
        // The signal comes when the thread dies that spawned (prctl(2)); the agent has one.
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
            // Nobody takes away what a program leaves in /tmp that was not asked for a core.
            setrlimit(Resource::Core, Rlimit { current: core, maximum: core })?;
            // A kernel whose nr_open was lowered since refuses even what is there.
            let _ = setrlimit(Resource::Nofile, descriptors);
            if let Some(procs_file) = &procs_file {
                // One that is not let in runs as without.
                let _ = rustix::io::write(procs_file, b"0");
            }
            descriptors::close_all_on_exec();
            // From here on it may do less.
            if let Some(user) = &user {
                user.drop_privileges()?;
            }
            // Another user would have made the kernel forget it (PR_SET_PDEATHSIG, prctl(2)).
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The agent may have died before that was set.
            if getppid() == Some(agent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        };
        // SAFETY: between fork and exec the closure makes system calls and touches no memory that a lock guards.
        unsafe { command.pre_exec(pre_exec_setup) };
        let mut process = command.spawn()?;
        // Our own copies of the program's ends: as long as they are open, its outputs do not end.
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

    /// The number of the process, which is also the number of its group.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal to every process of the group.
    pub fn signal(&self, signal: Signal) {
        // The one error that can be, ESRCH, is what the sender of a signal to an ended group expects: nothing.
        let _ = kill_process_group(self.pid, signal);
    }

    /// Waits until the program has ended. It stays a zombie until [`Child::reap`]. Cancel safe.
    pub async fn ended(&mut self) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        // An error means that there is no such child, which nothing but `reap` can bring about.
        while let Ok(None) = waitid(WaitId::Pid(self.pid), options) {
            self.ended.recv().await;
        }
    }

    /// Kills what is left of the group and reaps the program, which must have ended.
    ///
    /// # Errors
    /// wait4(2) failed; then the program was not ours.
    pub fn reap(&mut self) -> io::Result<(Ending, Usage)> {
        self.signal(Signal::KILL);
        self.is_reaped = true;
        let (status, usage) = wait4(self.pid)?;
        Ok((ending(ExitStatus::from_raw(status)), usage))
    }
}

/// A program that nobody waits for any more is killed with its group.
impl Drop for Child {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.signal(Signal::KILL);
            // KILL is not refused, so this does not wait long; and an error means that there is nothing to wait for.
            let _ = wait4(self.pid);
        }
    }
}

/// How many descriptors a program may have. Go takes all that it may (`syscall.adjustFileLimit`).
fn descriptors() -> Rlimit {
    let most = std::fs::read_to_string("/proc/sys/fs/file-max").ok();
    let most = most.and_then(|most| most.trim().parse::<u64>().ok()).unwrap_or(u64::MAX);
    let part = (most / DESCRIPTORS_FRACTION).max(MIN_DESCRIPTORS);
    let own = getrlimit(Resource::Nofile);
    let limit = |own: Option<u64>| Some(own.map_or(part, |own| own.min(part)));
    Rlimit { current: limit(own.current), maximum: limit(own.maximum) }
}

/// When the kernel itself must kill because memory ran out, a program goes before anything of the router (proc(5),
/// oom_score_adj). That it cannot be said keeps nobody from running.
fn raise_oom_score() {
    let path = c"/proc/self/oom_score_adj";
    if let Ok(file) = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::io::write(file, b"500");
    }
}

/// Sets the nice value of the calling process (setpriority(2)). A lower one than before is for root alone; others keep theirs.
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

/// wait4(2), which alone tells what one child used.
///
/// The system call and not the C library's function: on MIPS libc's `wait4` is musl's `__wait4_time32`, which fills in
/// nothing for a child that it found (compat/time32/wait4_time32.c tests for 0). The kernel's rusage is 18 longs on
/// every Linux (include/uapi/linux/resource.h): two times of two, then ru_maxrss in KiB.
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

/// True if a program did not start because the router has no memory, process or file descriptor left (fork(2), pipe(2)).
pub fn is_scarcity(error: &io::Error) -> bool {
    let scarce = [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE];
    error.raw_os_error().is_some_and(|errno| scarce.contains(&errno))
}

/// What execve(2) says of a file that is no program.
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
