//! QEMU for a machine: its command line, its start, and the ports that it listens on.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Error;
use super::console::tail;
use super::image::{self, Artifacts};
use super::machine::{
    AGENT_PORT, CONSOLE, DISK, FLASH, INITRAMFS, KEY, MONITOR, Machine, POLL_INTERVAL, QEMU_LOG, State,
};
use super::monitor::{Monitor, NETWORK};
use super::process;
use super::profile::{ADDRESS, Clock, Nic, Profile};
use crate::config::home::make_private;

/// Time for QEMU to open its monitor.
const MONITOR_TIMEOUT: Duration = Duration::from_secs(10);

/// The port of dropbear, and that of the agent.
pub(super) const PORTS: [u16; 2] = [22, AGENT_PORT];

impl Machine {
    /// Makes the files that last until it is taken down: its flash, its disk, its key.
    pub(super) fn prepare(directory: &Path, name: &str, profile: &Profile) -> Result<(), Error> {
        // Reports a tool or file that this machine lacks before it makes anything.
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

    /// Starts QEMU on the files in `directory`, and waits until the guest has booted. If that fails, kills QEMU and
    /// keeps the directory.
    pub(super) fn start(
        name: &str,
        directory: PathBuf,
        profile: &Profile,
        counted_clock: bool,
    ) -> Result<Self, Error> {
        let artifacts = Artifacts::from_environment()?;
        let public = directory.join(KEY).with_extension("pub");
        let key = fs::read_to_string(&public).map_err(Error::io("read", &public))?;
        let initramfs = directory.join(INITRAMFS);
        image::write_initramfs(&initramfs, &artifacts.root(profile)?, profile, key.trim())?;
        // The files of the previous QEMU. One that cannot be removed shows as an error when it is made again.
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
            // QEMU outlives this `hop`, and a Ctrl-C that is meant for it.
            .process_group(0)
            .spawn()
            .map_err(Error::io("run", &qemu))?;
        let started = Self::follow(name, directory, profile, counted_clock, &mut child);
        if started.is_err() {
            // QEMU may hang, or may have exited. Both calls fail only if it has exited.
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
            let why = format!("QEMU exited at once: {}", tail(&directory.join(QEMU_LOG), 1));
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
    pub(super) fn learn_ports(&mut self) -> Result<(), Error> {
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
        let deadline = Instant::now() + MONITOR_TIMEOUT;
        loop {
            match self.monitor() {
                Err(Error::Io { .. }) if self.is_running() && Instant::now() < deadline => {
                    thread::sleep(POLL_INTERVAL)
                }
                Err(error) if self.is_running() => return Err(error),
                Err(_) => return Err(self.failure("QEMU exited".to_owned())),
                Ok(monitor) => return Ok(monitor),
            }
        }
    }
}

pub(super) fn qemu(profile: &Profile) -> Result<PathBuf, Error> {
    program(&image::qemu(profile.machine()), "qemu-system-mips")
}

pub(super) fn program(name: &str, package: &'static str) -> Result<PathBuf, Error> {
    process::in_path(name).ok_or_else(|| Error::NoProgram { name: name.to_owned(), package })
}

pub(super) fn serial_socket(port: u8) -> String {
    format!("serial{port}.sock")
}

/// QEMU's command line. All paths but the kernel's are within its directory.
pub(super) fn arguments(profile: &Profile, kernel: &Path, counted_clock: bool) -> Vec<OsString> {
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
