//! A cgroup for each job, where the kernel has cgroups of version 2 (admin-guide/cgroup-v2.rst) and can stop them, since Linux
//! 5.2.
//!
//! It comes on top of what [`crate::process::reaper`] does, never instead. It adds what only the kernel can do: a job stands
//! still and is killed at once, however fast it forks; it has no more than its share of the router's threads; and what an agent
//! that was killed left running is found also where it bears no mark.
//!
//! **Invariants:** whatever is wrong with cgroups, jobs run as without; and no cgroup is touched but those of this agent, whose
//! names tell its directory. It has the lock of that, so no other agent that lives has the same.
//!
//! There is no `memory.max`. What a job may have changes with what others give back, and only the guard looks again. A limit
//! that is safe at any time, all memory but what the guard keeps, is more than a job ever gets; and a lower one would kill a
//! program that the guard lets live. It would also need the memory controller, which then counts every page of every service of
//! the router.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::reaper;
use crate::system::fs_walk;

/// Where cgroups of version 2 are: as procd and systemd mount them, and beside those of version 1. A job's is directly
/// below: only the root of the tree may have processes, and controllers for those below it.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// How often it is tried to remove a cgroup, with [`PAUSE`] between: what was killed may take half a second to leave it. The
/// agent waits for that. Longer takes only what the kernel itself waits for.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// Which part of the threads that the kernel can have a job may have. The router needs the others, to log in and to stop
/// the job. The kernel can have as many as fill an eighth of its memory with their stacks: 900 on 64 MB.
const SHARE_OF_THREADS: u32 = 2;

/// How deep a program may nest cgroups of its own in that of its job: each is an open file while they are removed.
const MAX_DEPTH: u32 = 32;

/// The processes of a cgroup, one a line.
const PROCESSES: &str = "cgroup.procs";

/// Where this agent's cgroups are.
pub struct Cgroups {
    mount: &'static str,
    /// What the names of all of them begin with.
    prefix: String,
}

/// The cgroup of one job. What is in it is killed when this is dropped.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroups {
    /// Those of the agent that has locked the directory of which this is the metadata. None if there is no cgroup2, if it
    /// is read-only, or if its cgroups cannot be stopped.
    pub fn find(directory: &Metadata) -> Option<Self> {
        let prefix = format!("hopd-{}-{}-", directory.dev(), directory.ino());
        for mount in MOUNTS {
            let cgroups = Self { mount, prefix: prefix.clone() };
            let probe = Cgroup { path: cgroups.path("probe") };
            // Where that does not work, there is no such file either; and a former agent's does as well.
            let _ = create(&probe.path);
            if probe.path.join("cgroup.freeze").exists() {
                // If there is no such controller, or others have enabled it already, nothing changes. It stays enabled,
                // because others may count on it by now.
                set(mount.as_ref(), "cgroup.subtree_control", b"+pids");
                return Some(cgroups);
            }
        }
        None
    }

    /// Makes the cgroup of a job.
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

    /// Ends what is left in the cgroups of an agent that was killed. Gives how many processes that were.
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
    /// A file by which the process enters that writes "0" to it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open_procs_file(&self) -> io::Result<File> {
        open(&self.path, PROCESSES)
    }

    /// How many of its processes the kernel has killed for want of memory (`memory.events`). None where the memory controller does
    /// not count for it: this agent does not enable it, but others may have.
    pub fn killed_for_memory(&self) -> Option<u64> {
        let events = fs::read_to_string(self.path.join("memory.events")).ok()?;
        events.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
    }

    /// Stops all that is in it, and gives the numbers of its processes. They stay theirs until [`Cgroup::kill`].
    pub fn stop(&self) -> Vec<i32> {
        set(&self.path, "cgroup.freeze", b"1");
        let text = fs::read_to_string(self.path.join(PROCESSES)).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Kills all that is in it.
    pub fn kill(&self) {
        // Since Linux 5.14. Before, each one is: none of those that are stopped can have given its number away.
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

/// Removes a cgroup that has no process, with those that a program made in it, which is root. The files in a cgroup are the
/// kernel's: they go with it, and cannot be removed.
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

/// Writes to a file of a cgroup. False if it is not there, or does not take that, and then there is nothing to be done.
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
    fn only_cgroups_of_this_directory_are_ended() {
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
