//! An agent of a test's own on its target, and a home in which it is enrolled.
//!
//! [`workspace`] has where its files are and how it is started there, [`state`] what is on the router.

pub(crate) mod fault_proxy;
pub(crate) mod footprint;
pub(crate) mod state;
mod workspace;

use std::ffi::OsString;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;

use hop::config::home::Home;
use hop::config::inventory::{Entry, Inventory, Router};
use hop_formats::meminfo::OVERCOMMIT_MEMORY;
use hop_proto::identity::Fingerprint;
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use self::state::name_of;
use self::workspace::{Workspace, launch_here, launch_there};
use crate::fixture::{dist, fixture};
use crate::machine::pool::PooledMachine;
use crate::machine::shell::word;
use crate::process::{pid, wait};
use crate::{FaultProxy, Hop, Target};

/// How an agent differs from the usual one.
#[derive(Default)]
pub struct Options<'a> {
    /// `--quota`.
    pub quota: Option<u64>,
    /// Mounts a tmpfs with these options on its directory; on this machine, in a mount namespace of its own.
    pub tmpfs: Option<&'a str>,
    /// Lets nobody in.
    pub unauthorized: bool,
}

/// An agent, and a home in which it is enrolled as `router`.
pub struct VirtualRouter {
    target: Target,
    /// On this machine: the home, and whatever else the test needs.
    directory: TempDir,
    workspace: Workspace,
    /// The agent, or the ssh in which it runs.
    agent: Child,
    /// Where it is reached.
    pub address: String,
    /// Who it is.
    pub fingerprint: Fingerprint,
}

/// A router whose kernel promises any amount of memory.
pub struct OvercommitAllowed<'a> {
    router: &'a VirtualRouter,
    /// What its setting was; nothing if this is not a machine of its own.
    before: String,
}

impl Drop for OvercommitAllowed<'_> {
    fn drop(&mut self) {
        // The machine of a test that failed is not used again.
        if !self.before.is_empty() && !thread::panicking() {
            self.router.shell().sh(&format!("echo {} >{OVERCOMMIT_MEMORY}", self.before.trim()));
        }
    }
}

impl VirtualRouter {
    /// Starts the usual agent.
    pub fn start(target: Target) -> Self {
        Self::start_with(target, &Options::default())
    }

    /// Starts an agent with `options`.
    pub fn start_with(target: Target, options: &Options<'_>) -> Self {
        let directory = TempDir::new().unwrap();
        let home = Home::at(&directory.path().join("home"));
        let own = home.identity().unwrap().fingerprint();
        let authorized = if options.unauthorized { String::new() } else { format!("{own} test\n") };
        let router = match target {
            Target::Host | Target::Kept => Self::start_here(target, directory, options, &authorized),
            Target::Machine { profile, .. } => {
                Self::start_there(target, directory, PooledMachine::take(profile), options, &authorized)
            }
        };
        router.enrol("router", &router.address, router.fingerprint);
        router
    }

    fn start_here(target: Target, directory: TempDir, options: &Options<'_>, authorized: &str) -> Self {
        let path = |name: &str| directory.path().join(name);
        fs::write(path("authorized"), authorized).unwrap();
        let mut words: Vec<OsString> = Vec::new();
        if let Some(mount) = options.tmpfs {
            fs::create_dir(path("ram")).unwrap();
            let script = format!("mount -t tmpfs -o mode=0700,{mount} none \"$0\" && exec \"$@\"");
            words.extend(["unshare", "-rm", "sh", "-c", &script].map(OsString::from));
            words.push(path("ram").into());
        }
        words.push(dist("hopd-host").into());
        let quota = options.quota.map(|quota| ["--quota".into(), quota.to_string().into()]);
        words.extend(quota.into_iter().flatten());
        let (agent, address, fingerprint) = launch_here(directory.path(), &words, "127.0.0.1:0");
        Self { target, directory, workspace: Workspace::Here, agent, address, fingerprint }
    }

    fn start_there(
        target: Target,
        directory: TempDir,
        machine: PooledMachine,
        options: &Options<'_>,
        authorized: &str,
    ) -> Self {
        let shell = machine.shell();
        let there = Path::new("/tmp").join(directory.path().file_name().unwrap());
        let place = word(&there);
        // Programs of other users pass it.
        shell.sh(&format!("mkdir -m 711 {place}"));
        shell.put(&there.join("authorized"), authorized.as_bytes());
        if let Some(mount) = options.tmpfs {
            shell.sh(&format!("cd {place} && mkdir ram && mount -t tmpfs -o mode=0700,{mount} none ram"));
        }
        let quota = options.quota.map(|quota| format!("--quota {quota}")).unwrap_or_default();
        let (agent, pid, guest, fingerprint) = launch_there(shell, &there, 0, &quota);
        let ports = [machine.machine().forward(guest), guest];
        let workspace = Workspace::There { machine: Box::new(machine), directory: there, pid, ports };
        let address = format!("127.0.0.1:{}", ports[0]);
        Self { target, directory, workspace, agent, address, fingerprint }
    }

    /// Starts the agent again, which has ended: the usual one, with its key, where it was.
    pub fn restart_agent(&mut self) {
        wait(&mut self.agent);
        let fingerprint;
        match &mut self.workspace {
            Workspace::Here => {
                let words = [dist("hopd-host").into()];
                (self.agent, _, fingerprint) = launch_here(self.directory.path(), &words, &self.address);
            }
            Workspace::There { machine, directory, pid, ports } => {
                (self.agent, *pid, _, fingerprint) = launch_there(machine.shell(), directory, ports[1], "");
            }
        }
        assert_eq!(fingerprint, self.fingerprint, "it has its key");
    }

    /// Pulls the plug of a whole virtual router, and puts it in again; then starts an agent with the same key.
    pub fn power_cycle(&mut self) {
        let Workspace::There { machine, directory, .. } = &mut self.workspace else {
            panic!("this machine stays on");
        };
        let [key, authorized] = ["key", "authorized"].map(|name| {
            let path = directory.join(name);
            let content = machine.shell().run(&format!("cat {}", word(&path))).stdout;
            (path, content)
        });
        machine.reset();
        let shell = machine.shell();
        shell.sh(&format!("mkdir -m 711 {}", word(directory)));
        for (path, content) in [key, authorized] {
            shell.put(&path, &content);
            // An agent uses no key that others could read.
            shell.sh(&format!("chmod 600 {}", word(&path)));
        }
        // Its ssh does not know yet that it is gone.
        let _ = self.agent.kill();
        self.restart_agent();
    }

    /// Turns strict overcommit off until the result is dropped, as the hint of a `no_promise` refusal advises: for
    /// tests that run more programs at a time than strict overcommit has memory for.
    pub fn allow_overcommit(&self) -> OvercommitAllowed<'_> {
        let before = match self.target {
            Target::Machine { .. } => {
                self.shell().sh(&format!("cat {OVERCOMMIT_MEMORY} && echo 0 >{OVERCOMMIT_MEMORY}"))
            }
            Target::Host | Target::Kept => String::new(),
        };
        OvercommitAllowed { router: self, before }
    }

    /// Where it is.
    pub fn target(&self) -> Target {
        self.target
    }

    /// Writes an entry into the inventory of the home.
    pub fn enrol(&self, name: &str, address: &str, fingerprint: Fingerprint) {
        self.enrol_in(&self.home(), name, address, fingerprint);
    }

    /// Lets another home know this router, as `router`.
    pub fn enrol_for(&self, home: &Home) {
        self.enrol_in(home, "router", &self.address, self.fingerprint);
    }

    /// A proxy to this router, which is enrolled as `proxied` at its near end.
    pub fn proxy(&self) -> FaultProxy {
        let proxy = FaultProxy::to(&self.address);
        self.enrol("proxied", proxy.address(), self.fingerprint);
        proxy
    }

    fn enrol_in(&self, home: &Home, name: &str, address: &str, fingerprint: Fingerprint) {
        let entry = Entry {
            address: address.into(),
            fingerprint,
            goarch: self.target.goarch().into(),
            enrolment: None,
            process: None,
        };
        Inventory::new(home).put(&Router { name: name.into(), entry }).unwrap();
    }

    /// The home in which this router is enrolled.
    pub fn home(&self) -> Home {
        Home::at(&self.path("home"))
    }

    /// The entry of this router.
    pub fn entry(&self) -> Router {
        Inventory::new(&self.home()).get("router").unwrap()
    }

    /// `hop` with the home of this router, of which the router is the default.
    pub fn hop(&self) -> Hop {
        let hop = Hop::at(&self.path("home"));
        if self.target == Target::Kept { hop.env("HOP_KEEP_CONNECTION", "10s") } else { hop }
    }

    /// The processes that hold connections for the home of this router: their numbers.
    pub fn masters(&self) -> Vec<u32> {
        let home = format!("HOP_HOME={}", self.path("home").display());
        // What ends while it is looked at is none.
        let words = |number: u32, file: &str| -> Vec<String> {
            let text = fs::read(format!("/proc/{number}/{file}")).unwrap_or_default();
            text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
        };
        let is_ours = |number: &u32| {
            words(*number, "cmdline").get(1).is_some_and(|word| word == "keep-connection")
                && words(*number, "environ").contains(&home)
        };
        let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| name_of(entry).parse().ok());
        numbers.filter(is_ours).collect()
    }

    /// `hop exec` of a fixture on this router.
    pub fn exec(&self, name: &str) -> Hop {
        self.exec_with(&[], name)
    }

    /// The same, with options.
    pub fn exec_with(&self, options: &[&str], name: &str) -> Hop {
        self.hop().args(["exec", "-r", "router"]).args(options).arg(fixture(self.target, name))
    }

    /// A new file in this test's own directory, on this machine.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl VirtualRouter {
    /// Ends the agent and the connection masters, and removes their files.
    fn clean_up(&mut self) {
        match &self.workspace {
            // It may have ended already.
            Workspace::Here => _ = self.agent.kill(),
            Workspace::There { machine, directory, pid, ports } => {
                let place = word(directory);
                // Likewise, and most have nothing mounted.
                machine.shell().run(&format!("kill -9 {pid}; umount {place}/ram; rm -rf {place}"));
                machine.machine().unforward(ports[0]);
            }
        }
        // The channel in which it ran ends with it, and only then may others be opened.
        wait(&mut self.agent);
        if self.path("home/run").exists() {
            for master in self.masters() {
                // It ends by itself now, but not before the next test may look.
                let _ = kill_process(pid(master), Signal::KILL);
            }
        }
    }
}

impl Drop for VirtualRouter {
    fn drop(&mut self) {
        let is_failing = thread::panicking();
        // A panic that leaves a destructor while another one is under way would end the tests of all suites.
        let cleaned = panic::catch_unwind(AssertUnwindSafe(|| {
            if is_failing {
                eprintln!("--- log of the agent\n{}", self.log());
            }
            self.clean_up();
        }));
        if let (Err(failure), false) = (cleaned, is_failing) {
            panic::resume_unwind(failure);
        }
    }
}
