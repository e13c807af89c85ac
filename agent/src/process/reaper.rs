//! Finds and kills all processes that a program started, even in another process group or session, or after their
//! parent died.
//!
//! Each program is a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER): as long as it lives, all its descendants stay below
//! it, and when it exits, the kernel reparents them to the agent, which is a subreaper too. So a child of the agent
//! that is not the program of a job was left behind by a job that is over, and the agent kills it. With cgroups, the
//! agent kills a job's cgroup first, and the reaper finds the processes that have left it.
//!
//! **Invariants:** no process of another job or of the router gets a signal. The agent signals a process only if its
//! parent is the agent itself, or is stopped, because then the kernel cannot have reused its PID.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process, pidfd_open,
    pidfd_send_signal, set_child_subreaper, waitid, waitpid,
};
use tokio::time::Instant;

use crate::process::cgroup::{Cgroup, Cgroups};
use crate::process::exit_wait::ExitWait;
use crate::system::fs_walk;

/// Rounds in which the agent stops processes before it kills those that it has found. Each round stops one generation
/// of a fork bomb, which runs out of memory before it has as many generations.
const ROUNDS: usize = 64;

/// The programs of this agent, and the orphans that they leave behind.
pub struct ProcessReaper {
    programs: Mutex<Vec<i32>>,
    is_subreaper: bool,
    /// The cgroups of the jobs, if the kernel has cgroups.
    pub cgroups: Option<Cgroups>,
}

/// Registers a program as one of a running job until it is dropped.
pub struct Registration {
    reaper: Arc<ProcessReaper>,
    pid: i32,
}

/// Numbers of the orphans of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Processes that the agent has killed.
    pub ended: u32,
    /// Processes that have not exited yet, although the agent has killed them.
    pub stuck: u32,
}

/// The fields of /proc/PID/stat that the agent uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// PID of the process.
    pub pid: i32,
    /// PID of its parent.
    pub parent: i32,
    /// Number of its process group.
    pub group: i32,
    /// Start time, in the kernel's clock ticks since the boot. Together with the PID, it identifies a process.
    pub started: u64,
    /// It has exited, and its parent has not reaped it yet.
    pub is_zombie: bool,
    /// Resident memory, in pages.
    pub resident: u64,
    /// Threads; at least 1, because a zombie still occupies a PID.
    pub threads: u64,
}

impl ProcessReaper {
    /// Makes this process a subreaper, to which the kernel reparents orphans. Without one (before Linux 3.4), the agent
    /// does not find the processes that leave their process group.
    pub fn become_subreaper(cgroups: Option<Cgroups>) -> Arc<Self> {
        let adopted = set_child_subreaper(Some(getpid()));
        if let Err(error) = &adopted {
            tracing::warn!(%error, "cannot find processes that leave their process group");
        }
        Arc::new(Self { programs: Mutex::default(), is_subreaper: adopted.is_ok(), cgroups })
    }

    /// A reaper that finds no orphans.
    #[cfg(test)]
    pub fn of_none() -> Arc<Self> {
        Arc::new(Self { programs: Mutex::default(), is_subreaper: false, cgroups: None })
    }

    /// True if the agent finds every process that a program starts.
    pub fn finds_everything(&self) -> bool {
        self.is_subreaper
    }

    /// Registers a program, which is a child of this process.
    pub fn register(self: &Arc<Self>, pid: Pid) -> Registration {
        let pid = pid.as_raw_nonzero().get();
        self.programs().push(pid);
        Registration { reaper: self.clone(), pid }
    }

    /// Kills the orphans of all programs that have exited, and all processes in `cgroup`. Does not count those in
    /// `group`, which the caller has killed already and which may still be exiting.
    pub async fn kill_orphans(&self, group: Option<u32>, cgroup: Option<&Cgroup>) -> Orphans {
        let since = Instant::now();
        let group = group.and_then(|group| i32::try_from(group).ok());
        let mut seen = Vec::new();
        if let Some(cgroup) = cgroup {
            // Orphans keep their PIDs until this agent reaps them, so none is counted again below.
            for pid in cgroup.stop() {
                if process(pid).is_some_and(|process| !process.is_zombie && Some(process.group) != group) {
                    note(&mut seen, pid);
                }
            }
            cgroup.kill();
        }
        let mut wait = ExitWait::default();
        loop {
            let stuck = self.kill_orphans_once(group, &mut seen);
            match wait.next_interval(stuck, since.elapsed()) {
                Some(interval) => tokio::time::sleep(interval).await,
                None => return Orphans { ended: seen.len() as u32, stuck },
            }
        }
    }

    /// Kills the orphans of all programs that have exited, and blocks until they are gone: for a process without an
    /// event loop.
    pub fn kill_orphans_blocking(&self) {
        let since = std::time::Instant::now();
        let (mut seen, mut wait) = (Vec::new(), ExitWait::default());
        while let Some(interval) =
            wait.next_interval(self.kill_orphans_once(None, &mut seen), since.elapsed())
        {
            std::thread::sleep(interval);
        }
    }

    /// Kills all orphans, and reaps those that have exited. Returns the number of those that have not.
    fn kill_orphans_once(&self, group: Option<i32>, seen: &mut Vec<i32>) -> u32 {
        if !self.is_subreaper || !has_children() {
            return 0;
        }
        // Stops all before it kills any: a fork bomb replaces processes that are killed one by one.
        let mut stopped = Vec::new();
        for _ in 0..ROUNDS {
            let new = self.stop_orphans(&mut stopped);
            if new == 0 {
                break;
            }
        }
        for (pid, its_group) in &stopped {
            signal(*pid, Signal::KILL);
            if Some(*its_group) != group {
                note(seen, *pid);
            }
        }
        self.reap_orphans() + stopped.len() as u32
    }

    /// Stops the processes whose parent is this process or is stopped already, and adds them to `stopped` with their
    /// groups. Returns the number of those that it added.
    fn stop_orphans(&self, stopped: &mut Vec<(i32, i32)>) -> u32 {
        let ours = getpid().as_raw_nonzero().get();
        let programs = self.programs().clone();
        let is_stopped = |pid: i32| stopped.binary_search_by_key(&pid, |(known, _)| *known).is_ok();
        let new: Vec<(i32, i32)> = processes()
            .filter(|process| !process.is_zombie && !is_stopped(process.pid))
            .filter(|process| {
                process.parent == ours && !programs.contains(&process.pid) || is_stopped(process.parent)
            })
            .map(|process| (process.pid, process.group))
            .collect();
        for (pid, _) in &new {
            signal(*pid, Signal::STOP);
        }
        let count = new.len() as u32;
        for process in new {
            // Keeps the list sorted: a fork bomb has a thousand processes, and each is searched for here, with its
            // parent.
            let index = stopped.partition_point(|(known, _)| *known < process.0);
            stopped.insert(index, process);
        }
        count
    }

    /// Reaps the orphans that have exited, and returns the number of those that have not.
    fn reap_orphans(&self) -> u32 {
        let ours = getpid().as_raw_nonzero().get();
        let programs = self.programs().clone();
        let orphans =
            processes().filter(|process| process.parent == ours && !programs.contains(&process.pid));
        let mut left = 0;
        for orphan in orphans {
            let gone = Pid::from_raw(orphan.pid).map(|pid| waitpid(Some(pid), WaitOptions::NOHANG));
            left += u32::from(matches!(gone, Some(Ok(None))));
        }
        left
    }

    fn programs(&self) -> MutexGuard<'_, Vec<i32>> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.reaper.programs().retain(|pid| *pid != self.pid);
    }
}

/// Makes the calling process a subreaper. A child calls it between fork and exec, where an error has no consequence:
/// the call then fails in the agent as well, and [`ProcessReaper::finds_everything`] is false.
pub fn become_subreaper() {
    let _ = set_child_subreaper(Some(getpid()));
}

/// Resident memory of each of these processes and its descendants, in bytes.
pub fn resident(roots: &[i32]) -> Vec<u64> {
    let page = rustix::param::page_size() as u64;
    sums(roots, |process| process.resident * page)
}

/// Number of threads of each of these processes and its descendants.
pub fn threads(roots: &[i32]) -> Vec<u64> {
    sums(roots, |process| process.threads)
}

/// Sums up `of` over each of these processes and its descendants.
fn sums(roots: &[i32], of: impl Fn(&Process) -> u64) -> Vec<u64> {
    let mut all: Vec<Process> = Vec::new();
    for process in processes() {
        // Usually at the end, because the kernel lists processes by PID. A sort would add 2 kB of code.
        let index = all.partition_point(|known| known.pid < process.pid);
        all.insert(index, process);
    }
    let mut sums = vec![0; roots.len()];
    for process in &all {
        let mut ancestor = process.pid;
        // The tree may change while the agent reads it, and so could contain a cycle.
        for _ in 0..all.len() {
            if let Some(index) = roots.iter().position(|root| *root == ancestor) {
                sums[index] += of(process);
                break;
            }
            match all.binary_search_by_key(&ancestor, |process| process.pid) {
                Ok(index) => ancestor = all[index].parent,
                Err(_) => break,
            }
        }
    }
    sums
}

/// Kills the processes that an earlier agent has left of its jobs, if they have `mark` in their environment. Such
/// processes left their program's process group, do not die with their agent, and have been reparented to another
/// process. Returns how many it killed.
///
/// They are not children of this agent, so the kernel may reuse a PID between the read of the environment and the
/// signal. A pidfd, or else the start time and the parent, identifies each process until then.
pub fn kill_stale(mark: &[u8]) -> u32 {
    let ours = getpid().as_raw_nonzero().get();
    let others = processes().filter(|process| process.pid != ours && !process.is_zombie);
    others.map(|process| u32::from(Held::new(process).is_some_and(|held| held.kill_if_marked(mark)))).sum()
}

/// A process that is not a child of this agent, identified so that no signal reaches another one with its PID.
struct Held {
    process: Process,
    /// None before Linux 5.3.
    descriptor: Option<OwnedFd>,
}

impl Held {
    /// Identifies a process that was found; none if it is gone.
    fn new(found: Process) -> Option<Self> {
        let descriptor = match pidfd_open(Pid::from_raw(found.pid)?, PidfdFlags::empty()) {
            Ok(descriptor) => Some(descriptor),
            Err(Errno::SRCH) => return None,
            Err(_) => None,
        };
        let held = Self { process: found, descriptor };
        // It may have exited before the pidfd was opened.
        held.is_there().then_some(held)
    }

    /// True if the PID still belongs to the process: the start time is equal and, without a pidfd, the parent too.
    fn is_there(&self) -> bool {
        process(self.process.pid).is_some_and(|now| {
            now.started == self.process.started
                && !now.is_zombie
                && (self.descriptor.is_some() || now.parent == self.process.parent)
        })
    }

    /// Kills the process if a variable of its environment begins with `mark`.
    fn kill_if_marked(&self, mark: &[u8]) -> bool {
        // Fails if the process is gone, or is not the agent's to read.
        let Ok(environment) = fs::read(format!("/proc/{}/environ", self.process.pid)) else { return false };
        let is_marked = environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(mark))
            && self.is_there();
        if is_marked {
            match &self.descriptor {
                // Fails if the process has exited, and then there is nothing to do.
                Some(descriptor) => _ = pidfd_send_signal(descriptor, Signal::KILL),
                None => signal(self.process.pid, Signal::KILL),
            }
        }
        is_marked
    }
}

/// Sends a signal to a process whose PID the kernel cannot have reused.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // Fails if the process has exited, and then there is nothing to do.
        let _ = kill_process(pid, signal);
    }
}

/// Adds a PID to the sorted list, unless the list has it already.
fn note(seen: &mut Vec<i32>, pid: i32) {
    if let Err(index) = seen.binary_search(&pid) {
        seen.insert(index, pid);
    }
}

/// True if this process has any child. If not, the agent need not read all of /proc.
fn has_children() -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    !matches!(waitid(WaitId::All, look), Err(Errno::CHILD))
}

/// All processes in /proc (proc(5)), except those that exit meanwhile.
fn processes() -> impl Iterator<Item = Process> {
    let entries = fs_walk::entries(Path::new("/proc"));
    entries.filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?))
}

/// The process with this PID, if there is one.
fn process(pid: i32) -> Option<Process> {
    parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Parses /proc/PID/stat: the PID, a name in parentheses that may contain any byte, and then the fields from the third
/// on.
pub fn parse(pid: i32, stat: &[u8]) -> Option<Process> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    // Field 20 is the number of threads, 22 the start time, and 24 the resident set.
    let threads = fields.nth(14)?.parse::<u64>().ok()?.max(1);
    let started = fields.nth(1)?.parse().ok()?;
    let resident = fields.nth(1)?.parse().ok()?;
    Some(Process { pid, parent, group, started, is_zombie, resident, threads })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn process_name_may_contain_anything() {
        let stat = b"42 (a) R 1 (b)) S 7 42 42 0 -1 4194304 100 0 0 0 1 2 0 0 20 0 9 0 12345 2265088 321 4294967295 0";
        let expected = Process {
            pid: 42,
            parent: 7,
            group: 42,
            started: 12_345,
            is_zombie: false,
            resident: 321,
            threads: 9,
        };
        assert_eq!(parse(42, stat), Some(expected));
        assert_eq!(parse(42, b"42 (x"), None);
    }

    #[test]
    fn own_process_is_read_from_proc() {
        let ours = getpid().as_raw_nonzero().get();
        let found = processes().find(|process| process.pid == ours).unwrap();
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        assert_eq!((found.parent, found.is_zombie), (parent, false));
        assert!(resident(&[ours])[0] > 100_000);
        assert!(threads(&[ours])[0] >= 2, "that of the test, and that of the harness");
    }

    /// Starts a program with a variable in its environment, and waits until the kernel shows that.
    fn start(variable: &str) -> std::process::Child {
        let child = std::process::Command::new("sleep").arg("600").env(variable, "x").spawn().unwrap();
        while fs::read(format!("/proc/{}/environ", child.id())).unwrap().is_empty() {
            std::thread::yield_now();
        }
        child
    }

    #[test]
    fn only_marked_processes_are_killed() {
        use std::os::unix::process::ExitStatusExt;
        let name = format!("HOP_TEST_MARK_{}", getpid().as_raw_nonzero());
        let (mut marked, mut other) = (start(&name), start("HOP_TEST_OTHER"));
        assert_eq!(kill_stale(format!("{name}=").as_bytes()), 1);
        assert_eq!(marked.wait().unwrap().signal(), Some(9));
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn process_with_reused_pid_survives() {
        let name = format!("HOP_TEST_REUSED_{}", getpid().as_raw_nonzero());
        let mark = format!("{name}=");
        let mut child = start(&name);
        let found = process(child.id() as i32).unwrap();
        let former = [Process { started: found.started - 1, ..found }, Process { parent: 1 << 22, ..found }];
        assert!(Held::new(former[0]).is_none());
        for former in former {
            // As on a kernel without descriptors of processes.
            let held = Held { process: former, descriptor: None };
            assert!(!held.kill_if_marked(mark.as_bytes()));
        }
        assert!(child.try_wait().unwrap().is_none());
        let held = Held { process: found, descriptor: None };
        assert!(held.kill_if_marked(mark.as_bytes()));
        assert!(!child.wait().unwrap().success());
    }
}
