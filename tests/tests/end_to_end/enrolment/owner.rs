//! Somebody who owns a router and can log in to it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hop::config::inventory::{Inventory, Router};
use hop::virtual_router::profile::Profile;
use hop_tests::{Hop, Machine, Ran, Running, Shell, Target, fixture, wait_until};
use rustix::fs::{FileType, Mode, OFlags, mknodat};

/// Everything on a router but what the kernel shows. Directories below the overlay are left out: overlayfs keeps those in
/// which something was, and they cannot be seen from above. DD-WRT's find knows neither -path nor `!`, and its
/// nvram makes a lock when it is first asked.
const FILES: &str = "command -v nvram >/dev/null && nvram show 2>/dev/null
    for place in /*; do
        case $place in /proc | /sys | /dev) continue ;; esac
        for type in f l s p; do find $place -type $type || exit; done
        [ $place = /overlay ] || find $place -type d || exit
    done";

/// An owner, with a router of their own.
pub struct Owner {
    /// The router.
    pub machine: Machine,
    profile: &'static str,
    has_disk: bool,
    /// How much its console had printed before its last boot.
    booted_at: Cell<u64>,
    /// The login by which the test looks at the router. It takes a router half a second of its CPU.
    login: RefCell<Option<Shell>>,
}

/// What ssh exits with when the connection is gone.
const CONNECTION_LOST: i32 = 255;

impl Owner {
    /// Boots the router, without an agent, and waits until it has all that it will have.
    pub fn of(profile: &'static str) -> Self {
        let machine = Machine::boot(profile);
        let has_disk = Profile::load(&machine.home(), profile).unwrap().disk.is_some();
        let owner = Self { machine, profile, has_disk, booted_at: Cell::new(0), login: RefCell::default() };
        owner.wait_for_disk();
        owner
    }

    /// Reboots it; its disk, if it has one, comes later.
    pub fn reboot(&self) {
        self.booted_at.set(self.machine.machine().console_length().unwrap());
        self.machine.machine().reboot().unwrap();
    }

    /// Waits for its disk, if it has one.
    pub fn wait_for_disk(&self) {
        let says = |text| self.machine.machine().console_says(self.booted_at.get(), text).unwrap();
        wait_until("the disk is mounted", || !self.has_disk || says("virtual router: disk mounted"));
    }

    /// What `hop` takes for the login: destination, key, options.
    pub fn login(&self) -> Vec<OsString> {
        let machine = self.machine.machine();
        let mut words = vec![OsString::from(format!("root@127.0.0.1:{}", machine.ssh_port()))];
        words.extend(machine.ssh_options());
        words
    }

    /// `hop router add desk` with the login.
    pub fn adding(&self, words: &[&str]) -> Hop {
        self.machine.hop().args(["router", "add", "desk"]).args(self.login()).args(words)
    }

    /// The same with the address at which QEMU shows the agent.
    pub fn adding_at(&self, words: &[&str]) -> Hop {
        self.adding(words).args(["--agent-address", &self.machine.machine().agent_address()])
    }

    /// That, run to its end.
    pub fn add(&self, words: &[&str]) -> Ran {
        self.adding_at(words).run()
    }

    /// It is enrolled, and its programs run.
    #[track_caller]
    pub fn assert_added(&self, words: &[&str]) {
        let ran = self.add(words);
        assert_eq!(ran.code, 0, "{}", ran.stderr());
        assert!(ran.stdout().starts_with("desk enrolled at 127.0.0.1:"), "{}", ran.stdout());
        self.assert_runs(&self.machine.hop());
    }

    /// Runs `hop router WORD desk`.
    pub fn router(&self, word: &str) -> Ran {
        self.machine.hop().args(["router", word, "desk"]).run()
    }

    /// The entry of the router.
    pub fn entry(&self) -> Option<Router> {
        Inventory::new(&self.machine.home()).find("desk").unwrap()
    }

    /// Runs a program there.
    pub fn run(&self, hop: Hop) -> Ran {
        let goarch = if self.machine.goarch() == "mips" { "mips" } else { "mipsle" };
        let target = Target::Machine { profile: self.profile, goarch };
        hop.args(["exec", "-r", "desk"]).arg(fixture(target, "both-outputs")).run()
    }

    /// A program runs there.
    #[track_caller]
    pub fn assert_runs(&self, hop: &Hop) {
        let ran = self.run(hop.again());
        assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("out\n", "err\n", 7));
    }

    /// Asks until the agent answers.
    pub fn wait_for_agent(&self) {
        wait_until("the agent comes back", || {
            self.machine.hop().args(["info", "-r", "desk"]).run().code == 0
        });
    }

    /// Runs a script on the router, which must succeed.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        let mut login = self.login.borrow_mut();
        if let Some(shell) = &*login {
            let ran = shell.run(script);
            // The router was rebooted, and has not begun with this script.
            if ran.code != CONNECTION_LOST {
                assert_eq!(ran.code, 0, "{script}: {}", ran.stderr());
                return ran.stdout().to_owned();
            }
        }
        login.insert(self.machine.log_in()).sh(script)
    }

    /// Waits until nothing of an enrolment that was cut off is in /tmp any more.
    pub fn wait_until_undone(&self) {
        let shell = self.machine.log_in();
        wait_until("the router cleans up by itself", || !shell.holds("ls -d /tmp/hop-*"));
    }

    /// What is on the router.
    pub fn files(&self) -> BTreeSet<String> {
        self.sh(FILES).lines().map(str::to_owned).collect()
    }

    /// Nothing is on the router that was not there before, and nothing in the inventory.
    #[track_caller]
    pub fn assert_nothing_left(&self, before: &BTreeSet<String>) {
        self.wait_for_disk();
        let after = self.files();
        let new: Vec<_> = after.difference(before).collect();
        let gone: Vec<_> = before.difference(&after).collect();
        assert!(new.is_empty() && gone.is_empty(), "new: {new:?}; gone: {gone:?}");
        let running = self.sh("for p in /proc/[0-9]*; do cat $p/comm; done 2>/dev/null");
        assert!(!running.lines().any(|name| name == "hopd"), "{running}");
        assert_eq!(self.entry(), None);
    }
}

/// A step of `hop` that stops until something was done.
pub struct Interruption {
    directory: PathBuf,
}

impl Interruption {
    /// Prepares one in a directory of its own: an upload stops half way.
    pub fn new(machine: &Machine) -> Self {
        let interruption = Self::prepare(machine);
        let stop = interruption.stop();
        let what = format!("{{ head -c 700000; {stop}; cat; }} | $ssh \"$@\"; exit $?");
        put_in_front_of_ssh(&interruption.directory, UPLOAD, &what);
        interruption
    }

    /// Prepares one in a directory of its own: the first command that has `words` in it is not run before.
    pub fn before(machine: &Machine, words: &str) -> Self {
        let interruption = Self::prepare(machine);
        // In a process of its own, which is there to be told even if the one that waits for it was killed.
        let what = format!("[ -e '{}' ] || ({})", interruption.path("reached"), interruption.stop());
        put_in_front_of_ssh(&interruption.directory, words, &what);
        interruption
    }

    fn prepare(machine: &Machine) -> Self {
        let directory = machine.path("interruption");
        fs::create_dir(&directory).unwrap();
        mknodat(rustix::fs::CWD, directory.join("go"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        Self { directory }
    }

    /// What a shell does to stop.
    fn stop(&self) -> String {
        format!(": >'{}'; read go <'{}'", self.path("reached"), self.path("go"))
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Starts `hop`, does `action` when it has stopped, and lets it go on.
    pub fn during(&self, hop: Hop, action: impl FnOnce(&Running)) -> Running {
        let running = hop.first_in_path(&self.directory).start();
        wait_until("it has stopped", || self.directory.join("reached").exists());
        action(&running);
        // Such an open fails, and does not wait, until somebody reads.
        let mut open = OpenOptions::new();
        open.write(true).custom_flags(OFlags::NONBLOCK.bits().try_into().unwrap());
        wait_until("it goes on", || {
            open.open(self.directory.join("go")).is_ok_and(|mut go| go.write_all(b"\n").is_ok())
        });
        running
    }
}

/// What is in the command that receives an agent.
pub const UPLOAD: &str = "exec cat >/tmp/hop-";

/// Writes an `ssh` that does `what` first, or `exit`s in its place, when the command, or the script for `sh -s`, has `words` in it;
/// `$ssh` is the real one.
pub fn put_in_front_of_ssh(directory: &Path, words: &str, what: &str) {
    let path = std::env::var_os("PATH").unwrap();
    let real =
        std::env::split_paths(&path).map(|place| place.join("ssh")).find(|file| file.exists()).unwrap();
    let script = format!(
        "#!/bin/sh\nssh={}\nfor last; do :; done\ncase $last in\n*'{words}'*) {what} ;;\n'sh -s')\n\
         script='{}'.$$\ncat >$script\n! grep -qF '{words}' $script || {{ {what}; }}\nexec $ssh \"$@\" <$script\n;;\nesac\n\
         exec $ssh \"$@\"\n",
        real.display(),
        directory.join("script").display()
    );
    let wrapper = directory.join("ssh");
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
}
