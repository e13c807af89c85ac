//! One program to many routers, which are agents of this machine: what it takes of the controller's side, beside what it takes
//! with ssh. There is a `hop` a router, or an `ssh`.
//!
//! What plays the routers shares this machine's CPUs, so the time on the clock is that of both sides.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use hop::config::home::Home;
use hop::config::inventory::{Entry, Inventory, Router};
use hop_tests::{Target, build_go, dist};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ssh_servers::SshServers;
use crate::table;

/// What it is called on the command line.
pub const NAME: &str = "fan-out";

/// How many routers. All are sent to at once.
const ROUTERS: usize = 200;

/// What was measured.
pub struct FanOut {
    routers: u64,
    ssh: Spent,
    hop: Spent,
}

/// What one way takes. Times in seconds, memory in KiB.
struct Spent {
    /// Until the last has ended.
    wall: f64,
    /// User and system time of a `hop` or an `ssh`: the mean.
    cpu: f64,
    /// The highest resident set of one: the largest of all.
    memory: f64,
}

/// An agent, which ends with this.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the hello on all of them, which have never seen it, by either way.
pub fn measure() -> FanOut {
    let directory = TempDir::new().unwrap();
    let program = directory.path().join("hello");
    build_go("./examples/hello", Target::Host.goarch(), &[], &program);
    let ssh = by_ssh(directory.path(), &program);
    let hop = by_hop(directory.path(), &program);
    FanOut { routers: ROUTERS as u64, ssh, hop }
}

fn by_ssh(directory: &Path, program: &Path) -> Spent {
    let servers = SshServers::start(directory.join("ssh"), ROUTERS);
    let ssh = |number| {
        let mut ssh = servers.run(number);
        ssh.stdin(File::open(program).unwrap());
        ssh
    };
    all_at_once((0..ROUTERS).map(ssh))
}

fn by_hop(directory: &Path, program: &Path) -> Spent {
    let home = directory.join("home");
    let own = Home::at(&home).identity().unwrap().fingerprint();
    fs::write(directory.join("authorized"), format!("{own} bench\n")).unwrap();
    let _agents: Vec<_> = (0..ROUTERS).map(|number| start(directory, &home, number)).collect();
    let hop = |number| {
        let mut hop = Command::new(dist("hop"));
        hop.args(["exec", "-r", &name(number)])
            .arg(program)
            .env("HOP_HOME", &home)
            .env_remove("HOP_ROUTER")
            .stdin(Stdio::null());
        hop
    };
    all_at_once((0..ROUTERS).map(hop))
}

/// Runs commands that are to run the hello.
fn all_at_once(commands: impl Iterator<Item = Command>) -> Spent {
    let since = Instant::now();
    let running: Vec<_> =
        commands.map(|mut command| command.stdout(Stdio::piped()).spawn().unwrap()).collect();
    let spent: Vec<_> = running.into_iter().map(end).collect();
    let wall = since.elapsed().as_secs_f64();
    let cpu = spent.iter().map(|(cpu, _)| cpu).sum::<f64>() / spent.len() as f64;
    let memory = spent.iter().map(|(_, memory)| *memory).fold(0.0, f64::max);
    Spent { wall, cpu, memory }
}

fn name(number: usize) -> String {
    format!("agent-{number}")
}

fn start(directory: &Path, home: &Path, number: usize) -> Agent {
    let place = directory.join(name(number));
    fs::create_dir(&place).unwrap();
    let log = File::create(place.join("log")).unwrap();
    let mut command = Command::new(dist("hopd-host"));
    command.args(["--listen", "127.0.0.1:0", "--dir"]).arg(place.join("ram"));
    command.arg("--key").arg(place.join("key")).arg("--authorized").arg(directory.join("authorized"));
    let mut agent = Agent(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap());
    let mut stdout = std::io::BufReader::new(agent.0.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    let entry = Entry {
        address: ready["address"].as_str().unwrap().to_owned(),
        fingerprint: ready["fingerprint"].as_str().unwrap().parse().unwrap(),
        goarch: Target::Host.goarch().to_owned(),
        enrolment: None,
        process: None,
    };
    Inventory::new(&Home::at(home)).put(&Router { name: name(number), entry }).unwrap();
    agent
}

/// Waits for a command that must succeed: its CPU seconds, and its highest resident set.
fn end(mut command: Child) -> (f64, f64) {
    let mut said = String::new();
    command.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.starts_with("Hello from"), "the program ran, and said {said:?}");
    let mut status = 0;
    // SAFETY: all zero is a value of it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let pid = i32::try_from(command.id()).unwrap();
    // SAFETY: a child that nobody has waited for; both pointers are to what they should be.
    assert_eq!(unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) }, pid);
    assert_eq!(status, 0, "it succeeds");
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    // Linux counts it in KiB.
    (seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss as f64)
}

impl FanOut {
    /// As Markdown.
    pub fn table(&self) -> String {
        let Self { routers, ssh, hop } = self;
        let head = [
            format!("one program to {routers} routers that this machine plays, all at once"),
            "ssh".to_owned(),
            "hop".to_owned(),
            "hop needs".to_owned(),
        ];
        let row = |what: &str, decimals: usize, of: fn(&Spent) -> f64| {
            let show = |spent| format!("{:.decimals$}", of(spent));
            [what.to_owned(), show(ssh), show(hop), table::part(of(hop), of(ssh))]
        };
        let rows = [
            head,
            row("seconds until the last has ended, the routers' work included", 2, |spent| spent.wall),
            row("CPU seconds of an `ssh` or a `hop`, the mean", 4, |spent| spent.cpu),
            row("highest resident memory of one, KiB", 0, |spent| spent.memory),
        ];
        table::align(&rows.map(Vec::from))
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        json!({ "routers": self.routers, "ssh": self.ssh.to_json(), "hop": self.hop.to_json() })
    }

    /// From JSON.
    pub fn from_json(value: &Value) -> Option<Self> {
        Some(Self {
            routers: value["routers"].as_u64()?,
            ssh: Spent::from_json(&value["ssh"])?,
            hop: Spent::from_json(&value["hop"])?,
        })
    }
}

impl Spent {
    fn to_json(&self) -> Value {
        let Self { wall, cpu, memory } = self;
        json!({ "wall_seconds": wall, "cpu_seconds": cpu, "memory_kib": memory })
    }

    fn from_json(value: &Value) -> Option<Self> {
        Some(Self {
            wall: value["wall_seconds"].as_f64()?,
            cpu: value["cpu_seconds"].as_f64()?,
            memory: value["memory_kib"].as_f64()?,
        })
    }
}
