//! A cgroup for each job, if the kernel has cgroups of version 2 (admin-guide/cgroup-v2.rst) and can freeze them, since
//! Linux 5.2.
//!
//! Cgroups supplement [`crate::process::reaper`], and never replace it. They add what only the kernel can do: it
//! freezes and kills all of a job at once, however fast the job forks; it limits the job to its share of the router's
//! threads; and it lets the agent find the processes that a killed agent left running, even those without a mark in
//! their environment.
//!
//! **Invariants:** if cgroups fail in any way, jobs run without them; and an agent touches no cgroups but its own,
//! whose names contain the device and inode of its directory. The agent holds the lock of that directory, so no other
//! running agent has cgroups with these names.
//!
//! There is no `memory.max`. The memory that a job may have changes as others release theirs, and only the guard polls
//! for that. A limit that is safe at any time, all memory but the guard's reserve, is more than a job ever gets; a
//! lower one would kill programs that the guard spares. It would also need the memory controller, which would then
//! count every page of every service of the router.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::reaper;
use crate::system::fs_walk;

/// Mount points of cgroups of version 2: that of procd and systemd, and the one next to cgroups of version 1. A job's
/// cgroup is directly below: only the root of the tree may have both processes and controllers for the cgroups below
/// it.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Attempts to remove a cgroup, [`PAUSE`] apart: killed processes may take half a second to leave it, and the agent
/// waits for that. Only a process in an uninterruptible system call takes longer.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// Fraction of the kernel's threads that a job may have: one in this many. The router needs the others, so that
/// somebody can log in and stop the job. The kernel allows as many threads as fill an eighth of its memory with their
/// stacks: 900 on 64 MB.
const SHARE_OF_THREADS: u32 = 2;

/// Levels of cgroups that a program may create in the one of its job: each level takes an open file while the agent
/// removes them.
const MAX_DEPTH: u32 = 32;

/// The file with the PIDs of a cgroup, one on each line.
const PROCESSES: &str = "cgroup.procs";

/// The cgroups of this agent.
pub struct Cgroups {
    mount: &'static str,
    /// The prefix of all their names.
    prefix: String,
}

/// The cgroup of one job. Dropping it kills all processes in it.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroups {
    /// The cgroups of the agent that has locked the directory with this metadata. None if there is no cgroup2, if it is
    /// read-only, or if the kernel cannot freeze cgroups.
    pub fn find(directory: &Metadata) -> Option<Self> {
        let prefix = format!("hopd-{}-{}-", directory.dev(), directory.ino());
        for mount in MOUNTS {
            let cgroups = Self { mount, prefix: prefix.clone() };
            let probe = Cgroup { path: cgroups.path("probe") };
            // If this fails, the file below does not exist either, unless a former agent has left the cgroup, which
            // will do.
            let _ = create(&probe.path);
            if probe.path.join("cgroup.freeze").exists() {
                // Changes nothing if there is no such controller, or if it is enabled already. The agent never disables
                // it, because others may rely on it by now.
                set(mount.as_ref(), "cgroup.subtree_control", b"+pids");
                return Some(cgroups);
            }
        }
        None
    }

    /// Creates the cgroup of a job.
    pub fn make(&self, job: &str) -> Option<Cgroup> {
        let path = self.path(job);
        create(&path).ok()?;
        let cgroup = Cgroup { path };
        set(&cgroup.path, "cgroup.max.depth", MAX_DEPTH.to_string().as_bytes());
        let threads = fs::read_to_string("/proc/sys/kernel/threads-max").unwrap_or_default();
        if let Ok(threads) = threads.trim().parse::<u32>() {
            set(&cgroup.path, "pids.max", (threads / SHARE_OF_THREADS).to_string().as_bytes());
        }
        Some(cgroup)
    }

    /// Kills the processes in the cgroups that a killed agent has left, and removes these. Returns the number of
    /// processes.
    pub fn kill_stale(&self) -> u32 {
        let mut ended = 0;
        for entry in fs_walk::entries(Path::new(self.mount)) {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(&self.prefix)) {
                let cgroup = Cgroup { path: entry.path() };
                ended += cgroup.stop().len() as u32;
            }
        }
        ended
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.mount).join([self.prefix.as_str(), name].concat())
    }
}

impl Cgroup {
    /// Opens the file through which a process joins the cgroup: it writes "0" to it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open_procs_file(&self) -> io::Result<File> {
        open(&self.path, PROCESSES)
    }

    /// Number of its processes that the kernel's OOM killer has killed (`memory.events`). None if the memory controller
    /// is not enabled: this agent does not enable it, but others may have.
    pub fn killed_for_memory(&self) -> Option<u64> {
        let events = fs::read_to_string(self.path.join("memory.events")).ok()?;
        events.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
    }

    /// Freezes all processes in it, and returns their PIDs. The kernel does not reuse these before [`Cgroup::kill`].
    pub fn stop(&self) -> Vec<i32> {
        set(&self.path, "cgroup.freeze", b"1");
        let text = fs::read_to_string(self.path.join(PROCESSES)).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Kills all processes in it.
    pub fn kill(&self) {
        // Since Linux 5.14. Older kernels need a signal for each process, whose PID is safe to use while it is frozen.
        if !set(&self.path, "cgroup.kill", b"1") {
            for pid in self.stop() {
                reaper::signal(pid, Signal::KILL);
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.kill();
        for _ in 0..TRIES {
            match remove(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => sleep(PAUSE),
                _ => return,
            }
        }
        tracing::warn!("cannot remove the cgroup of a job");
    }
}

fn create(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Removes a cgroup without processes, and the cgroups in it, which a program that is root may have created. The kernel
/// removes the files of a cgroup with it, and refuses to remove them separately.
fn remove(path: &Path) -> io::Result<()> {
    let removed = fs::remove_dir(path);
    if removed.is_ok() {
        return removed;
    }
    for entry in fs::read_dir(path)?.flatten() {
        let _ = remove(&entry.path());
    }
    fs::remove_dir(path)
}

/// Writes to a file of a cgroup. False if the file does not exist or the kernel refuses the value; callers can do
/// nothing then.
fn set(cgroup: &Path, name: &str, value: &[u8]) -> bool {
    open(cgroup, name).and_then(|mut file| file.write_all(value)).is_ok()
}

fn open(cgroup: &Path, name: &str) -> io::Result<File> {
    OpenOptions::new().write(true).open(cgroup.join(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_empty_cgroup_trees_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("job");
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("file"), "").unwrap();
        assert!(remove(&path).is_err());
        assert!(!path.join("a").exists());
        fs::remove_file(path.join("file")).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn memory_events_count_kills() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("job");
        fs::create_dir(&path).unwrap();
        let cgroup = Cgroup { path: path.clone() };
        assert_eq!(cgroup.killed_for_memory(), None);
        fs::write(path.join("memory.events"), "low 0\nhigh 0\nmax 0\noom 3\noom_kill 2\n").unwrap();
        assert_eq!(cgroup.killed_for_memory(), Some(2));
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn only_own_cgroups_are_killed() {
        let dir = tempfile::tempdir().unwrap();
        let [own, other] = ["hopd-1-23-a", "hopd-1-2-a"].map(|name| dir.path().join(name));
        for path in [&own, &other] {
            fs::create_dir(path).unwrap();
        }
        let mount = dir.path().to_str().unwrap().to_owned().leak();
        assert_eq!(Cgroups { mount, prefix: "hopd-1-23-".into() }.kill_stale(), 0);
        assert!(!own.exists() && other.exists());
    }
}
