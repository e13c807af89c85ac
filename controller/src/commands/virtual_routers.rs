//! `hop virtual`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Error;
use crate::cli::{Virtual, VirtualUp};
use crate::client::connection::{Connection, DEFAULT_TIMEOUT};
use crate::config::enrolment::Persistence;
use crate::config::home::Home;
use crate::config::inventory::{Entry, Inventory, Router};
use crate::console::exit_code::ExitCode;
use crate::console::note;
use crate::console::stdio;
use crate::enrolment::{self, EnrolRequest};
use crate::virtual_router::machine::{self, Machine};
use crate::virtual_router::profile::Profile;
use crate::virtual_router::{self, Isolation, Up};

/// How often `--follow` polls a console.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);

/// How long an agent may take to answer after its router has booted, and how often hop tries to connect. The agent is
/// one of the last services to start.
const AGENT_TIMEOUT: Duration = Duration::from_secs(30);
const AGENT_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Runs a command of `hop virtual`.
pub async fn run(home: &Home, options: Virtual) -> Result<ExitCode, Error> {
    match options {
        Virtual::Up(VirtualUp { profile: Some(profile), name, bare, counted_clock, .. }) => {
            let profile = Profile::load(home, &profile)?;
            let name = name.as_deref().unwrap_or(&profile.name);
            check_free(home, name)?;
            if !Machine::find(home, name)?.is_some_and(|machine| machine.is_running()) {
                note!("hop: {name}: booting");
            }
            let (machine, up) = Machine::up(home, name, &profile, counted_clock)?;
            if bare {
                super::print(&bare_text(&machine, &profile, up))?;
            } else {
                let router = enrol(home, &machine).await?;
                super::print(&format!(
                    "{name} {}, enrolled {}",
                    done(up),
                    super::routers::how(&router.entry)
                ))?;
            }
        }
        Virtual::Up(VirtualUp { arch, no_sandbox, .. }) => {
            let isolation = if no_sandbox { Isolation::None } else { Isolation::Sandbox };
            let (router, up) = virtual_router::up(home, arch, isolation)?;
            let shared = match isolation {
                Isolation::Sandbox => "this machine's network",
                Isolation::None => "this machine's network, files and processes",
            };
            super::print(&format!(
                "{} {} at {}, with {shared}",
                router.name,
                done(up),
                router.entry.address
            ))?;
        }
        Virtual::Down { name, all } => down(home, name.as_deref(), all)?,
        Virtual::List { json } => super::print(&list(home, json)?)?,
        Virtual::Ssh { name, command } => {
            let mut ssh = running(home, &name)?.ssh()?;
            ssh.args(command);
            // Returns only if it fails: from here on this process is ssh.
            let error = ssh.exec();
            return Err(Error::io("run", Path::new(ssh.get_program()))(error));
        }
        Virtual::Console { name, follow } => console(&Machine::get(home, &name)?, follow)?,
        Virtual::Reboot { name, hard } => {
            let machine = running(home, &name)?;
            note!("hop: {name}: rebooting");
            if hard {
                machine.reset()?;
            } else {
                machine.reboot()?;
            }
            wait_for_agents(home, &machine).await?;
            super::print(&format!("{name} rebooted"))?;
        }
    }
    Ok(ExitCode::Program(0))
}

/// Waits until the agents that survive a reboot answer, under every name by which the machine is enrolled.
async fn wait_for_agents(home: &Home, machine: &Machine) -> Result<(), Error> {
    let identity = home.identity()?;
    for router in Inventory::new(home).readable()?.0 {
        let stays = router
            .entry
            .enrolment
            .as_ref()
            .is_some_and(|enrolment| enrolment.persistence == Persistence::Install);
        if !stays || !machine.is_way_to(&router.entry) {
            continue;
        }
        note!("hop: {}: waiting for its agent", router.name);
        let since = Instant::now();
        while let Err(error) = Connection::open(&router, &identity, DEFAULT_TIMEOUT).await {
            if since.elapsed() > AGENT_TIMEOUT {
                return Err(error.into());
            }
            tokio::time::sleep(AGENT_POLL_INTERVAL).await;
        }
    }
    Ok(())
}

/// Makes sure that no router of another kind is called `name`: enrolling the virtual one would replace it.
fn check_free(home: &Home, name: &str) -> Result<(), Error> {
    let taken = match Inventory::new(home).find(name)? {
        None => false,
        // That of a machine that was started again: the port of its login has changed, its key has not.
        Some(Router { entry: Entry { enrolment: Some(enrolment), .. }, .. })
            if enrolment.ssh.identity.as_ref().is_some_and(|key| key.starts_with(home.virtual_routers())) =>
        {
            false
        }
        Some(router) => !Machine::find(home, name)?.is_some_and(|machine| machine.is_way_to(&router.entry)),
    };
    if taken {
        return Err(Error::Usage(format!(
            "{name} is the name of a router that is enrolled; choose another --name"
        )));
    }
    Ok(())
}

/// Makes sure that a machine is enrolled under its own name, by the way that any router is.
async fn enrol(home: &Home, machine: &Machine) -> Result<Router, Error> {
    let name = machine.name();
    let known = Inventory::new(home).find(name)?.filter(|router| machine.is_way_to(&router.entry));
    if let Some(router) = known
        && Connection::open(&router, &home.identity()?, DEFAULT_TIMEOUT).await.is_ok()
    {
        return Ok(router);
    }
    let request = EnrolRequest {
        ssh: machine.login(),
        persistence: None,
        port: machine::AGENT_PORT,
        via_ssh: false,
        agent_address: Some(machine.agent_address()),
        cache_dir: None,
        listen_interface: None,
    };
    Ok(enrolment::add(home, name, &request).await?)
}

fn done(up: Up) -> &'static str {
    match up {
        Up::Started => "started",
        Up::Running => "runs already",
    }
}

/// How to log in to a machine, and how to enrol it.
fn bare_text(machine: &Machine, profile: &Profile, up: Up) -> String {
    let name = machine.name();
    let options = machine.ssh_options();
    let options = shell_words(options.iter().map(OsString::as_os_str));
    let port = machine.ssh_port();
    let mut text = format!(
        "{name} {} at 127.0.0.1:{port}: {}\n  log in:   ssh {options} -p {port} root@127.0.0.1\n",
        done(up),
        profile.description
    );
    match profile.password.as_deref() {
        Some("") => text.push_str("  password: none, press return\n"),
        Some(password) => text.push_str(&format!("  password: {password}\n")),
        None => {}
    }
    text.push_str(&format!(
        "  enrol:    hop router add {name} root@127.0.0.1:{port} {options} --agent-address {}",
        machine.agent_address()
    ));
    text
}

/// Words as a shell must be given them.
fn shell_words<'a>(words: impl Iterator<Item = &'a OsStr>) -> String {
    let quoted = words.map(|word| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

fn running(home: &Home, name: &str) -> Result<Machine, Error> {
    let machine = Machine::get(home, name)?;
    if machine.is_running() {
        return Ok(machine);
    }
    Err(Error::Usage(format!(
        "{name} has stopped: `hop virtual up --profile {} --name {name}` starts it again",
        machine.profile()
    )))
}

fn down(home: &Home, name: Option<&str>, all_of_them: bool) -> Result<(), Error> {
    // The routers of a killed hop have nothing but a process.
    let mut names = virtual_router::unknown(home)?;
    names.retain(|unknown| name.is_none_or(|name| name == unknown));
    let machines = match name {
        None => {
            names.extend(all(home)?.into_iter().map(|router| router.name));
            let machines = Machine::list(home)?;
            let known: Vec<_> =
                names.iter().map(String::as_str).chain(machines.iter().map(Machine::name)).collect();
            if known.len() > 1 && !all_of_them {
                return Err(virtual_router::Error::SeveralRun { known: known.join(", ") }.into());
            }
            machines
        }
        Some(name) => match Machine::find(home, name)? {
            Some(machine) => vec![machine],
            None => {
                if names.is_empty() {
                    names.push(meant(home, name)?.name);
                }
                Vec::new()
            }
        },
    };
    for name in names {
        virtual_router::down(home, &name)?;
        super::print(&format!("{name} stopped"))?;
    }
    for machine in machines {
        Machine::down(home, machine.name())?;
        super::print(&format!("{} stopped", machine.name()))?;
    }
    Ok(())
}

/// The virtual routers that are an agent under qemu-user.
fn all(home: &Home) -> Result<Vec<Router>, Error> {
    let (mut routers, _) = Inventory::new(home).readable()?;
    routers.retain(|router| router.entry.process.is_some());
    Ok(routers)
}

fn meant(home: &Home, name: &str) -> Result<Router, Error> {
    let router = Inventory::new(home).get(name)?;
    if router.entry.process.is_none() {
        return Err(Error::Usage(format!("{name} is no virtual router")));
    }
    Ok(router)
}

/// Prints the log of a console unchanged, to the last byte.
fn console(machine: &Machine, follow: bool) -> Result<(), Error> {
    let path = machine.console_log();
    let mut log = File::open(&path).map_err(Error::io("read", &path))?;
    let mut out = stdio::stdout();
    let mut buffer = [0; 8192];
    loop {
        // Checked before the last read, so that no output is missed.
        let more = follow && machine.is_running();
        loop {
            let count = log.read(&mut buffer).map_err(Error::io("read", &path))?;
            match out.write_all(&buffer[..count]) {
                // The reader has closed the pipe: it wants no more.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                result => result.map_err(Error::io("write", Path::new("standard output")))?,
            }
            if count == 0 {
                break;
            }
        }
        if !more {
            return Ok(());
        }
        thread::sleep(FOLLOW_INTERVAL);
    }
}

#[derive(Serialize)]
struct Line {
    name: String,
    goarch: String,
    profile: Option<String>,
    /// Of the agent.
    address: String,
    ssh: Option<String>,
    running: bool,
}

fn list(home: &Home, json: bool) -> Result<String, Error> {
    let mut lines: Vec<Line> = all(home)?
        .into_iter()
        .map(|router| Line {
            running: virtual_router::is_running(&router),
            name: router.name,
            goarch: router.entry.goarch,
            profile: None,
            address: router.entry.address,
            ssh: None,
        })
        .collect();
    lines.extend(Machine::list(home)?.into_iter().map(|machine| Line {
        name: machine.name().to_owned(),
        goarch: machine.goarch().to_owned(),
        profile: Some(machine.profile().to_owned()),
        address: machine.agent_address(),
        ssh: Some(format!("127.0.0.1:{}", machine.ssh_port())),
        running: machine.is_running(),
    }));
    if json {
        // A list of strings and booleans always has its JSON.
        return Ok(serde_json::to_string_pretty(&lines).unwrap_or_default());
    }
    let row = |cells: [&str; 6]| {
        let [name, profile, arch, address, ssh, state] = cells;
        format!("{name:<16} {profile:<16} {arch:<7} {address:<16} {ssh:<16} {state}")
    };
    let mut text = row(["NAME", "PROFILE", "ARCH", "AGENT", "SSH", "STATE"]);
    for line in &lines {
        let state = if line.running { "running" } else { "stopped" };
        let (profile, ssh) = (line.profile.as_deref().unwrap_or("-"), line.ssh.as_deref().unwrap_or("-"));
        text.push('\n');
        text.push_str(&row([&line.name, profile, &line.goarch, &line.address, ssh, state]));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_arguments_are_quoted() {
        let words = ["-i", "/a b/id", "it's", ""].map(OsStr::new);
        assert_eq!(shell_words(words.into_iter()), r"-i '/a b/id' 'it'\''s' ''");
    }
}
