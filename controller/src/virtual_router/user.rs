//! The agent for a MIPS router, run under qemu-user on this machine: no root, no kernel, ready in a second.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use hop_proto::identity::{Fingerprint, MalformedFingerprint};
use serde::Deserialize;

use super::Error;
use super::sandbox::{self, Sandbox};
use super::{Isolation, Up, lock, process};
use crate::config::home::{Home, make_private};
use crate::config::inventory::{EmulatedAgent, Entry, Inventory, ProcessId, Router};
use crate::program::embedded::Arch;

/// Time for an agent under qemu-user to say that it listens. It takes half a second.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// The PATH of programs on the router, which get no variable of this machine.
const ROUTER_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The file that says which process was started, from before it listens: a `hop` that is killed in between has not
/// enrolled it yet.
const PROCESS: &str = "process.toml";

/// The name of the virtual router for this machine.
pub fn name(arch: Arch) -> String {
    format!("virtual-{}", arch.goarch())
}

/// Makes sure that the virtual router for `arch` runs the agent of this `hop`, isolated as asked, and is enrolled.
///
/// # Errors
/// There is no agent, no qemu or no sandbox, or the agent did not start.
pub fn up(home: &Home, arch: Arch, isolation: Isolation) -> Result<(Router, Up), Error> {
    let name = name(arch);
    let _lock = lock(home)?;
    let inventory = Inventory::new(home);
    let directory = home.virtual_router(&name);
    let known = find(&inventory, &name)?;
    if known.as_ref().is_some_and(|router| router.entry.process.is_none()) {
        return Err(Error::Usage(format!(
            "{name} is the name of a router of another kind; `hop router rename {name} NEW_NAME` gives it another"
        )));
    }
    if let Some(router) = known.filter(is_running) {
        if runs_our_agent(&directory, arch) && self::isolation(&router) == Some(isolation) {
            return Ok((router, Up::Running));
        }
        router
            .entry
            .process
            .map_or(Ok(()), |agent| process::stop(agent.id))
            .map_err(Error::io("end the old agent in", &directory))?;
    }
    stop_started(&directory).map_err(Error::io("end the agent in", &directory))?;
    make_private(&directory)?;
    let started =
        start(home, arch, name, &directory, isolation).and_then(|router| match inventory.put(&router) {
            Ok(()) => Ok(router),
            Err(error) => {
                // Nobody knows of it, so nobody would end it. It was started a moment ago, and stops as well.
                let _ = router.entry.process.map(|agent| process::stop(agent.id));
                Err(error.into())
            }
        });
    if started.is_err() {
        // The error quotes its log; if there was nothing to remove, all is well.
        let _ = fs::remove_dir_all(&directory);
    }
    started.map(|router| (router, Up::Started))
}

/// Stops a virtual router, and removes it from the inventory.
///
/// # Errors
/// It cannot be stopped, or its files cannot be removed.
pub fn down(home: &Home, name: &str) -> Result<(), Error> {
    let _lock = lock(home)?;
    let inventory = Inventory::new(home);
    let directory = home.virtual_router(name);
    // Read under the lock: it may have been started again since somebody looked.
    let known = find(&inventory, name)?.and_then(|router| router.entry.process);
    known.map_or(Ok(()), |agent| process::stop(agent.id)).and_then(|()| stop_started(&directory)).map_err(
        |source| Error::VirtualRouter {
            name: name.to_owned(),
            why: format!("it cannot be stopped: {source}"),
        },
    )?;
    inventory.remove(name)?;
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &directory)(error)),
        _ => Ok(()),
    }
}

/// The names of the virtual routers that run but were never enrolled, because the `hop` that started them was killed.
///
/// # Errors
/// The inventory cannot be read.
pub fn unknown(home: &Home) -> Result<Vec<String>, Error> {
    let inventory = Inventory::new(home);
    let mut names = Vec::new();
    for name in [Arch::Mips, Arch::Mipsle].map(name) {
        let runs = started(&home.virtual_router(&name)).is_some_and(process::is_running);
        if runs && find(&inventory, &name)?.is_none() {
            names.push(name);
        }
    }
    Ok(names)
}

/// The process that was started last in `directory`.
fn started(directory: &Path) -> Option<ProcessId> {
    toml::from_str(&fs::read_to_string(directory.join(PROCESS)).ok()?).ok()
}

/// Stops it, if it runs.
fn stop_started(directory: &Path) -> io::Result<()> {
    started(directory).map_or(Ok(()), process::stop)
}

fn write_started(directory: &Path, process: ProcessId) -> Result<(), Error> {
    let path = directory.join(PROCESS);
    let text = toml::to_string(&process)
        .map_err(|source| Error::Malformed { path: path.clone(), source: source.into() })?;
    fs::write(&path, text).map_err(Error::io("write", &path))
}

/// False if the agent in `directory` is that of another `hop`, as after an update. A `hop` that carries none takes any.
fn runs_our_agent(directory: &Path, arch: Arch) -> bool {
    let Ok(ours) = arch.agent() else { return true };
    fs::read(directory.join("hopd")).is_ok_and(|theirs| theirs == ours)
}

fn find(inventory: &Inventory, name: &str) -> Result<Option<Router>, Error> {
    Ok(inventory.find(name)?)
}

/// True if the process that is this virtual router lives.
pub fn is_running(router: &Router) -> bool {
    router.entry.process.is_some_and(|agent| process::is_running(agent.id))
}

/// How the programs of an agent under qemu-user are isolated; `None` for any other router.
pub fn isolation(router: &Router) -> Option<Isolation> {
    router.entry.process.map(|agent| match agent.sandbox {
        Some(true) => Isolation::Sandbox,
        _ => Isolation::None,
    })
}

fn start(
    home: &Home,
    arch: Arch,
    name: String,
    directory: &Path,
    isolation: Isolation,
) -> Result<Router, Error> {
    let qemu = qemu(arch)?;
    let agent = directory.join("hopd");
    write_executable(&agent, &arch.agent()?)?;
    let state = directory.join("state");
    make_private(&state)?;
    let authorized = state.join("authorized");
    let own = home.identity()?.fingerprint();
    fs::write(&authorized, format!("{own}\n")).map_err(Error::io("write", &authorized))?;
    let log = directory.join("log");
    let log_file = File::create(&log).map_err(Error::io("write", &log))?;
    let failed = Error::io("run", &qemu);
    let spawned = match isolation {
        Isolation::Sandbox => {
            let mut sandbox = Sandbox::new(&name, &qemu, &agent, &state)?;
            let [qemu, agent, state] = [sandbox::QEMU, sandbox::AGENT, sandbox::STATE].map(Path::new);
            sandbox.command.arg(qemu);
            serve(&mut sandbox.command, qemu, agent, Path::new("/tmp/hop"), state, log_file);
            sandbox.spawn()
        }
        Isolation::None => {
            let mut command = Command::new(&qemu);
            serve(&mut command, &qemu, &agent, &directory.join("ram"), &state, log_file);
            command.spawn().map(|child| {
                let number = child.id();
                (child, Some(number))
            })
        }
    };
    let (mut child, number) = spawned.map_err(failed)?;
    let process = number.and_then(process::find);
    let written = process.map_or(Ok(()), |process| write_started(directory, process));
    let line = match (written, child.stdout.take()) {
        (Ok(()), Some(stdout)) => first_line(stdout),
        (Err(error), _) => Err(error.to_string()),
        (Ok(()), None) => Err("it has no standard output".to_owned()),
    };
    let ready = line.and_then(|line| Ready::parse(&line));
    match (ready, process.filter(|process| process::is_running(*process))) {
        (Ok(Ready { address, fingerprint }), Some(id)) => Ok(Router {
            name,
            entry: Entry {
                address,
                fingerprint,
                goarch: arch.goarch().to_owned(),
                enrolment: None,
                process: Some(EmulatedAgent { id, sandbox: Some(isolation == Isolation::Sandbox) }),
            },
        }),
        (ready, _) => {
            // It may be hung as well as gone: each call fails only if it is gone. bubblewrap does not take its command with it.
            let _ = process.map(process::stop);
            let _ = child.kill();
            let _ = child.wait();
            let why = ready.err().unwrap_or_else(|| "it exited at once".to_owned());
            let log = fs::read_to_string(&log).unwrap_or_default();
            let last = log.lines().last().unwrap_or("and left no log");
            if number.is_none() || last.starts_with("bwrap: ") {
                return Err(Error::NoSandbox { why: last.to_owned() });
            }
            Err(Error::VirtualRouter { name, why: format!("{why}; {last}") })
        }
    }
}

/// Completes a command that begins with QEMU: the agent, its options and its streams.
fn serve(command: &mut Command, qemu: &Path, agent: &Path, directory: &Path, state: &Path, log: File) {
    command
        .arg(agent)
        .args(["--listen", "127.0.0.1:0", "--launcher"])
        .arg(qemu)
        .arg("--dir")
        .arg(directory)
        .arg("--key")
        .arg(state.join("key"))
        .arg("--authorized")
        .arg(state.join("authorized"))
        .env_clear()
        .env("PATH", ROUTER_PATH)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        // It outlives this hop, and a Ctrl-C that is meant for this hop.
        .process_group(0);
}

/// The line by which an agent says that it listens.
struct Ready {
    address: String,
    fingerprint: Fingerprint,
}

impl Ready {
    fn parse(line: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Line {
            address: String,
            fingerprint: String,
        }
        let Line { address, fingerprint } = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let fingerprint = fingerprint.parse().map_err(|error: MalformedFingerprint| error.to_string())?;
        Ok(Self { address, fingerprint })
    }
}

fn first_line(stdout: ChildStdout) -> Result<String, String> {
    match process::first_line(stdout, START_TIMEOUT) {
        Ok(line) if line.is_empty() => Err("it exited before it listened".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Err(format!("it did not listen within {} s", START_TIMEOUT.as_secs()))
        }
        line => line.map_err(|error| error.to_string()),
    }
}

fn qemu(arch: Arch) -> Result<PathBuf, Error> {
    let name = format!("qemu-{}", arch.machine());
    process::in_path(&format!("{name}-static"))
        .or_else(|| process::in_path(&name))
        .ok_or(Error::NoQemu { name })
}

fn write_executable(path: &Path, content: &[u8]) -> Result<(), Error> {
    // Written again and not over the old one, which may still be running.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io("remove", path)(error));
        }
        _ => {}
    }
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, content))
        .map_err(Error::io("write", path))
}
