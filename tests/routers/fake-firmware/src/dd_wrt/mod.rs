//! DD-WRT's init, where it differs from OpenWrt's: directories in RAM, users and ssh from nvram, the boot hooks.

pub mod nvram;

use std::collections::VecDeque;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::console::{log, report};
use crate::pid1::mounts;
use crate::pid1::spawn;
use nvram::Variables;

/// The search path of hooks.
pub const PATH: &str = "/sbin:/bin:/usr/sbin:/usr/bin:/jffs/sbin:/jffs/bin:/jffs/usr/sbin:/jffs/usr/bin:\
    /mmc/sbin:/mmc/bin:/mmc/usr/sbin:/mmc/usr/bin:/opt/bin:/opt/sbin:/opt/usr/bin:/opt/usr/sbin";

/// The library path of all that PID 1 starts.
const LIBRARY_PATH: &str =
    "/lib:/usr/lib:/jffs/lib:/jffs/usr/lib:/jffs/usr/local/lib:/mmc/lib:/mmc/usr/lib:/opt/lib:/opt/usr/lib";

/// Directories whose files with names that end in `.startup` run at boot, in this order; and K?? at shutdown.
const STARTUP: [&str; 7] = [
    "/etc/config",
    "/jffs/etc/config",
    "/mmc/etc/config",
    "/tmp/etc/config",
    "/usr/local/etc/config",
    "/sd/etc/config",
    "/opt/etc/init.d",
];
/// `admin`, the password of a router that has not been set up.
const PASSWORD: &str = "$1$virtual.$6oszXZm57dfjGSbh16fYY/";
const HOST_KEY: &str = "/tmp/root/.ssh/ssh_host_rsa_key";

/// Settings of /proc/sys/vm before a disk is mounted, unless an nvram variable `vm.NAME` overrides them: strict overcommit, with
/// which the kernel refuses memory to a program rather than kill it later.
const MEMORY_WITH_DISK: [(&str, &str); 4] = [
    ("overcommit_memory", "2"),
    ("overcommit_ratio", "80"),
    ("vfs_cache_pressure", "10000"),
    ("min_free_kbytes", "4096"),
];

type Script = Vec<String>;

/// Prepares the system, starts the ssh server, and returns the hooks, each of which init waits for.
pub fn prepare() -> VecDeque<Script> {
    for place in
        ["www", "nvram", "var", "services", "etc/config", "mnt", "lock", "log", "run", "tmp", "cron.d"]
    {
        mounts::make(&format!("/tmp/{place}"));
    }
    make_private("/tmp/root");
    make_private("/tmp/root/.ssh");
    if report("nvram", nvram::load()) == Some(true) {
        log("nvram is empty, using defaults");
    }
    let mut variables = nvram::read();
    mount_jffs(&mut variables);
    users(&variables);
    if variables.get("sshd_enable") != "0" {
        start_sshd(&mut variables);
    }
    hooks()
}

/// The hooks that run at boot, and when init gets SIGHUP, which the web interface sends after a change of settings.
pub fn hooks() -> VecDeque<Script> {
    let mut hooks: VecDeque<Script> = STARTUP
        .iter()
        .flat_map(|place| executables(Path::new(place), |name| name.ends_with(".startup")))
        .map(|path| vec![path])
        .collect();
    hooks.extend(nvram_script(&nvram::read(), "rc_startup"));
    hooks.extend(service_scripts('S', &["/opt/etc/init.d"]));
    hooks
}

/// The hooks that run at shutdown.
pub fn shutdown() -> VecDeque<Script> {
    let mut hooks: VecDeque<Script> = service_scripts('K', &STARTUP).into();
    hooks.extend(nvram_script(&nvram::read(), "rc_shutdown"));
    hooks
}

/// A command for a child of PID 1.
pub fn command(words: &[String]) -> Command {
    let mut command = spawn::command(words, PATH);
    command.env("LD_LIBRARY_PATH", LIBRARY_PATH);
    command
}

/// Changes the kernel's memory settings before the first mount of a disk.
pub fn prepare_for_disk() {
    let variables = nvram::read();
    for (name, usual) in MEMORY_WITH_DISK {
        let value = match variables.get(&format!("vm.{name}")) {
            "" => usual,
            value => value,
        };
        report(name, fs::write(format!("/proc/sys/vm/{name}"), value));
    }
}

fn make_private(place: &str) {
    mounts::make(place);
    report(place, fs::set_permissions(place, fs::Permissions::from_mode(0o700)));
}

fn write_private(path: &str, text: &[u8]) {
    report(path, fs::write(path, text));
    report(path, fs::set_permissions(path, fs::Permissions::from_mode(0o600)));
}

/// Mounts /jffs, if nvram enables it.
fn mount_jffs(variables: &mut Variables) {
    if variables.get("enable_jffs2") != "1" {
        return;
    }
    mounts::mount_flash("/jffs");
    if variables.get("clean_jffs2") == "1" {
        for entry in fs::read_dir("/jffs").into_iter().flatten().flatten() {
            let path = entry.path();
            report("/jffs", if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) });
        }
        variables.set("clean_jffs2", "0");
        report("nvram", nvram::commit(variables));
    }
    variables.set("jffs_mounted", "1");
    report("nvram", nvram::write(variables));
}

/// Writes the files to which /etc/passwd and other links of /etc lead.
fn users(variables: &Variables) {
    let password = match variables.get("http_passwd") {
        "" => PASSWORD,
        password => password,
    };
    let mut passwd = String::new();
    for (name, home, shell) in [("root", "/tmp/root", "/bin/sh"), ("reboot", "/tmp/root", "/sbin/reboot")] {
        let _ = writeln!(passwd, "{name}:{password}:0:0:Root User,,,:{home}:{shell}");
    }
    passwd.push_str("nobody:*:65534:65534:nobody,,,:/var:/bin/false\n");
    report("passwd", fs::write("/tmp/etc/passwd", passwd));
    report("hosts", fs::write("/tmp/etc/hosts", "127.0.0.1 localhost\n"));
    report("group", fs::write("/tmp/etc/group", "root:x:0:\nnobody:x:65534:\n"));
}

fn start_sshd(variables: &mut Variables) {
    match from_hex(variables.get("sshd_rsa_host_key")) {
        Some(key) if !key.is_empty() => write_private(HOST_KEY, &key),
        _ => make_host_key(variables),
    }
    let keys = variables.get("sshd_authorized_keys");
    if !keys.is_empty() {
        write_private("/tmp/root/.ssh/authorized_keys", format!("{keys}\n").as_bytes());
    }
    let port = match variables.get("sshd_port") {
        "" => "22",
        port => port,
    };
    let mut words = vec!["dropbear", "-r", HOST_KEY, "-p", port];
    if variables.get("sshd_passwd_auth") == "0" {
        words.push("-s");
    }
    if variables.get("sshd_forwarding") == "1" {
        words.push("-a");
    }
    let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    // dropbear daemonizes itself.
    report("dropbear", command(&words).status());
}

/// Makes an ssh host key, and saves it in nvram as hexadecimal digits: a key has zero bytes, a variable cannot.
fn make_host_key(variables: &mut Variables) {
    log("generated an ssh host key");
    let words = ["dropbearkey", "-t", "rsa", "-s", "2048", "-f", HOST_KEY].map(str::to_owned);
    let made = command(&words).stdout(std::process::Stdio::null()).status();
    if report("dropbearkey", made).is_some()
        && let Some(key) = report(HOST_KEY, fs::read(HOST_KEY))
    {
        variables.set("sshd_rsa_host_key", &to_hex(&key));
        report("nvram", nvram::write(variables).and_then(|()| nvram::commit(variables)));
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
    Some(digits?.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
}

/// Writes an nvram variable as a script: with a shebang, without carriage returns, only for root.
fn nvram_script(variables: &Variables, name: &str) -> Option<Script> {
    let text = variables.get(name);
    if text.is_empty() {
        return None;
    }
    let path = format!("/tmp/.{name}");
    report(&path, fs::write(&path, format!("#!/bin/sh\n{}\n", text.replace('\r', ""))));
    report(&path, fs::set_permissions(&path, fs::Permissions::from_mode(0o700)));
    Some(vec![path])
}

/// Scripts such as S95hopd. DD-WRT passes them no argument, neither start nor stop.
fn service_scripts(letter: char, places: &[&str]) -> Vec<Script> {
    let named = |name: &str| {
        name.starts_with(letter) && name.len() > 3 && name.bytes().skip(1).take(2).all(|c| c.is_ascii_digit())
    };
    let paths = places.iter().flat_map(|place| executables(Path::new(place), named));
    paths.map(|path| vec![path]).collect()
}

/// The executable files of a directory whose names match, in alphabetic order.
fn executables(directory: &Path, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let executable = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(&wanted)
            && path.metadata().is_ok_and(|of| of.is_file() && of.permissions().mode() & 0o111 != 0)
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).filter(executable).collect();
    paths.sort();
    paths.iter().map(|path| path.display().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_keys_survive_nvram() {
        let key = [0, 1, 0xff, b'\n'];
        assert_eq!(from_hex(&to_hex(&key)).as_deref(), Some(&key[..]));
        assert_eq!(from_hex("no key"), None);
    }
}
