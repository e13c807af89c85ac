//! What is on a router: its files, its processes, its memory, its log.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use super::VirtualRouter;
use super::workspace::Workspace;
use crate::machine::shell::word;
use crate::process::{pid, wait, wait_until};
use crate::{Footprint, Process, Shell};

/// Where cgroups of version 2 are: as procd mounts them, and beside those of version 1.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

impl VirtualRouter {
    /// A new file in this test's own directory, on the router.
    pub fn path_there(&self, name: &str) -> PathBuf {
        match &self.workspace {
            Workspace::Here => self.path(name),
            Workspace::There { directory, .. } => directory.join(name),
        }
    }

    /// True if there is such a file on the router.
    pub fn has(&self, path: &Path) -> bool {
        match &self.workspace {
            Workspace::Here => path.exists(),
            Workspace::There { machine, .. } => machine.shell().holds(&format!("[ -e {} ]", word(path))),
        }
    }

    /// How many processes of this name there are below the agent's directory.
    pub fn processes(&self, name: &str) -> usize {
        let ram = self.ram();
        let is_ours = |path: &str| path.starts_with(word(&ram)) && path.ends_with(name);
        match &self.workspace {
            Workspace::Here => fs::read_dir("/proc")
                .unwrap()
                .filter_map(|entry| fs::read_link(entry.ok()?.path().join("exe")).ok())
                .filter(|exe| is_ours(exe.to_string_lossy().trim_end_matches(" (deleted)")))
                .count(),
            Workspace::There { machine, .. } => {
                let shell = machine.shell();
                let links = shell.sh("ls -l /proc/[0-9]*/exe 2>/dev/null; true");
                let exes = links.lines().filter_map(|line| line.split(" -> ").nth(1));
                exes.filter(|exe| is_ours(exe.trim_end_matches(" (deleted)"))).count()
            }
        }
    }

    /// Replaces the list of who may connect.
    pub fn write_authorized(&self, content: &str) {
        self.put(&self.path_there("authorized"), content.as_bytes());
    }

    /// Writes a file on the router.
    pub fn put(&self, path: &Path, content: &[u8]) {
        match &self.workspace {
            Workspace::Here => fs::write(path, content).unwrap(),
            Workspace::There { machine, .. } => machine.shell().put(path, content),
        }
    }

    /// Removes a file on the router.
    pub fn remove(&self, path: &Path) {
        match &self.workspace {
            Workspace::Here => fs::remove_file(path).unwrap(),
            Workspace::There { machine, .. } => _ = machine.shell().sh(&format!("rm {}", word(path))),
        }
    }

    /// What the agent has of jobs, seen through its own eyes: files in its directory, but for blobs that it keeps and says so;
    /// and cgroups.
    pub fn leftovers(&self) -> Vec<String> {
        let blobs = self.blobs();
        let bytes: u64 = blobs.iter().map(|(_, bytes)| bytes).sum();
        let mut left: Vec<_> = match self.info()["store_kept"].as_u64() {
            Some(kept) if kept == bytes => Vec::new(),
            _ => blobs.into_iter().map(|(name, _)| name).collect(),
        };
        let ram = self.ram();
        match &self.workspace {
            Workspace::Here => {
                let seen = format!("/proc/{}/root{}", self.agent.id(), ram.display());
                let names = |path| fs::read_dir(path).into_iter().flatten().map(name_of);
                left.extend(names(Path::new(&seen).join("j")));
                let directory = fs::metadata(&seen).unwrap();
                let (device, inode) = (directory.dev(), directory.ino());
                let prefix = format!("hopd-{device}-{inode}-");
                let cgroups = CGROUPS.into_iter().flat_map(|mount| names(mount.into()));
                left.extend(cgroups.filter(|name| name.starts_with(&prefix)));
            }
            Workspace::There { machine, .. } => {
                let shell = machine.shell();
                // On tmpfs, an inode is enough: a machine has one agent at a time.
                let names = shell.sh(&format!(
                    "cd {} && ls -A j && set $(ls -di .) && cd {}
                    ls -d hopd-*-$1-* 2>/dev/null; true",
                    word(&ram),
                    CGROUPS[0]
                ));
                left.extend(names.lines().map(str::to_owned));
            }
        }
        left
    }

    /// The agent's directory on this machine, as others than the agent see it, which may have mounted something there.
    pub fn ram_seen(&self) -> PathBuf {
        match &self.workspace {
            Workspace::Here => format!("/proc/{}/root{}", self.agent.id(), self.ram().display()).into(),
            Workspace::There { .. } => panic!("it is not on this machine"),
        }
    }

    /// The agent's blobs with their sizes in bytes, those that are on their way included.
    pub fn blobs(&self) -> Vec<(String, u64)> {
        let ram = self.ram();
        match &self.workspace {
            Workspace::Here => {
                let seen = format!("/proc/{}/root{}/blobs", self.agent.id(), ram.display());
                let files = fs::read_dir(seen).into_iter().flatten().flatten();
                files
                    .map(|file| {
                        let bytes = file.metadata().unwrap().len();
                        (name_of(Ok(file)), bytes)
                    })
                    .collect()
            }
            Workspace::There { machine, .. } => {
                let shell = machine.shell();
                let listed = shell.sh(&format!("ls -lA {}", word(&ram.join("blobs"))));
                let columns = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
                let files = columns.filter(|columns| columns.len() >= 9);
                files.map(|file| (file[8].to_owned(), file[4].parse().unwrap())).collect()
            }
        }
    }

    /// The agent serves on: nothing is left, and the next program runs.
    pub fn assert_serves_on(&self) {
        let nothing: [&str; 0] = [];
        assert_eq!(self.leftovers(), nothing, "nothing is left of a job");
        let ran = self.exec("both-outputs").run();
        assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("out\n", "err\n", 7), "the next program runs");
        assert_eq!(self.leftovers(), nothing, "nothing is left of the next job");
    }

    /// What the agent holds now.
    pub fn footprint(&self) -> Footprint {
        match &self.workspace {
            Workspace::Here => {
                let sh = |script: &str| {
                    let ran = Command::new("sh").args(["-c", script]).output().unwrap();
                    String::from_utf8(ran.stdout).unwrap()
                };
                Footprint::of(sh, &self.agent.id().to_string())
            }
            Workspace::There { machine, pid, .. } => Footprint::of(|script| machine.shell().sh(script), pid),
        }
    }

    /// Asks the agent until it has no job.
    pub fn wait_until_idle(&self) {
        wait_until("the job ends", || self.info()["jobs"] == 0);
    }

    /// Asks the agent until it keeps nothing of a job, not even how it ended.
    pub fn wait_until_forgotten(&self) {
        wait_until("the job is forgotten", || {
            let ran = self.hop().args(["ps", "-r", "router", "--json"]).run();
            assert_eq!(ran.code, 0, "{}", ran.stderr());
            serde_json::from_slice::<Value>(&ran.stdout).unwrap() == Value::Array(Vec::new())
        });
    }

    /// A login to a whole virtual router.
    pub fn shell(&self) -> &Shell {
        match &self.workspace {
            Workspace::Here => panic!("there is no login to this machine"),
            Workspace::There { machine, .. } => machine.shell(),
        }
    }

    /// What `hop info --json` says.
    pub fn info(&self) -> Value {
        let ran = self.hop().args(["info", "-r", "router", "--json"]).run();
        assert_eq!(ran.code, 0, "{}", ran.stderr());
        serde_json::from_slice(&ran.stdout).unwrap()
    }

    /// Sends a signal to the agent.
    pub fn signal_agent(&self, signal: Signal) {
        match &self.workspace {
            Workspace::Here => kill_process(pid(self.agent.id()), signal).unwrap(),
            // TERM and KILL have the same numbers everywhere.
            Workspace::There { machine, pid, .. } => {
                machine.shell().sh(&format!("kill -{} {pid}", signal.as_raw()));
            }
        }
    }

    /// A program of the agent, which must be alive.
    pub fn watch(&self, number: &str) -> Watched<'_> {
        match &self.workspace {
            Workspace::Here => Watched::Here(Process::open(number.parse().unwrap())),
            Workspace::There { machine, .. } => {
                machine.shell().sh(&format!("[ -d /proc/{number} ]"));
                Watched::There(machine.shell(), number.to_owned())
            }
        }
    }

    /// Waits for the agent's own end and gives its exit code and its log.
    pub fn wait_for_agent(&mut self) -> (Option<i32>, String) {
        let status = wait(&mut self.agent);
        (status.code(), self.log())
    }

    /// What the agent has logged.
    pub fn log(&self) -> String {
        let path = self.path_there("log");
        match &self.workspace {
            Workspace::Here => fs::read_to_string(path).unwrap_or_default(),
            Workspace::There { machine, .. } => {
                machine.shell().run(&format!("cat {}", word(&path))).stdout().to_owned()
            }
        }
    }

    /// The directory that the agent was given as its own.
    pub fn ram(&self) -> PathBuf {
        self.path_there("ram")
    }
}

/// A program on a router, which is waited for.
pub enum Watched<'a> {
    /// On this machine.
    Here(Process),
    /// On a virtual router, by its number.
    There(&'a Shell, String),
}

impl Watched<'_> {
    /// Waits for its end.
    pub fn wait_until_gone(&self) {
        match self {
            Self::Here(process) => process.wait_until_gone(),
            Self::There(shell, number) => {
                wait_until("the process ends", || !shell.holds(&format!("[ -d /proc/{number} ]")));
            }
        }
    }
}

pub(super) fn name_of(entry: std::io::Result<fs::DirEntry>) -> String {
    entry.unwrap().file_name().into_string().unwrap()
}
