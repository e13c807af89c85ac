//! A whole virtual router for tests: booted without an agent.
//!
//! **Invariants:** it ends with the process that booted it, however that ends; and it is in a home of its own, so that
//! no other `hop` knows of it.

pub(crate) mod pool;
pub(crate) mod shell;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use hop::config::home::Home;
use hop::virtual_router::machine;
use hop::virtual_router::monitor::Monitor;
use hop::virtual_router::profile::Profile;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::Hop;
use crate::fixture::{dist, root};
use crate::process::{wait, wait_until};

pub use shell::Shell;

/// The address of every virtual router in its own network.
const ADDRESS: &str = "192.168.1.1";

/// A virtual router that a test has booted.
pub struct Machine {
    directory: PathBuf,
    machine: machine::Machine,
    /// Ends the machine when its standard input ends.
    watcher: Child,
    logins: AtomicU32,
}

impl Machine {
    /// Boots one.
    pub fn boot(profile: &str) -> Self {
        Self::boot_by(profile, |_| {}, |hop| hop)
    }

    /// Boots one whose disk was in before, so that it need not be waited for: what its mount changes is so from the start.
    fn boot_with_disk(profile: &str) -> Self {
        let path = root().join(format!("controller/profiles/{profile}.toml"));
        let profile_text = fs::read_to_string(path).unwrap();
        let at_once = |line: &str| if line.starts_with("delay = ") { "delay = 0\n" } else { line }.to_owned();
        let own_profile: String = profile_text.split_inclusive('\n').map(at_once).collect();
        let write = |home: &Home| {
            fs::create_dir_all(home.profiles()).unwrap();
            fs::write(home.profiles().join(format!("{profile}.toml")), own_profile).unwrap();
        };
        let machine = Self::boot_by(profile, write, |hop| hop);
        machine.wait_for_disk();
        machine
    }

    /// Waits until its disk is mounted, if it has one.
    pub fn wait_for_disk(&self) {
        let profile = Profile::load(&self.home(), self.machine.profile()).unwrap();
        if let Some(disk) = profile.disk {
            let shell = self.log_in();
            // The directory above it may be a link: RutOS has /mnt below /usr/local.
            let (_, name) = disk.path.rsplit_once('/').unwrap();
            let mounted = format!("grep -q '/{name} ' /proc/mounts");
            wait_until("its disk is mounted", || shell.holds(&mounted));
        }
    }

    /// Boots one whose clock counts instructions. `qemu` is a directory in which its QEMU is looked for first.
    pub fn boot_counted(profile: &str, qemu: &Path) -> Self {
        Self::boot_by(profile, |_| {}, |hop| hop.arg("--counted-clock").first_in_path(qemu))
    }

    fn boot_by(profile: &str, prepare: impl FnOnce(&Home), more: impl Fn(Hop) -> Hop) -> Self {
        // The watcher removes it, because a static is never dropped.
        let directory = TempDir::new().unwrap().keep();
        let home = directory.join("home");
        prepare(&Home::at(&home));
        let watcher = Command::new("sh")
            .args(["-c", r#"cat; "$0" virtual down; rm -rf "$1""#])
            .args([&dist("hop"), &directory])
            .env("HOP_HOME", &home)
            // A Ctrl-C that is meant for the tests must not reach who cleans up after them.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let up = || more(Hop::at(&home).args(["virtual", "up", "--bare", "--profile", profile])).run();
        let mut ran = up();
        // It was killed, because on a busy machine a counted clock boots longer than anything may take. The router boots on.
        if ran.code == -Signal::KILL.as_raw() {
            ran = up();
        }
        assert_eq!(ran.code, 0, "{profile} boots: {}", ran.stderr());
        let machine = machine::Machine::get(&Home::at(&home), profile).unwrap();
        Self { directory, machine, watcher, logins: AtomicU32::new(0) }
    }

    /// What can be done to it.
    pub fn machine(&self) -> &machine::Machine {
        &self.machine
    }

    /// Its monitor.
    pub fn monitor(&self) -> Monitor {
        self.machine.monitor().unwrap()
    }

    /// Go's name for it.
    pub fn goarch(&self) -> &str {
        self.machine.goarch()
    }

    /// A new file in a directory of its own, on this machine.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The home in which it was booted.
    pub fn home(&self) -> Home {
        Home::at(&self.path("home"))
    }

    /// `hop` with the home in which it was booted.
    pub fn hop(&self) -> Hop {
        Hop::at(&self.path("home"))
    }

    /// Logs in; the login ends with what is returned.
    pub fn log_in(&self) -> Shell {
        let number = self.logins.fetch_add(1, Ordering::Relaxed);
        Shell::open(&self.machine, self.path(&format!("login-{number}")))
    }

    /// Lets a port of this machine lead to one of its ports.
    pub fn forward(&self, guest: u16) -> u16 {
        let mut monitor = self.monitor();
        let said = monitor.human(&format!("hostfwd_add n0 tcp:127.0.0.1:0-{ADDRESS}:{guest}")).unwrap();
        assert_eq!(said, "", "QEMU forwards a port");
        let forwards = monitor.forwards().unwrap();
        forwards.iter().find(|forward| forward.guest == guest).unwrap().host
    }

    /// Ends that.
    pub(crate) fn unforward(&self, host: u16) {
        let said = self.monitor().human(&format!("hostfwd_remove n0 tcp:127.0.0.1:{host}")).unwrap();
        assert!(said.contains("removed"), "{said}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        wait(&mut self.watcher);
    }
}
