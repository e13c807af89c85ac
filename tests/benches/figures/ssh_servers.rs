//! ssh servers on this machine, to which the user who runs the bench can log in: Debian's dropbear, one process for
//! each router, as there is one agent for each router.
//!
//! **Invariants:** the bench neither reads nor writes files of the user's own ssh. An ssh server looks for the
//! authorized keys in the home directory that the system's list of users names; so nss_wrapper gives it a list with a
//! user of another name, whose home is the bench's, and the bench rejects a server that has not loaded nss_wrapper. A
//! server listens on 127.0.0.1 only, accepts the bench's key only, and is killed when [`SshServers`] is dropped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{getgid, getuid};

/// Where Debian has it: not in the PATH of a user.
const DROPBEAR: &str = "/usr/sbin/dropbear";

/// Replaces the system's list of users. The dynamic linker finds it.
const WRAPPER: &str = "libnss_wrapper.so";

/// The user who can log in: the one who runs the bench, by another name.
const USER: &str = "bench";

/// The message that dropbear prints when it listens.
const READY: &str = "Not backgrounding";

/// State of a socket that listens, in /proc/net/tcp.
const LISTENS: &str = "0A";

/// Any number of servers, with one home, one key, and one user.
pub struct SshServers {
    home: PathBuf,
    servers: Vec<Server>,
}

struct Server {
    process: Child,
    /// dropbear logs each login to it, so it stays open.
    stderr: BufReader<ChildStderr>,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has exited. No client is logged in any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl SshServers {
    /// Starts them, with everything they need in `home`, which is made.
    pub fn start(home: PathBuf, count: usize) -> Self {
        let private = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path).unwrap();
        private(&home);
        private(&home.join(".ssh"));
        let key = |program: &str, words: &[&str], file: &str| {
            let made = Command::new(program).args(words).arg("-f").arg(home.join(file)).output().unwrap();
            assert!(made.status.success(), "{program}: {}", String::from_utf8_lossy(&made.stderr));
            String::from_utf8(made.stdout).unwrap()
        };
        key("ssh-keygen", &["-q", "-t", "ed25519", "-N", ""], "key");
        let authorized = home.join(".ssh/authorized_keys");
        fs::copy(home.join("key.pub"), &authorized).unwrap();
        fs::set_permissions(&authorized, fs::Permissions::from_mode(0o600)).unwrap();
        let said = key("dropbearkey", &["-t", "ed25519"], "host-key");
        let public = said.lines().find(|line| line.starts_with("ssh-ed25519 ")).unwrap();
        fs::write(home.join("known-hosts"), format!("{USER} {public}\n")).unwrap();
        let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
        fs::write(home.join("passwd"), format!("{USER}:x:{uid}:{gid}::{}:/bin/sh\n", home.display()))
            .unwrap();
        fs::write(home.join("group"), format!("{USER}:x:{gid}:\n")).unwrap();
        let servers = (0..count).map(|number| Server::start(&home, number)).collect();
        Self { home, servers }
    }

    /// What people do to run a program on a router, by one login: the program is on standard input, and goes into a
    /// directory of its own.
    pub fn run(&self, number: usize) -> Command {
        let mut ssh = Command::new("ssh");
        // No settings, keys or ssh-agent but those of the bench.
        ssh.args(["-F", "none", "-i"]).arg(self.home.join("key"));
        let known_hosts = format!("UserKnownHostsFile={}", self.home.join("known-hosts").display());
        let alias = format!("HostKeyAlias={USER}");
        for setting in [
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "GlobalKnownHostsFile=none",
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
            "LogLevel=ERROR",
            &alias,
            &known_hosts,
        ] {
            ssh.args(["-o", setting]);
        }
        ssh.args(["-p", &self.servers[number].port.to_string(), &format!("{USER}@127.0.0.1")]);
        ssh.arg(format!("cd {} && cat >f && chmod 755 f && ./f", directory(number)));
        ssh
    }
}

fn directory(number: usize) -> String {
    format!("router-{number}")
}

impl Server {
    fn start(home: &Path, number: usize) -> Self {
        let place = home.join(directory(number));
        fs::create_dir(&place).unwrap();
        let mut command = Command::new(DROPBEAR);
        // In the foreground, with its messages on standard error; no passwords; a port of the kernel's choice.
        command.args(["-F", "-E", "-s", "-p", "127.0.0.1:0", "-r"]).arg(home.join("host-key"));
        command.arg("-P").arg(place.join("pid"));
        command.env("LD_PRELOAD", WRAPPER);
        command.env("NSS_WRAPPER_PASSWD", home.join("passwd")).env("NSS_WRAPPER_GROUP", home.join("group"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap_or_else(|error| panic!("{DROPBEAR}: {error}"));
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let mut server = Self { process, stderr, port: 0 };
        let mut line = String::new();
        server.stderr.read_line(&mut line).unwrap();
        // If the dynamic linker does not find the wrapper, its warning is the first line, and dropbear runs without it.
        assert!(line.trim_end().ends_with(READY), "dropbear listens, by its own list of users: {line:?}");
        server.port = port(server.process.id());
        server
    }
}

/// The port on which a process listens. dropbear does not print the port that it got, but the kernel reports it.
fn port(process: u32) -> u16 {
    let sockets: Vec<_> = fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let of_line = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (_, port) = fields.get(1)?.split_once(':')?;
        let is_it = fields[3] == LISTENS && sockets.iter().any(|inode| inode == fields[9]);
        is_it.then(|| u16::from_str_radix(port, 16).unwrap())
    };
    table.lines().skip(1).find_map(of_line).expect("it listens")
}
