//! An agent of a test's own, on its target.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use hop::config::home::Home;
use hop::config::inventory::{Entry, Inventory, Router};
use hop_proto::identity::Fingerprint;
use hop_proto::meminfo::OVERCOMMIT_MEMORY;
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::machine::PooledMachine;
use crate::process::{Lines, pid, wait, wait_until, with_default_signals};
use crate::program::{dist, fixture};
use crate::shell::word;
use crate::{FaultProxy, Footprint, Hop, Process, Shell, Target};

/// Where cgroups of version 2 are: as procd mounts them, and beside those of version 1.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

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
pub struct PromisesMore<'a> {
    router: &'a VirtualRouter,
    /// What its setting was; nothing if this is not a machine of its own.
    before: String,
}

impl Drop for PromisesMore<'_> {
    fn drop(&mut self) {
        if !self.before.is_empty() {
            self.router.shell().sh(&format!("echo {} >{OVERCOMMIT_MEMORY}", self.before.trim()));
        }
    }
}

/// Where the agent's files are.
enum Workspace {
    /// In the test's directory.
    Here,
    /// In a directory of its own on a machine.
    There {
        pooled: PooledMachine,
        shell: Box<Shell>,
        directory: PathBuf,
        pid: String,
        /// The port of this machine that leads to the agent, and its own.
        ports: [u16; 2],
    },
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
        pooled: PooledMachine,
        options: &Options<'_>,
        authorized: &str,
    ) -> Self {
        let shell = Box::new(pooled.machine().log_in());
        let there = Path::new("/tmp").join(directory.path().file_name().unwrap());
        let place = word(&there);
        // Programs of other users pass it.
        shell.sh(&format!("mkdir -m 711 {place}"));
        shell.put(&there.join("authorized"), authorized.as_bytes());
        if let Some(mount) = options.tmpfs {
            shell.sh(&format!("cd {place} && mkdir ram && mount -t tmpfs -o mode=0700,{mount} none ram"));
        }
        let quota = options.quota.map(|quota| format!("--quota {quota}")).unwrap_or_default();
        let (agent, pid, guest, fingerprint) = launch_there(&shell, &there, 0, &quota);
        let ports = [pooled.machine().forward(guest), guest];
        let workspace = Workspace::There { pooled, shell, directory: there, pid, ports };
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
            Workspace::There { shell, directory, pid, ports, .. } => {
                (self.agent, *pid, _, fingerprint) = launch_there(shell, directory, ports[1], "");
            }
        }
        assert_eq!(fingerprint, self.fingerprint, "it has its key");
    }

    /// Pulls the plug of a whole virtual router, and puts it in again; then starts an agent with the same key.
    pub fn power_cycle(&mut self) {
        let Workspace::There { pooled, shell, directory, .. } = &mut self.workspace else {
            panic!("this machine stays on");
        };
        let machine = pooled.machine();
        let [key, authorized] = ["key", "authorized"].map(|name| {
            let path = directory.join(name);
            let content = shell.run(&format!("cat {}", word(&path))).stdout;
            (path, content)
        });
        machine.machine().reset().unwrap();
        pooled.equip();
        **shell = machine.log_in();
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

    /// Does what a refusal for want of promises advises, until that is dropped: more programs at a time than a router with strict
    /// overcommit promises memory to.
    pub fn let_it_promise_more(&self) -> PromisesMore<'_> {
        let before = match self.target {
            Target::Machine { .. } => {
                self.shell().sh(&format!("cat {OVERCOMMIT_MEMORY} && echo 0 >{OVERCOMMIT_MEMORY}"))
            }
            Target::Host | Target::Kept => String::new(),
        };
        PromisesMore { router: self, before }
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
    pub fn keepers(&self) -> Vec<u32> {
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
            Workspace::There { shell, .. } => shell.holds(&format!("[ -e {} ]", word(path))),
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
            Workspace::There { shell, .. } => {
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
            Workspace::There { shell, .. } => shell.put(path, content),
        }
    }

    /// Removes a file on the router.
    pub fn remove(&self, path: &Path) {
        match &self.workspace {
            Workspace::Here => fs::remove_file(path).unwrap(),
            Workspace::There { shell, .. } => _ = shell.sh(&format!("rm {}", word(path))),
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
                left.extend(names(Path::new(&seen).join("jobs")));
                let directory = fs::metadata(&seen).unwrap();
                let (device, inode) = (directory.dev(), directory.ino());
                let prefix = format!("hopd-{device}-{inode}-");
                let cgroups = CGROUPS.into_iter().flat_map(|mount| names(mount.into()));
                left.extend(cgroups.filter(|name| name.starts_with(&prefix)));
            }
            Workspace::There { shell, .. } => {
                // On tmpfs, an inode is enough: a machine has one agent at a time.
                let names = shell.sh(&format!(
                    "cd {} && ls -A jobs && set $(ls -di .) && cd {}
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
            Workspace::There { shell, .. } => {
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
            Workspace::There { shell, pid, .. } => Footprint::of(|script| shell.sh(script), pid),
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
            Workspace::There { shell, .. } => shell,
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
            Workspace::There { shell, pid, .. } => {
                shell.sh(&format!("kill -{} {pid}", signal.as_raw()));
            }
        }
    }

    /// A program of the agent, which must be alive.
    pub fn watch(&self, number: &str) -> Watched<'_> {
        match &self.workspace {
            Workspace::Here => Watched::Here(Process::open(number.parse().unwrap())),
            Workspace::There { shell, .. } => {
                shell.sh(&format!("[ -d /proc/{number} ]"));
                Watched::There(shell, number.to_owned())
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
            Workspace::There { shell, .. } => shell.run(&format!("cat {}", word(&path))).stdout().to_owned(),
        }
    }

    /// The directory that the agent was given as its own.
    pub fn ram(&self) -> PathBuf {
        self.path_there("ram")
    }
}

impl Drop for VirtualRouter {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of the agent\n{}", self.log());
        }
        if let Workspace::There { pooled, shell, directory, pid, ports } = &self.workspace {
            let place = word(directory);
            // It may have ended already, and most have nothing mounted.
            shell.run(&format!("kill -9 {pid}; umount {place}/ram; rm -rf {place}"));
            pooled.machine().unforward(ports[0]);
        }
        // As above.
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        if self.path("home/run").exists() {
            for keeper in self.keepers() {
                // It ends by itself now, but not before the next test may look.
                let _ = kill_process(pid(keeper), Signal::KILL);
            }
        }
    }
}

fn name_of(entry: std::io::Result<fs::DirEntry>) -> String {
    entry.unwrap().file_name().into_string().unwrap()
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

/// Starts an agent by these words, which say nothing of where its files are: the process, its address, who it is.
fn launch_here(directory: &Path, words: &[OsString], listen: &str) -> (Child, String, Fingerprint) {
    let path = |name: &str| directory.join(name);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(["--listen", listen]);
    for (flag, name) in [("--dir", "ram"), ("--key", "key"), ("--authorized", "authorized")] {
        command.arg(flag).arg(path(name));
    }
    let log = fs::File::create(path("log")).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut agent = with_default_signals(&mut command).spawn().unwrap();
    let line = Lines::of(agent.stdout.take().unwrap()).next();
    let (address, fingerprint) =
        ready(&line).unwrap_or_else(|| panic!("it said {:?}", fs::read_to_string(path("log"))));
    (agent, address, fingerprint)
}

/// Starts an agent on a router: the ssh in which it runs, its number, its port, who it is.
fn launch_there(shell: &Shell, there: &Path, port: u16, more: &str) -> (Child, String, u16, Fingerprint) {
    let place = word(there);
    let mut ssh = shell.start(&format!(
        "umask 077; cd {place} && echo $$; exec /tmp/hopd --listen 0.0.0.0:{port} --dir {place}/ram \
        --key {place}/key --authorized {place}/authorized {more} 2>log"
    ));
    let (pid, line) = (ssh.line().trim().to_owned(), ssh.line());
    let said = || shell.run(&format!("cat {place}/log")).stdout().to_owned();
    let (address, fingerprint) = ready(&line).unwrap_or_else(|| panic!("it said {:?}", said()));
    let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
    (ssh.into_process(), pid, port, fingerprint)
}

/// The address and the key in the line by which an agent says that it listens.
fn ready(line: &str) -> Option<(String, Fingerprint)> {
    let ready: Value = serde_json::from_str(line).ok()?;
    Some((ready["address"].as_str()?.to_owned(), ready["fingerprint"].as_str()?.parse().ok()?))
}
