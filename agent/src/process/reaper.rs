//! Everything that a program started, wherever it hides: in another group, in another session, behind a parent that died.
//!
//! The program is made a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER): as long as it lives, all that it started stays below it,
//! and in the moment of its end all of that becomes the agent's, which is a subreaper too. So a child of the agent that is no
//! program of a job was left behind by a job that is over, and is killed. Where there are cgroups, a job's is killed first, and
//! this finds what has left it.
//!
//! **Invariants:** nothing of another job, and no process of the router, gets a signal. A process is only signalled when its
//! parent is this one or is stopped, because then its number cannot have become somebody else's.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process, pidfd_open,
    pidfd_send_signal, set_child_subreaper, waitid, waitpid,
};
use tokio::time::Instant;

use crate::process::cgroup::{Cgroup, Cgroups};
use crate::system::fs_walk;

/// How long what was killed may take to go: hundreds of processes take seconds of such a CPU. Longer takes only what the kernel
/// itself waits for: a dead disk, a driver.
const GOING_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at what is going.
const PAUSE: Duration = Duration::from_millis(10);

/// How many times a fork bomb may be faster than us before what was found by then is killed. Each round stops a
/// generation; a bomb is out of memory before it is out of generations.
const ROUNDS: usize = 64;

/// The programs of this agent, and what they leave behind.
pub struct ProcessReaper {
    programs: Mutex<Vec<i32>>,
    is_subreaper: bool,
    /// What holds them together, where the kernel has that.
    pub cgroups: Option<Cgroups>,
}

/// A program that is known as one, until this is dropped.
pub struct Registration {
    reaper: Arc<ProcessReaper>,
    pid: i32,
}

/// What was left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Processes that were ended.
    pub ended: u32,
    /// Processes that are killed and still not gone.
    pub stuck: u32,
}

/// A process, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// That of its process group.
    pub group: i32,
    /// When it started, in ticks of the kernel since the boot: together with its number, that is one process.
    pub started: u64,
    /// It has ended and waits for its parent to notice.
    pub is_zombie: bool,
    /// Resident memory, in pages.
    pub resident: u64,
    /// Threads; of a zombie as well, whose number is still taken.
    pub threads: u64,
}

impl ProcessReaper {
    /// Makes this process the one to which orphans come. Without it (before Linux 3.4) what leaves its group is lost.
    pub fn become_subreaper(cgroups: Option<Cgroups>) -> Arc<Self> {
        let adopted = set_child_subreaper(Some(getpid()));
        if let Err(error) = &adopted {
            tracing::warn!(%error, "what leaves its process group will not be found");
        }
        Arc::new(Self { programs: Mutex::default(), is_subreaper: adopted.is_ok(), cgroups })
    }

    /// A reaper to which no orphan comes.
    #[cfg(test)]
    pub fn of_none() -> Arc<Self> {
        Arc::new(Self { programs: Mutex::default(), is_subreaper: false, cgroups: None })
    }

    /// True if whatever a program starts is found.
    pub fn finds_everything(&self) -> bool {
        self.is_subreaper
    }

    /// Makes a program known, which is a child of this process.
    pub fn register(self: &Arc<Self>, pid: Pid) -> Registration {
        let pid = pid.as_raw_nonzero().get();
        self.programs().push(pid);
        Registration { reaper: self.clone(), pid }
    }

    /// Ends everything that programs which are over have left behind, and all that is in `cgroup`. What was in `group` had
    /// been ended already, may still be going, and is not counted.
    pub async fn end_orphans(&self, group: Option<u32>, cgroup: Option<&Cgroup>) -> Orphans {
        let since = Instant::now();
        let group = group.and_then(|group| i32::try_from(group).ok());
        let mut seen = Vec::new();
        if let Some(cgroup) = cgroup {
            // Those that this agent is to reap keep their numbers, so none is counted again below.
            for pid in cgroup.stop() {
                if process(pid).is_some_and(|process| !process.is_zombie && Some(process.group) != group) {
                    note(&mut seen, pid);
                }
            }
            cgroup.kill();
        }
        loop {
            let stuck = self.kill_orphans(group, &mut seen);
            if stuck == 0 || since.elapsed() > GOING_LIMIT {
                return Orphans { ended: seen.len() as u32, stuck };
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The same for a process that may wait.
    pub fn kill_orphans_blocking(&self) {
        let since = std::time::Instant::now();
        let mut seen = Vec::new();
        while self.kill_orphans(None, &mut seen) > 0 && since.elapsed() < GOING_LIMIT {
            std::thread::sleep(PAUSE);
        }
    }

    /// Kills what there is, and reaps what has gone. Gives how many are still going.
    fn kill_orphans(&self, group: Option<i32>, seen: &mut Vec<i32>) -> u32 {
        if !self.is_subreaper || !has_children() {
            return 0;
        }
        // All are stopped before any is killed: what is killed one by one is replaced by the others.
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

    /// Stops those whose parent is this process or is stopped already, and adds them with their groups. Gives how many
    /// were not stopped before.
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
            // A fork bomb is a thousand processes, each of which is looked for here, and its parent.
            let index = stopped.partition_point(|(known, _)| *known < process.0);
            stopped.insert(index, process);
        }
        count
    }

    /// Reaps orphans that have ended; gives how many have not, not even after they were killed.
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

/// Makes the calling process a subreaper: for the moment between fork and exec. What cannot be done is told by
/// [`ProcessReaper::finds_everything`].
pub fn become_subreaper() {
    let _ = set_child_subreaper(Some(getpid()));
}

/// Bytes of memory that each of these processes and all below it have resident.
pub fn resident(roots: &[i32]) -> Vec<u64> {
    let page = rustix::param::page_size() as u64;
    sums(roots, |process| process.resident * page)
}

/// How many threads each of these processes and all below it have.
pub fn threads(roots: &[i32]) -> Vec<u64> {
    sums(roots, |process| process.threads)
}

/// What each of these processes and all below it have together of something.
fn sums(roots: &[i32], of: impl Fn(&Process) -> u64) -> Vec<u64> {
    let mut all: Vec<Process> = Vec::new();
    for process in processes() {
        // At the end: the kernel lists them by their numbers. To sort takes 2 kB of code.
        let index = all.partition_point(|known| known.pid < process.pid);
        all.insert(index, process);
    }
    let mut sums = vec![0; roots.len()];
    for process in &all {
        let mut ancestor = process.pid;
        // A tree that changes while it is read could be a circle.
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

/// Kills what an agent that is gone has left of its jobs, as far as it has their mark in its environment: those that do not
/// die with their agent have left their program's group, and nobody adopted them for us. Gives how many.
///
/// They are no children of ours, so each is held by a descriptor, or by when it started and its parent, from before its
/// environment is read until it is killed: its number may be another's by then.
pub fn kill_stale(mark: &[u8]) -> u32 {
    let ours = getpid().as_raw_nonzero().get();
    let others = processes().filter(|process| process.pid != ours && !process.is_zombie);
    others.map(|process| u32::from(Held::new(process).is_some_and(|held| held.kill_if_marked(mark)))).sum()
}

/// A process that is no child of ours and is not mistaken for another one.
struct Held {
    process: Process,
    /// None before Linux 5.3.
    descriptor: Option<OwnedFd>,
}

impl Held {
    /// The process that was found, or none if it is gone.
    fn new(found: Process) -> Option<Self> {
        let descriptor = match pidfd_open(Pid::from_raw(found.pid)?, PidfdFlags::empty()) {
            Ok(descriptor) => Some(descriptor),
            Err(Errno::SRCH) => return None,
            Err(_) => None,
        };
        let held = Self { process: found, descriptor };
        // It may have ended before it was held.
        held.is_there().then_some(held)
    }

    /// True if its number is still its own: it started when this one did and, where that is all there is, has the same parent.
    fn is_there(&self) -> bool {
        process(self.process.pid).is_some_and(|now| {
            now.started == self.process.started
                && !now.is_zombie
                && (self.descriptor.is_some() || now.parent == self.process.parent)
        })
    }

    /// Kills it if a variable of its environment begins so.
    fn kill_if_marked(&self, mark: &[u8]) -> bool {
        // Gone meanwhile, or somebody else's: then not ours to kill.
        let Ok(environment) = fs::read(format!("/proc/{}/environ", self.process.pid)) else { return false };
        let is_marked = environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(mark))
            && self.is_there();
        if is_marked {
            match &self.descriptor {
                // It may have ended, and then there is nothing to do.
                Some(descriptor) => _ = pidfd_send_signal(descriptor, Signal::KILL),
                None => signal(self.process.pid, Signal::KILL),
            }
        }
        is_marked
    }
}

/// Sends a signal to a process that cannot have given its number away.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended, and then there is nothing to do.
        let _ = kill_process(pid, signal);
    }
}

/// Adds what is not there yet.
fn note(seen: &mut Vec<i32>, pid: i32) {
    if let Err(index) = seen.binary_search(&pid) {
        seen.insert(index, pid);
    }
}

/// True if this process has a child at all, in which case it is worth looking at all processes.
fn has_children() -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    !matches!(waitid(WaitId::All, look), Err(Errno::CHILD))
}

/// All processes that there are, as /proc shows them (proc(5)); those that end meanwhile are left out.
fn processes() -> impl Iterator<Item = Process> {
    let entries = fs_walk::entries(Path::new("/proc"));
    entries.filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?))
}

/// One process, if there still is such a one.
fn process(pid: i32) -> Option<Process> {
    parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads /proc/PID/stat: a number, a name in parentheses that may hold anything, and then fields from the third on.
pub fn parse(pid: i32, stat: &[u8]) -> Option<Process> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    // Field 20 says how many threads there are, 22 when it started, and 24 is the resident set.
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
    fn a_process_may_have_any_name() {
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
    fn reused_number_is_not_killed() {
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
