//! A whole router in one QEMU: its directory, its process, its ports.
//!
//! **Invariants:** hop writes the id of the process to a file before it waits for anything, so that it can always kill
//! what it has started; flash and disk last until the machine is taken down; only this machine can reach it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Error;
use super::monitor::{self, Monitor};
use super::profile::Profile;
use super::qemu::{program, serial_socket};
use super::{Up, lock, process, user};
use crate::config::enrolment::Destination;
use crate::config::home::Home;
use crate::config::inventory::{Entry, Inventory, ProcessId, is_name};
use crate::program::embedded::Arch;

/// How often to poll for events that come with no notification.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// The port that leads to an agent on a machine.
pub const AGENT_PORT: u16 = 4670;

/// The file with the state of a machine.
const STATE: &str = "machine.toml";

// Names within its directory, in which QEMU runs: the path of a socket must be short, and a comma in a path would split
// QEMU's options.
pub(super) const CONSOLE: &str = "console.log";
pub(super) const QEMU_LOG: &str = "qemu.log";
pub(super) const MONITOR: &str = "qmp.sock";
pub(super) const FLASH: &str = "flash.img";
pub(super) const DISK: &str = "disk.img";
pub(super) const INITRAMFS: &str = "initramfs";
pub(super) const KEY: &str = "id";
const KNOWN_HOSTS: &str = "known_hosts";

/// A virtual router that is a machine of its own.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(super) name: String,
    pub(super) directory: PathBuf,
    pub(super) state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) profile: String,
    pub(super) goarch: String,
    pub(super) counted_clock: bool,
    /// 0 until QEMU has reported it, as is the next.
    pub(super) ssh_port: u16,
    pub(super) agent_port: u16,
    pub(super) process: ProcessId,
}

impl Machine {
    /// The machine with this name, running or not.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub fn find(home: &Home, name: &str) -> Result<Option<Self>, Error> {
        if !is_name(name) {
            return Ok(None);
        }
        let directory = home.virtual_router(name);
        let path = directory.join(STATE);
        let state = match fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|source| Error::Malformed { path: path.clone(), source: source.into() })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        Ok(Some(Self { name: name.to_owned(), directory, state }))
    }

    /// The machine with this name, running or not.
    ///
    /// # Errors
    /// [`Error::UnknownMachine`], or its file cannot be read.
    pub fn get(home: &Home, name: &str) -> Result<Self, Error> {
        match Self::find(home, name)? {
            Some(machine) => Ok(machine),
            None => {
                let names: Vec<_> = Self::list(home)?.into_iter().map(|machine| machine.name).collect();
                let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                Err(Error::UnknownMachine { name: name.to_owned(), known })
            }
        }
    }

    /// All machines, by name.
    ///
    /// # Errors
    /// Their files cannot be read.
    pub fn list(home: &Home) -> Result<Vec<Self>, Error> {
        let directory = home.virtual_routers();
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", &directory)(error)),
        };
        let mut machines = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::io("read", &directory))?.file_name();
            if let Some(name) = name.to_str() {
                machines.extend(Self::find(home, name)?);
            }
        }
        machines.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(machines)
    }

    /// Makes sure that a machine of this profile runs, and has booted. Restarts one that has exited by itself, with its
    /// flash and its disk.
    ///
    /// With `counted_clock`, its clock counts instructions, 500 million a second, however busy this machine is.
    ///
    /// # Errors
    /// Something is missing on this machine, the name is taken, or it did not boot. Its files are removed then.
    pub fn up(home: &Home, name: &str, profile: &Profile, counted_clock: bool) -> Result<(Self, Up), Error> {
        check_name(name)?;
        let _lock = lock(home)?;
        if let Some(mut machine) = Self::find(home, name)? {
            machine.check_same(profile, counted_clock)?;
            if machine.is_running() {
                // The `hop` that started it may have been interrupted before it had booted, or had reported its ports.
                if machine.state.ssh_port == 0 {
                    machine.learn_ports()?;
                }
                machine.wait_until_ready(0)?;
                return Ok((machine, Up::Running));
            }
            let machine = Self::start(name, machine.directory, profile, counted_clock)?;
            return Ok((machine, Up::Started));
        }
        let directory = home.virtual_router(name);
        // Left by a `hop` that was killed before it had started QEMU.
        remove_directory(&directory)?;
        let started = Self::prepare(&directory, name, profile)
            .and_then(|()| Self::start(name, directory.clone(), profile, counted_clock));
        if started.is_err() {
            // The error quotes the console, which the user needs more than the error of a file that stays.
            let _ = remove_directory(&directory);
        }
        started.map(|machine| (machine, Up::Started))
    }

    /// Stops a machine, erases it, and removes the routers at its address from the inventory.
    ///
    /// # Errors
    /// There is none with this name, it cannot be stopped, or its files cannot be removed.
    pub fn down(home: &Home, name: &str) -> Result<(), Error> {
        let _lock = lock(home)?;
        let machine = Self::get(home, name)?;
        process::stop(machine.state.process).map_err(|source| Error::VirtualRouter {
            name: name.to_owned(),
            why: format!("it cannot be stopped: {source}"),
        })?;
        let inventory = Inventory::new(home);
        for router in inventory.readable()?.0.iter().filter(|router| machine.is_way_to(&router.entry)) {
            inventory.remove(&router.name)?;
        }
        remove_directory(&machine.directory)
    }

    /// The name that the user gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its profile.
    pub fn profile(&self) -> &str {
        &self.state.profile
    }

    /// Go's name for it.
    pub fn goarch(&self) -> &str {
        &self.state.goarch
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// True if QEMU runs.
    pub fn is_running(&self) -> bool {
        process::is_running(self.state.process)
    }

    /// The process that is QEMU.
    pub fn process(&self) -> ProcessId {
        self.state.process
    }

    /// The port on 127.0.0.1 that leads to its dropbear.
    pub fn ssh_port(&self) -> u16 {
        self.state.ssh_port
    }

    /// The port on 127.0.0.1 that leads to its port 4670.
    pub fn agent_port(&self) -> u16 {
        self.state.agent_port
    }

    /// Where an agent on it is reached: `host:port`.
    pub fn agent_address(&self) -> String {
        format!("127.0.0.1:{}", self.state.agent_port)
    }

    /// True if a router of the inventory is this one: by the address of its agent, or by its login.
    pub fn is_way_to(&self, entry: &Entry) -> bool {
        let is_login = |ssh: &Destination| {
            let host = ssh.host.rsplit_once('@').map_or(&*ssh.host, |(_, host)| host);
            ssh.port == Some(self.state.ssh_port) && ["127.0.0.1", "localhost"].contains(&host)
        };
        entry.address == self.agent_address()
            || entry.enrolment.as_ref().is_some_and(|enrolment| is_login(&enrolment.ssh))
    }

    /// The login of its owner.
    pub fn login(&self) -> Destination {
        Destination {
            host: "root@127.0.0.1".to_owned(),
            port: Some(self.state.ssh_port),
            identity: Some(self.key()),
            options: self.ssh_settings(),
        }
    }

    /// The private key that may log in.
    pub fn key(&self) -> PathBuf {
        self.directory.join(KEY)
    }

    /// The log of its serial console since QEMU started. It grows without limit, by some hundred bytes a boot.
    pub fn console_log(&self) -> PathBuf {
        self.directory.join(CONSOLE)
    }

    /// Connects to the monitor of its QEMU.
    ///
    /// # Errors
    /// It does not run, or does not answer.
    pub fn monitor(&self) -> Result<Monitor, Error> {
        Monitor::connect(&self.directory.join(MONITOR))
    }

    /// Connects to the other end of the serial cable in `ttyS1` or `ttyS2`. Only one can be connected at a time.
    ///
    /// # Errors
    /// [`Error::Io`] if it does not run, or has no such port.
    pub fn serial(&self, port: u8) -> Result<UnixStream, Error> {
        let path = self.directory.join(serial_socket(port));
        monitor::connect(&path).map_err(Error::io("connect to", &path))
    }

    /// The `-o` options with which `ssh` can log in.
    pub fn ssh_settings(&self) -> Vec<String> {
        // ssh splits the value at spaces, and replaces %.
        let known_hosts = self.directory.join(KNOWN_HOSTS).display().to_string().replace('%', "%%");
        let known_hosts = if known_hosts.contains(' ') { format!("\"{known_hosts}\"") } else { known_hosts };
        vec![
            format!("UserKnownHostsFile={known_hosts}"),
            "StrictHostKeyChecking=accept-new".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
        ]
    }

    /// The key and the `-o` options of an `ssh` command line, without port and destination.
    pub fn ssh_options(&self) -> Vec<OsString> {
        let settings = self.ssh_settings().into_iter().flat_map(|setting| ["-o".into(), setting.into()]);
        [OsString::from("-i"), self.key().into()].into_iter().chain(settings).collect()
    }

    /// `ssh` to it, as root, which says no more than it must; what is to be done there can be added.
    ///
    /// # Errors
    /// [`Error::NoProgram`].
    pub fn ssh(&self) -> Result<Command, Error> {
        let mut command = Command::new(program("ssh", "openssh-client")?);
        command
            .args(self.ssh_options())
            .args(["-o", "LogLevel=ERROR", "-p"])
            .arg(self.state.ssh_port.to_string())
            .arg("root@127.0.0.1");
        Ok(command)
    }

    fn check_same(&self, profile: &Profile, counted_clock: bool) -> Result<(), Error> {
        if self.state.profile != profile.name {
            return Err(Error::Usage(format!(
                "{} is there already, of profile {}: end it with `hop virtual down {0}`, or choose another --name",
                self.name, self.state.profile
            )));
        }
        if self.is_running() && self.state.counted_clock != counted_clock {
            let with = if counted_clock { "without" } else { "with" };
            return Err(Error::Usage(format!("{} runs already, {with} --counted-clock", self.name)));
        }
        Ok(())
    }

    /// Writes its file, whole or not at all.
    pub(super) fn save(&self) -> Result<(), Error> {
        let path = self.directory.join(STATE);
        let text = toml::to_string(&self.state)
            .map_err(|source| Error::Malformed { path: path.clone(), source: source.into() })?;
        tempfile::NamedTempFile::new_in(&self.directory)
            .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()).map(|()| file))
            .and_then(|file| file.persist(&path).map_err(|error| error.error))
            .map(drop)
            .map_err(Error::io("write", &path))
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    if !is_name(name) {
        return Err(Error::Usage(format!("{name:?} is no name for a router")));
    }
    if [Arch::Mips, Arch::Mipsle].into_iter().any(|arch| user::name(arch) == name) {
        return Err(Error::Usage(format!("{name} is the name of the virtual router that --arch starts")));
    }
    Ok(())
}

fn remove_directory(directory: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", directory)(error)),
        _ => Ok(()),
    }
}
