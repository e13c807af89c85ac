//! One program to many agents on this machine: what it takes of the controller's side. There is a `hop` a router.
//!
//! The agents share this machine's CPUs with the `hop`s, so the time on the clock is that of both.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use hop::home::Home;
use hop::inventory::{Entry, Inventory, Router};
use hop_tests::{Stage, build_go, dist};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What it is called on the command line.
pub const NAME: &str = "fan-out";

/// How many agents. All are sent to at once.
const AGENTS: usize = 200;

/// What was measured. Times in seconds, memory in KiB.
pub struct FanOut {
    agents: u64,
    wall: f64,
    /// User and system time of a `hop`: the mean.
    cpu: f64,
    /// The highest resident set of a `hop`: the largest of all.
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

/// Starts the agents, and runs the hello on all of them, which have never seen it.
pub fn measure() -> FanOut {
    let directory = TempDir::new().unwrap();
    let home = directory.path().join("home");
    let own = Home::at(&home).identity().unwrap().fingerprint();
    fs::write(directory.path().join("authorized"), format!("{own} bench\n")).unwrap();
    let agents: Vec<_> = (0..AGENTS).map(|number| start(directory.path(), &home, number)).collect();
    let program = directory.path().join("hello");
    build_go("./examples/hello", Stage::Host.goarch(), &[], &program);
    let since = Instant::now();
    let hops: Vec<_> = (0..AGENTS)
        .map(|number| {
            let mut hop = Command::new(dist("hop"));
            hop.args(["exec", "-r", &name(number)])
                .arg(&program)
                .env("HOP_HOME", &home)
                .env_remove("HOP_ROUTER");
            hop.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let spent: Vec<_> = hops.into_iter().map(end).collect();
    let wall = since.elapsed().as_secs_f64();
    drop(agents);
    let cpu = spent.iter().map(|(cpu, _)| cpu).sum::<f64>() / AGENTS as f64;
    let memory = spent.iter().map(|(_, memory)| *memory).fold(0.0, f64::max);
    FanOut { agents: AGENTS as u64, wall, cpu, memory }
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
        goarch: Stage::Host.goarch().to_owned(),
        enrolment: None,
        process: None,
    };
    Inventory::new(&Home::at(home)).put(&Router { name: name(number), entry }).unwrap();
    agent
}

/// Waits for a `hop` that must succeed: its CPU seconds, and its highest resident set.
fn end(mut hop: Child) -> (f64, f64) {
    let mut said = String::new();
    hop.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.starts_with("Hello from"), "the program ran, and said {said:?}");
    let mut status = 0;
    // SAFETY: all zero is a value of it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let pid = i32::try_from(hop.id()).unwrap();
    // SAFETY: a child that nobody has waited for; both pointers are to what they should be.
    assert_eq!(unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) }, pid);
    assert_eq!(status, 0, "hop succeeds");
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    // Linux counts it in KiB.
    (seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss as f64)
}

impl FanOut {
    /// As Markdown.
    pub fn table(&self) -> String {
        let Self { agents, wall, cpu, memory } = self;
        format!(
            "| one program to {agents} agents on this machine, a `hop` each, all at once |  |\n| --- | ---: |\n\
             | seconds until the last has ended, the agents' work included | {wall:.2} |\n\
             | CPU seconds of a `hop`, the mean | {cpu:.4} |\n\
             | highest resident memory of a `hop`, KiB | {memory:.0} |\n"
        )
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let Self { agents, wall, cpu, memory } = self;
        json!({ "agents": agents, "wall_seconds": wall, "hop_cpu_seconds": cpu, "hop_memory_kib": memory })
    }

    /// From JSON.
    pub fn from_json(value: &Value) -> Option<Self> {
        Some(Self {
            agents: value["agents"].as_u64()?,
            wall: value["wall_seconds"].as_f64()?,
            cpu: value["hop_cpu_seconds"].as_f64()?,
            memory: value["hop_memory_kib"].as_f64()?,
        })
    }
}
