//! A router on the bench: a whole virtual one with a counted clock, its agent, and the proxies to its ports.
//!
//! **Invariants:** a cost is counted until the router is idle again, so that work after the exit of `hop` or `ssh`
//! counts, too.

use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use hop::config::home::Home;
use hop::config::inventory::{Entry, Inventory, Router};
use hop_tests::{FaultProxy, Hop, Machine, Ran, Running, Shell, TIMEOUT, Target, fixture};
use serde_json::Value;
use tempfile::TempDir;

use crate::counter::{Blocks, Counter, INSTRUCTION};

/// The router that is measured.
pub const TARGET: Target = Target::DIR_505;

/// How often a second the clock of its kernel ticks: CONFIG_HZ of tests/routers/kernel.config.
const TICKS: f64 = 100.0;

/// The port of the program that receives raw TCP there.
const RECEIVER_PORT: u16 = 4671;

/// The binaries that are measured.
pub struct Builds {
    pub hop: PathBuf,
    pub agent: PathBuf,
}

/// What something cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// CPU seconds of the router.
    pub cpu: f64,
    /// Bytes that TCP carried to the router and from it: neither headers nor what was sent twice.
    pub bytes: u64,
}

/// A router, booted.
pub struct BenchRouter {
    builds: Builds,
    directory: TempDir,
    counter: Counter,
    machine: Machine,
    shell: Shell,
    agent: Option<Agent>,
    agent_proxy: FaultProxy,
    ssh_proxy: FaultProxy,
    /// The program that receives raw TCP, and the way to it.
    receiver: Option<(Running, FaultProxy)>,
    /// What was executed while a cost was counted last, if somebody wants to know.
    pub executed: Option<RefCell<Blocks>>,
    /// Whether `hop` keeps its connections.
    pub keeps_connections: bool,
}

struct Agent {
    pid: String,
    /// The ssh in which it runs.
    ssh: Running,
}

impl BenchRouter {
    /// Boots a router.
    pub fn boot(builds: Builds, plugin: &Path) -> Self {
        let directory = TempDir::new().unwrap();
        let counter = Counter::in_directory(directory.path(), plugin);
        let Target::Machine { profile, .. } = TARGET else { unreachable!("it is a machine") };
        let machine = Machine::boot_counted(profile, counter.directory());
        let shell = machine.log_in();
        shell.put("/tmp/hopd".as_ref(), &fs::read(&builds.agent).unwrap());
        shell.sh("chmod 755 /tmp/hopd");
        let agent_proxy = FaultProxy::to(&machine.machine().agent_address());
        let ssh_proxy = FaultProxy::to(&format!("127.0.0.1:{}", machine.machine().ssh_port()));
        let (agent, receiver, executed, keeps_connections) = (None, None, None, false);
        Self {
            builds,
            directory,
            counter,
            machine,
            shell,
            agent,
            agent_proxy,
            ssh_proxy,
            receiver,
            executed,
            keeps_connections,
        }
    }

    /// A login that is always there.
    pub fn shell(&self) -> &Shell {
        &self.shell
    }

    /// Copies a fixture to the router, as a program that is there already.
    pub fn install(&self, name: &str) -> String {
        let path = format!("/tmp/{name}");
        self.shell.put(path.as_ref(), &fs::read(fixture(TARGET, name)).unwrap());
        self.shell.sh(&format!("chmod 755 {path}"));
        path
    }

    /// Starts an agent that has never received a program, after stopping one that runs.
    pub fn fresh_agent(&mut self) {
        if let Some(Agent { pid, ssh }) = self.agent.take() {
            self.shell.sh(&format!("kill {pid}"));
            ssh.wait();
        }
        self.shell.sh("rm -rf /tmp/bench && mkdir -m 711 /tmp/bench");
        let home = Home::at(&self.home());
        let own = home.identity().unwrap().fingerprint();
        self.shell.put("/tmp/bench/authorized".as_ref(), format!("{own} bench\n").as_bytes());
        let mut ssh = self.shell.start(
            "cd /tmp/bench && echo $$; exec /tmp/hopd --listen 0.0.0.0:4670 --dir /tmp/bench/ram \
             --key /tmp/bench/key --authorized /tmp/bench/authorized 2>log",
        );
        let (pid, line) = (ssh.line().trim().to_owned(), ssh.line());
        let ready: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("it said {line}{}", self.shell.run("cat /tmp/bench/log").stdout()));
        let entry = Entry {
            address: self.agent_proxy.address().to_owned(),
            fingerprint: ready["fingerprint"].as_str().unwrap().parse().unwrap(),
            goarch: self.machine.goarch().to_owned(),
            enrolment: None,
            process: None,
        };
        Inventory::new(&home).put(&Router { name: "router".into(), entry }).unwrap();
        self.agent = Some(Agent { pid, ssh });
        // Its first handshake may wait for entropy.
        succeeds(self.hop(&["info"]).run());
        if !home.cache().join("probes").exists() {
            // Runs the probe of this Go now, because it runs only once and belongs to no row.
            succeeds(self.hop(&["run", "./tests/fixtures/lines", "0", "0s"]).run());
            self.fresh_agent();
        }
    }

    /// A home on this machine, in which the router is the only one.
    pub fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// `hop` with these words.
    pub fn hop(&self, words: &[&str]) -> Hop {
        let hop = Hop::of(&self.builds.hop, &self.home()).args(words);
        if self.keeps_connections { hop.env("HOP_KEEP_CONNECTION", "1h") } else { hop }
    }

    /// Closes the connection that was kept.
    pub fn disconnect(&self) {
        succeeds(self.hop(&["router", "disconnect"]).run());
    }

    /// The agent's process there.
    pub fn agent(&self) -> &str {
        &self.agent.as_ref().unwrap().pid
    }

    /// `ssh` as people call it: a login of its own.
    pub fn ssh(&self, script: &str) -> Running {
        Running::start(self.open_ssh("ssh", "-p").args(["root@127.0.0.1", script]))
    }

    /// `scp -O` of a file to `/tmp/f`.
    pub fn scp(&self, file: &Path) -> Ran {
        Running::start(self.open_ssh("scp", "-P").arg("-O").arg(file).arg("root@127.0.0.1:/tmp/f")).wait()
    }

    /// The file that is measured as `hop`.
    pub fn hop_file(&self) -> &Path {
        &self.builds.hop
    }

    /// `ssh` or `scp` with all its options, for a shell.
    pub fn words(&self, program: &str, port: &str) -> String {
        let command = self.open_ssh(program, port);
        let words = [command.get_program()].into_iter().chain(command.get_args());
        words.map(|word| format!("'{}'", word.display())).collect::<Vec<_>>().join(" ")
    }

    fn open_ssh(&self, program: &str, port: &str) -> Command {
        let mut command = Command::new(program);
        command.args(self.machine.machine().ssh_options()).args(["-o", "LogLevel=ERROR"]);
        command.args(["-o", "BatchMode=yes", port, port_of(&self.ssh_proxy)]);
        command
    }

    /// Sends a file to the router over plain TCP, into its RAM, until it has all of it.
    pub fn send_raw(&self, content: &[u8]) {
        let (_, proxy) = self.receiver.as_ref().unwrap();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(content).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "it says nothing, and closes");
    }

    /// Starts what receives it.
    pub fn start_receiver(&mut self) {
        if self.receiver.is_none() {
            let path = self.install("receive");
            let mut running = self.shell.start(&format!("exec {path} 0.0.0.0:{RECEIVER_PORT} /tmp/f"));
            assert_eq!(running.line(), "ready\n");
            let port = self.machine.forward(RECEIVER_PORT);
            self.receiver = Some((running, FaultProxy::to(&format!("127.0.0.1:{port}"))));
        }
    }

    /// Does something, and gives what it cost until the router is at rest again.
    pub fn cost(&self, act: impl FnOnce()) -> Cost {
        let before = self.counter.at_rest();
        let carried = self.carried();
        act();
        let after = self.counter.at_rest();
        let executed = after.since(&before);
        let cost =
            Cost { cpu: executed.instructions() as f64 * INSTRUCTION, bytes: self.carried() - carried };
        self.keep(executed);
        cost
    }

    /// Keeps what was executed, if somebody wants to know.
    fn keep(&self, executed: Blocks) {
        if let Some(last) = &self.executed {
            *last.borrow_mut() = executed;
        }
    }

    /// The CPU seconds that the router needs for one second of its own while nothing happens. What looks is not in it.
    pub fn load_at_rest(&self, looking: std::time::Duration) -> f64 {
        let tick = self.shell.sh("grep -w tick_handle_periodic /proc/kallsyms");
        let tick = u64::from_str_radix(tick.split(' ').next().unwrap(), 16).unwrap();
        let before = self.counter.at_rest();
        std::thread::sleep(looking);
        let executed = self.counter.blocks().since(&before);
        // Its clock is looked at from outside as well: to ask for it would be something that happens.
        let seconds = executed.executions(tick) as f64 / TICKS;
        assert!(seconds > 0.0, "the router's clock ticks");
        let load = executed.instructions() as f64 * INSTRUCTION / seconds;
        self.keep(executed);
        load
    }

    fn carried(&self) -> u64 {
        let receiver = self.receiver.as_ref().map(|(_, proxy)| proxy);
        let proxies = [&self.agent_proxy, &self.ssh_proxy].into_iter().chain(receiver);
        proxies.map(FaultProxy::carried).map(|(to, from)| to + from).sum()
    }
}

/// What must succeed, succeeded.
#[track_caller]
pub fn succeeds(ran: Ran) -> Ran {
    assert_eq!(ran.code, 0, "{}", ran.stderr());
    ran
}

fn port_of(proxy: &FaultProxy) -> &str {
    proxy.address().rsplit_once(':').unwrap().1
}
