//! A whole router in one QEMU: its directory, its process, its ports.
//!
//! What must stay true: the file that says which process it is, is written before anything is waited for, so that what was
//! started can always be ended; flash and disk are kept until it is taken down; it is reached from this machine only.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Error;
use super::image::{self, Artifacts};
use super::monitor::{self, Monitor, NETWORK};
use super::profile::{ADDRESS, Clock, Nic, Profile};
use super::{Up, lock, process, user};
use crate::config::enrolment::Destination;
use crate::config::home::{Home, make_private};
use crate::config::inventory::{Entry, Inventory, ProcessId, is_name};
use crate::program::embedded::Arch;

/// Time to boot. It takes two to five seconds, and on a busy machine longer.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// Time to boot with a counted clock, which is ten times slower.
const COUNTED_BOOT_LIMIT: Duration = Duration::from_secs(180);

/// Time for QEMU to open its monitor.
const MONITOR_LIMIT: Duration = Duration::from_secs(10);

/// Time for a login and for `reboot` to be heard there.
const LOGIN_LIMIT: Duration = Duration::from_secs(20);

/// How often to look whether something has happened that nobody is told of.
const POLL: Duration = Duration::from_millis(25);

/// What init in the guest prints once a boot, when dropbear listens.
const READY: &str = "virtual router: ready";

/// What the kernel prints last.
const PANIC: &str = "Kernel panic";

/// How many lines of the console an error shows.
const CONSOLE_LINES: usize = 4;

/// How much of a log an error looks at, in bytes.
const CONSOLE_TAIL: u64 = 4 << 10;

/// The port that leads to an agent on a machine.
pub const AGENT_PORT: u16 = 4670;

/// The port of dropbear, and that of the agent.
const PORTS: [u16; 2] = [22, AGENT_PORT];

/// The file that says what a machine is.
const STATE: &str = "machine.toml";

// Names within its directory, in which QEMU runs: the path of a socket must be short, and a comma in a path would split
// QEMU's options.
const CONSOLE: &str = "console.log";
const QEMU_LOG: &str = "qemu.log";
const MONITOR: &str = "qmp.sock";
const FLASH: &str = "flash.img";
const DISK: &str = "disk.img";
const INITRAMFS: &str = "initramfs";
const KEY: &str = "id";
const KNOWN_HOSTS: &str = "known_hosts";

/// A virtual router that is a machine of its own.
#[derive(Clone, Debug)]
pub struct Machine {
    name: String,
    directory: PathBuf,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    profile: String,
    goarch: String,
    counted_clock: bool,
    /// 0 until QEMU has said which it is, as is the next.
    ssh_port: u16,
    agent_port: u16,
    process: ProcessId,
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

    /// Makes sure that a machine of this profile runs, and has booted. One that ended by itself is started again, with the
    /// flash and the disk that it had.
    ///
    /// With `counted_clock`, its clock counts instructions, 500 million a second, however busy this machine is.
    ///
    /// # Errors
    /// Something is missing on this machine, the name is taken, or it did not boot. What was made is gone then.
    pub fn up(home: &Home, name: &str, profile: &Profile, counted_clock: bool) -> Result<(Self, Up), Error> {
        check_name(name)?;
        let _lock = lock(home)?;
        if let Some(mut machine) = Self::find(home, name)? {
            machine.check_same(profile, counted_clock)?;
            if machine.is_running() {
                // Whoever started it may have been interrupted before it had booted, or had said its ports.
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
        // Left by a hop that was ended before there was a process.
        remove_directory(&directory)?;
        let started = Self::prepare(&directory, name, profile)
            .and_then(|()| Self::start(name, directory.clone(), profile, counted_clock));
        if started.is_err() {
            // The error says what its console said; a file that stays is not what the user must hear of first.
            let _ = remove_directory(&directory);
        }
        started.map(|machine| (machine, Up::Started))
    }

    /// Ends a machine, erases it, and forgets the routers that were enrolled at its address.
    ///
    /// # Errors
    /// There is none with this name, it cannot be ended, or its files cannot be removed.
    pub fn down(home: &Home, name: &str) -> Result<(), Error> {
        let _lock = lock(home)?;
        let machine = Self::get(home, name)?;
        process::stop(machine.state.process).map_err(|source| Error::VirtualRouter {
            name: name.to_owned(),
            why: format!("it cannot be ended: {source}"),
        })?;
        let inventory = Inventory::new(home);
        for router in inventory.list()?.iter().filter(|router| machine.is_way_to(&router.entry)) {
            inventory.remove(&router.name)?;
        }
        remove_directory(&machine.directory)
    }

    /// What the user calls it.
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

    /// What its serial console printed since QEMU was started. It grows without limit, by some hundred bytes a boot.
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

    /// What `ssh` must be told with `-o` to log in.
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

    /// The same and the key, as words for `ssh`; without the port and the destination.
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

    /// Types `reboot` there, and waits until it is back.
    ///
    /// # Errors
    /// Nobody can log in, or it does not come back.
    pub fn reboot(&self) -> Result<(), Error> {
        let from = self.console_length()?;
        let mut command = self.ssh()?;
        // A guest that reboots does not close its connections, so this ssh is ended here. It waits until its word is heard,
        // which the reboot would overtake on a machine that has much else to do.
        command.args(["-o", "BatchMode=yes", "echo rebooting; read heard; reboot"]);
        let mut ssh = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::io("run", Path::new("ssh")))?;
        let heard = match ssh.stdout.take() {
            Some(stdout) => process::first_line(stdout, LOGIN_LIMIT),
            None => Ok(String::new()),
        };
        let heard = heard.is_ok_and(|line| line == "rebooting\n");
        drop(ssh.stdin.take());
        let back = if heard {
            self.wait(from, || match ssh.try_wait() {
                // 255 is ssh's own: the connection was lost, as it should be.
                Ok(Some(status)) if !matches!(status.code(), Some(0 | 255)) => Some("`reboot` failed there"),
                _ => None,
            })
        } else {
            Err(self.failure("nobody can log in to reboot it".to_owned()))
        };
        // Both fail only if it has ended.
        let _ = ssh.kill();
        let said = ssh.wait_with_output().map(|output| output.stderr).unwrap_or_default();
        back.map_err(|error| match error {
            Error::VirtualRouter { name, why } => {
                let said = String::from_utf8_lossy(&said);
                let said = said.lines().last().map(|line| format!("; ssh said: {line}")).unwrap_or_default();
                Error::NotBack { name, why: why + &said }
            }
            error => error,
        })
    }

    /// Presses its reset button, and waits until it is back.
    ///
    /// # Errors
    /// QEMU does not answer, or it does not come back.
    pub fn reset(&self) -> Result<(), Error> {
        let from = self.console_length()?;
        self.monitor()?.reset()?;
        self.wait_until_ready(from).map_err(|error| match error {
            Error::VirtualRouter { name, why } => Error::NotBack { name, why },
            error => error,
        })
    }

    /// How much its console has printed, in bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn console_length(&self) -> Result<u64, Error> {
        let path = self.console_log();
        fs::metadata(&path).map(|metadata| metadata.len()).map_err(Error::io("read", &path))
    }

    /// Waits until its console has said that it is ready, somewhere after the first `from` bytes.
    ///
    /// # Errors
    /// [`Error::VirtualRouter`] if it has ended or takes too long.
    pub fn wait_until_ready(&self, from: u64) -> Result<(), Error> {
        self.wait(from, || None)
    }

    /// The same, until `hopeless` says why not.
    fn wait(&self, from: u64, mut hopeless: impl FnMut() -> Option<&'static str>) -> Result<(), Error> {
        let limit = if self.state.counted_clock { COUNTED_BOOT_LIMIT } else { BOOT_LIMIT };
        let deadline = Instant::now() + limit;
        loop {
            // Before the look at the log, so that what it said last is seen.
            let running = self.is_running();
            if self.console_says(from, READY)? {
                return Ok(());
            }
            if !running {
                return Err(self.failure("QEMU ended".to_owned()));
            }
            if let Some(why) = hopeless() {
                return Err(self.failure(why.to_owned()));
            }
            if self.console_says(from, PANIC)? {
                return Err(self.failure("its kernel gave up".to_owned()));
            }
            if Instant::now() > deadline {
                return Err(self.failure(format!("it was not ready within {} s", limit.as_secs())));
            }
            thread::sleep(POLL);
        }
    }

    /// True if the console printed `text` somewhere after its first `from` bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn console_says(&self, from: u64, text: &str) -> Result<bool, Error> {
        let path = self.console_log();
        let mut said = Vec::new();
        File::open(&path)
            .and_then(|mut file| {
                file.seek(SeekFrom::Start(from))?;
                file.read_to_end(&mut said)
            })
            .map_err(Error::io("read", &path))?;
        Ok(said.windows(text.len()).any(|window| window == text.as_bytes()))
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

    /// Makes what lasts until it is taken down: its flash, its disk, its key.
    fn prepare(directory: &Path, name: &str, profile: &Profile) -> Result<(), Error> {
        // What is missing on this machine is said before anything is made.
        let artifacts = Artifacts::from_environment()?;
        qemu(profile)?;
        artifacts.kernel(profile)?;
        artifacts.root(profile)?;
        let stick = profile.disk.is_some().then(|| artifacts.stick()).transpose()?;
        let keygen = program("ssh-keygen", "openssh-client")?;
        make_private(directory)?;
        image::write_flash(&directory.join(FLASH))?;
        if let Some(stick) = stick {
            image::copy_disk(&stick, &directory.join(DISK))?;
        }
        let output = Command::new(&keygen)
            .args(["-q", "-t", "ed25519", "-N", "", "-C"])
            .arg(format!("hop-virtual-{name}"))
            .arg("-f")
            .arg(directory.join(KEY))
            .stdin(Stdio::null())
            .output()
            .map_err(Error::io("run", &keygen))?;
        if output.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&output.stderr);
        Err(Error::VirtualRouter { name: name.to_owned(), why: format!("ssh-keygen failed: {}", why.trim()) })
    }

    /// Starts QEMU on what is in `directory`, and waits until the guest has booted. If that fails, QEMU is ended, and the
    /// directory stays.
    fn start(name: &str, directory: PathBuf, profile: &Profile, counted_clock: bool) -> Result<Self, Error> {
        let artifacts = Artifacts::from_environment()?;
        let public = directory.join(KEY).with_extension("pub");
        let key = fs::read_to_string(&public).map_err(Error::io("read", &public))?;
        let initramfs = directory.join(INITRAMFS);
        image::write_initramfs(&initramfs, &artifacts.root(profile)?, profile, key.trim())?;
        // Those of the QEMU before. A console that cannot be emptied is told when QEMU opens it.
        for file in [CONSOLE, MONITOR, &serial_socket(1), &serial_socket(2)] {
            let _ = fs::remove_file(directory.join(file));
        }
        let console = directory.join(CONSOLE);
        File::create(&console).map_err(Error::io("write", &console))?;
        let log = directory.join(QEMU_LOG);
        let log_file = File::create(&log).map_err(Error::io("write", &log))?;
        let copy = log_file.try_clone().map_err(Error::io("write", &log))?;
        let qemu = qemu(profile)?;
        let mut child = Command::new(&qemu)
            .args(arguments(profile, &artifacts.kernel(profile)?, counted_clock))
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(copy)
            .stderr(log_file)
            // It outlives this hop, and a Ctrl-C that is meant for this hop.
            .process_group(0)
            .spawn()
            .map_err(Error::io("run", &qemu))?;
        let started = Self::follow(name, directory, profile, counted_clock, &mut child);
        if started.is_err() {
            // It may be hung as well as gone. Both calls fail only if it is gone.
            let _ = child.kill();
            let _ = child.wait();
        }
        started
    }

    fn follow(
        name: &str,
        directory: PathBuf,
        profile: &Profile,
        counted_clock: bool,
        child: &mut Child,
    ) -> Result<Self, Error> {
        let Some(process) = process::find(child.id()) else {
            let why = format!("QEMU ended at once: {}", tail(&directory.join(QEMU_LOG), 1));
            return Err(Error::VirtualRouter { name: name.to_owned(), why });
        };
        let state = State {
            profile: profile.name.clone(),
            goarch: profile.machine().goarch().to_owned(),
            counted_clock,
            ssh_port: 0,
            agent_port: 0,
            process,
        };
        let mut machine = Self { name: name.to_owned(), directory, state };
        machine.save()?;
        machine.learn_ports()?;
        machine.wait_until_ready(0)?;
        Ok(machine)
    }

    /// Asks QEMU at which ports it listens, and writes that down.
    fn learn_ports(&mut self) -> Result<(), Error> {
        let forwards = self.wait_for_monitor()?.forwards()?;
        let [ssh_port, agent_port] = PORTS
            .map(|guest| forwards.iter().find(|forward| forward.guest == guest).map(|forward| forward.host));
        let (Some(ssh_port), Some(agent_port)) = (ssh_port, agent_port) else {
            return Err(self.failure("QEMU does not say at which ports it listens".to_owned()));
        };
        self.state.ssh_port = ssh_port;
        self.state.agent_port = agent_port;
        self.save()
    }

    /// Connects to the monitor as soon as there is one.
    fn wait_for_monitor(&self) -> Result<Monitor, Error> {
        let deadline = Instant::now() + MONITOR_LIMIT;
        loop {
            match self.monitor() {
                Err(Error::Io { .. }) if self.is_running() && Instant::now() < deadline => {
                    thread::sleep(POLL)
                }
                Err(error) if self.is_running() => return Err(error),
                Err(_) => return Err(self.failure("QEMU ended".to_owned())),
                Ok(monitor) => return Ok(monitor),
            }
        }
    }

    /// Writes its file, whole or not at all.
    fn save(&self) -> Result<(), Error> {
        let path = self.directory.join(STATE);
        let text = toml::to_string(&self.state)
            .map_err(|source| Error::Malformed { path: path.clone(), source: source.into() })?;
        tempfile::NamedTempFile::new_in(&self.directory)
            .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()).map(|()| file))
            .and_then(|file| file.persist(&path).map_err(|error| error.error))
            .map(drop)
            .map_err(Error::io("write", &path))
    }

    /// What went wrong, with what QEMU and the console said last, in one line.
    fn failure(&self, why: String) -> Error {
        let logs = [("QEMU", QEMU_LOG, 1), ("its console", CONSOLE, CONSOLE_LINES)];
        let said = logs.map(|(who, log, lines)| (who, tail(&self.directory.join(log), lines)));
        let said = said.iter().filter(|(_, said)| !said.is_empty());
        let why = said.fold(why, |why, (who, said)| format!("{why}; {who} said last: {said}"));
        Error::VirtualRouter { name: self.name.clone(), why }
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

fn qemu(profile: &Profile) -> Result<PathBuf, Error> {
    program(&image::qemu(profile.machine()), "qemu-system-mips")
}

fn program(name: &str, package: &'static str) -> Result<PathBuf, Error> {
    process::in_path(name).ok_or_else(|| Error::NoProgram { name: name.to_owned(), package })
}

fn serial_socket(port: u8) -> String {
    format!("serial{port}.sock")
}

/// QEMU's command line. All paths but the kernel's are within its directory.
fn arguments(profile: &Profile, kernel: &Path, counted_clock: bool) -> Vec<OsString> {
    let forwards: String = PORTS.map(|port| format!(",hostfwd=tcp:127.0.0.1:0-{ADDRESS}:{port}")).concat();
    let network = format!("user,id={NETWORK},restrict=on,net=192.168.1.0/24,host=192.168.1.2{forwards}");
    let nic = match profile.nic {
        Nic::Virtio => "virtio-net-pci",
        Nic::Pcnet => "pcnet",
    };
    let nic = format!("{nic},netdev={NETWORK},romfile=,id=nic0");
    let base = match profile.clock {
        Clock::Now => "utc",
        Clock::Epoch => "1970-01-01T00:00:00",
    };
    let rtc = format!("base={base}{}", if counted_clock { ",clock=vm" } else { "" });
    // QEMU's flash is at 1e000000 on this board, and its first MiB is the boot loader's.
    let kernel_line =
        "console=ttyS0 mtdparts=1e000000.flash:1m(boot)ro,2944k(rootfs_data),128k(nvram) panic=1 quiet";
    let mut words = vec![OsString::from("-nodefaults"), "-kernel".into(), kernel.into()];
    let mut add = |option: &str, value: &str| words.extend([option, value].map(OsString::from));
    add("-M", "malta");
    add("-cpu", &profile.cpu);
    add("-m", &profile.ram_mib.to_string());
    add("-display", "none");
    add("-vga", "none");
    add("-rtc", &rtc);
    add("-initrd", INITRAMFS);
    add("-append", kernel_line);
    add("-drive", &format!("if=pflash,format=raw,file={FLASH}"));
    add("-netdev", &network);
    add("-device", &nic);
    if profile.entropy {
        add("-device", "virtio-rng-pci");
    }
    if let Some(disk) = &profile.disk {
        let limit =
            disk.bytes_per_second.map(|bytes| format!(",throttling.bps-total={bytes}")).unwrap_or_default();
        add("-drive", &format!("if=none,id=disk,format=raw,file={DISK}{limit}"));
        add("-device", "virtio-blk-pci,drive=disk");
    }
    add("-chardev", &format!("file,id=console,append=on,path={CONSOLE}"));
    add("-serial", "chardev:console");
    for port in [1, 2] {
        add("-chardev", &format!("socket,id=serial{port},server=on,wait=off,path={}", serial_socket(port)));
        add("-serial", &format!("chardev:serial{port}"));
    }
    add("-chardev", &format!("socket,id=monitor,server=on,wait=off,path={MONITOR}"));
    add("-mon", "chardev=monitor,mode=control");
    if counted_clock {
        add("-icount", "shift=1,align=on,sleep=on");
    }
    words
}

/// The last lines of a file that are not empty, as one. Nothing if it cannot be read.
fn tail(path: &Path, lines: usize) -> String {
    let mut end = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(CONSOLE_TAIL)))?;
        file.read_to_end(&mut end)
    });
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&end);
    let all: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join(" / ")
}
