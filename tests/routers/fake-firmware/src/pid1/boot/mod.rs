//! PID 1 in its own root: it runs the boot scripts one after the other, supervises services, reaps children, logs, and shuts down.
//!
//! **Invariants:** one thread and one loop, which waits only for the next event; no error stops it.

mod clients;

use std::collections::VecDeque;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::{WaitOptions, wait};

use crate::console::{log, report};
use crate::dd_wrt;
use crate::openwrt::upgrade;
use crate::pid1::disk;
use crate::pid1::power::{self, End};
use crate::pid1::spawn;
use crate::procd::log::{DAEMON_INFO, Ring};
use crate::procd::supervisor::Supervisor;
use crate::procd::ubus::{self};
use crate::profile::{Flavour, Profile};
use clients::{Client, Stream};

/// The time limit of a script at shutdown, and then after SIGTERM.
const SHUTDOWN: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(10));
/// The interval of polling whether dropbear listens, after the scripts.
const LISTEN_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// After this time the router counts as booted without dropbear.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(120);
/// A script, with its arguments and its environment's search path.
type Script = Vec<String>;

/// Scripts that run one after the other.
#[derive(Default)]
struct Scripts {
    queue: VecDeque<Script>,
    running: Option<u32>,
    /// True at shutdown, when scripts have time limits.
    bounded: bool,
    term_at: Option<Instant>,
    kill_at: Option<Instant>,
}

/// The state of PID 1.
struct Router {
    profile: Profile,
    scripts: Scripts,
    supervisor: Supervisor,
    ring: Ring,
    ubus: Option<UnixListener>,
    syslog: Option<UnixDatagram>,
    clients: Vec<Client>,
    followers: Vec<UnixStream>,
    streams: Vec<Stream>,
    /// When to poll for dropbear next, and when to give up.
    listens: Option<(Instant, Instant)>,
    disk_at: Option<Instant>,
    /// The boot scripts have run.
    booted: bool,
    end: Option<End>,
    upgrade: bool,
}

/// Runs PID 1. It never returns.
pub fn run(profile: Profile) -> ExitCode {
    let dd_wrt = profile.flavour == Flavour::DdWrt;
    let signals = report("signals", spawn::watch_signals());
    network(&profile);
    let mut router = Router {
        scripts: Scripts::default(),
        supervisor: Supervisor::default(),
        ring: Ring::default(),
        ubus: None,
        syslog: None,
        clients: Vec::new(),
        followers: Vec::new(),
        streams: Vec::new(),
        listens: None,
        disk_at: None,
        booted: false,
        end: None,
        upgrade: false,
        profile,
    };
    if dd_wrt {
        router.scripts.queue = dd_wrt::prepare();
    } else {
        router.prepare_procd();
    }
    router.next_script();
    loop {
        router.turn(signals.as_ref());
    }
}

/// Sets the addresses, which is all of netifd.
fn network(profile: &Profile) {
    for words in
        [&["lo", "127.0.0.1", "up"][..], &["eth0", &profile.address, "netmask", "255.255.255.0", "up"]]
    {
        let words: Vec<String> = ["ifconfig"].iter().chain(words).map(|word| (*word).to_owned()).collect();
        report("network", spawn::command(&words, spawn::PATH).status());
    }
}

/// The scripts of /etc/rc.d that begin with a letter, in their order.
fn rc_scripts(letter: char, verb: &str) -> VecDeque<Script> {
    let mut names: Vec<String> = fs::read_dir("/etc/rc.d")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(letter))
        .collect();
    names.sort();
    names.into_iter().map(|name| vec![format!("/etc/rc.d/{name}"), verb.to_owned()]).collect()
}

impl Router {
    /// Prepares the system as procd does before the first script.
    fn prepare_procd(&mut self) {
        for place in ["/tmp/shm", "/tmp/run/ubus", "/tmp/lock", "/tmp/state"] {
            report(place, fs::create_dir_all(place));
        }
        let model = format!("{}\n", self.profile.model);
        report(
            "model",
            fs::create_dir_all("/tmp/sysinfo").and_then(|()| fs::write("/tmp/sysinfo/model", model)),
        );
        report("core pattern", fs::write("/proc/sys/kernel/core_pattern", "/tmp/%e.%t.%p.%s.core"));
        upgrade::restore(self.profile.flavour == Flavour::RutOs);
        self.ubus = report(ubus::SOCKET, UnixListener::bind(ubus::SOCKET));
        self.syslog = report("/dev/log", UnixDatagram::bind("/dev/log"));
        report("/dev/log", fs::set_permissions("/dev/log", fs::Permissions::from_mode(0o666)));
        if let Some(socket) = &self.ubus {
            report("ubus", socket.set_nonblocking(true));
        }
        if let Some(socket) = &self.syslog {
            report("log", socket.set_nonblocking(true));
        }
        self.scripts.queue = rc_scripts('S', "boot");
    }

    /// Waits for an event and does what follows from it.
    fn turn(&mut self, signals: Option<&OwnedFd>) {
        let now = Instant::now();
        let timeout = self.next().map(|at| at.saturating_duration_since(now) + Duration::from_millis(1));
        let mut waiting: Vec<RawFd> = [
            signals.map(AsRawFd::as_raw_fd),
            self.ubus.as_ref().map(AsRawFd::as_raw_fd),
            self.syslog.as_ref().map(AsRawFd::as_raw_fd),
        ]
        .into_iter()
        .flatten()
        .collect();
        waiting.extend(self.clients.iter().map(|client| client.stream.as_raw_fd()));
        waiting.extend(self.streams.iter().map(|stream| stream.output.file.as_raw_fd()));
        let ready = poll(&waiting, timeout);
        if ready {
            signals.into_iter().for_each(|signals| self.read_signals(signals));
            self.read_syslog();
            self.read_streams();
            self.accept();
            self.read_clients();
        }
        self.tick(Instant::now());
        let (outputs, events) = self.supervisor.take();
        for output in outputs {
            report("output", rustix::io::ioctl_fionbio(&output.file, true));
            self.streams.push(Stream { output, line: Vec::new() });
        }
        for event in events {
            log(&event);
            self.log(DAEMON_INFO, &format!("procd: {event}"));
        }
    }

    /// When something is due without any event.
    fn next(&self) -> Option<Instant> {
        [
            self.supervisor.next(),
            self.scripts.term_at,
            self.scripts.kill_at,
            self.listens.map(|(look, _)| look),
            self.disk_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn tick(&mut self, now: Instant) {
        let due = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        self.supervisor.tick(now);
        if due(self.scripts.term_at) {
            self.scripts.term_at = None;
            self.scripts.kill_at = Some(now + SHUTDOWN.1);
            spawn::signal(self.scripts.running.unwrap_or(0), libc::SIGTERM);
        }
        if due(self.scripts.kill_at) {
            self.scripts.kill_at = None;
            spawn::signal(self.scripts.running.unwrap_or(0), libc::SIGKILL);
        }
        if let Some((look, limit)) = self.listens
            && look <= now
        {
            self.listens = Some((now + LISTEN_POLL_INTERVAL, limit));
            if ssh_listens() {
                self.listens = None;
                log("ready");
            } else if limit <= now {
                self.listens = None;
                log("dropbear does not listen");
            }
        }
        if due(self.disk_at) {
            self.disk_at = None;
            if self.profile.flavour == Flavour::DdWrt {
                dd_wrt::prepare_for_disk();
            }
            self.profile.disk.iter().for_each(disk::attach);
        }
    }

    fn read_signals(&mut self, signals: &OwnedFd) {
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        while rustix::io::read(signals, &mut record).is_ok_and(|read| read == record.len()) {
            let number = u32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
            if let Some(end) = End::of_signal(number) {
                self.go_down(end);
            } else if number == libc::SIGHUP as u32 && self.end.is_none() {
                self.run_hooks_again();
            }
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
            let pid = pid.as_raw_nonzero().get() as u32;
            // What a service wrote just before its end is often lost: procd closes the pipe before it has read it.
            self.streams.retain(|stream| !stream.output.tag.ends_with(&format!("[{pid}]")));
            self.supervisor.ended(pid, code.unwrap_or(0), Instant::now());
            if self.scripts.running == Some(pid) {
                self.scripts.running = None;
                self.next_script();
            }
        }
    }

    /// Runs DD-WRT's hooks again after a change of settings. procd does nothing then.
    fn run_hooks_again(&mut self) {
        if self.profile.flavour != Flavour::DdWrt {
            return;
        }
        self.scripts.queue.extend(dd_wrt::hooks());
        if self.scripts.running.is_none() {
            self.next_script();
        }
    }

    /// Starts the next script; after the last one the router is booted, or goes down.
    fn next_script(&mut self) {
        (self.scripts.term_at, self.scripts.kill_at) = (None, None);
        while let Some(script) = self.scripts.queue.pop_front() {
            let name = script.first().map_or("", String::as_str);
            // DD-WRT's hooks fail in silence. What OpenWrt's say goes to the console.
            let mut command = match self.profile.flavour {
                Flavour::DdWrt => dd_wrt::command(&script),
                Flavour::OpenWrt | Flavour::RutOs => spawn::command(&script, spawn::PATH),
            };
            if let Some(child) = report(name, command.spawn()) {
                self.scripts.running = Some(child.id());
                self.scripts.term_at = self.scripts.bounded.then(|| Instant::now() + SHUTDOWN.0);
                return;
            }
        }
        if let Some(end) = self.end {
            power::finish(end, if self.upgrade { upgrade::wipe } else { || {} });
        }
        if self.booted {
            return;
        }
        self.booted = true;
        let now = Instant::now();
        self.listens = Some((now, now + LISTEN_TIMEOUT));
        self.disk_at = self.profile.disk.as_ref().map(|disk| now + disk.delay);
    }

    fn go_down(&mut self, end: End) {
        if self.end.is_some() {
            return;
        }
        self.end = Some(end);
        (self.listens, self.disk_at) = (None, None);
        self.supervisor.close();
        self.scripts.bounded = true;
        self.scripts.queue = match self.profile.flavour {
            // An upgrade ends everything at once, without the scripts.
            _ if self.upgrade => VecDeque::new(),
            Flavour::DdWrt => dd_wrt::shutdown(),
            _ => rc_scripts('K', "shutdown"),
        };
        match self.scripts.running {
            // A boot script that never ends does not hold up the end.
            Some(_) => self.scripts.term_at = Some(Instant::now()),
            None => self.next_script(),
        }
    }
}

/// Waits until one of these can be read, or for so long. (rustix cannot be asked: with musl on 32-bit MIPS it takes
/// `timespec` for larger than it is.)
fn poll(files: &[RawFd], timeout: Option<Duration>) -> bool {
    let mut files: Vec<libc::pollfd> =
        files.iter().map(|fd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 }).collect();
    let timeout =
        timeout.map_or(-1, |time| libc::c_int::try_from(time.as_millis()).unwrap_or(libc::c_int::MAX));
    // SAFETY: the array lives, and its length is its length.
    unsafe { libc::poll(files.as_mut_ptr(), files.len() as libc::nfds_t, timeout) > 0 }
}

/// True if something listens on TCP port 22.
fn ssh_listens() -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|table| {
        let table = fs::read_to_string(table).unwrap_or_default();
        table.lines().any(|line| {
            let mut words = line.split_whitespace().skip(1);
            words.next().is_some_and(|local| local.ends_with(":0016")) && words.nth(1) == Some("0A")
        })
    })
}
