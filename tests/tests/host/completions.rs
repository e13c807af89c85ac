//! `hop completions`: what a shell completes with its script. And `hop man-pages`.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use hop_tests::{dist, root, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use crate::desk::{Desk, is_empty};

/// What bash completes for these words with the script, in its own order; the last word is under the cursor.
fn completed(desk: &Desk, words: &[&str]) -> Vec<String> {
    let script = "source <(hop completions bash) && COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1)) && _hop 2>&1 && \
                  printf '%s\\n' \"${COMPREPLY[@]}\"";
    let path = std::env::join_paths(
        [dist("hop").parent().unwrap().to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", script, "bash"]).args(words).current_dir(root());
    bash.env("PATH", path.unwrap()).env("HOP_HOME", desk.home.path()).env_remove("HOP_ROUTER");
    let output = bash.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    // bash says that `compopt` is for its own completion, in which this is not.
    let lines = said.lines().filter(|line| !line.is_empty() && !line.contains("compopt:"));
    lines.map(str::to_owned).collect()
}

/// True if the shell is installed.
fn is_there(shell: &str) -> bool {
    Command::new(shell).arg("--version").output().is_ok()
}

#[test]
fn shells_accept_their_completion_scripts() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish"] {
        let ran = desk.run(&["completions", shell]);
        assert_eq!((ran.stderr(), ran.code), ("", 0));
        let script = desk.path(shell);
        fs::write(&script, ran.stdout()).unwrap();
        if is_there(shell) {
            let checked = Command::new(shell).arg("-n").arg(&script).output().unwrap();
            assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        }
    }
    assert!(is_there("bash"));
    let ran = desk.run(&["completions", "csh"]);
    assert!(ran.code == 125 && ran.stderr().contains("invalid value 'csh'"), "{}", ran.stderr());
}

#[test]
fn bash_completes_routers_jobs_and_packages() {
    let desk = Desk::new();
    assert_eq!(completed(&desk, &["hop", "run", "-r", ""]), [""; 0]);
    for arch in ["mips", "mipsle"] {
        assert_eq!(desk.run(&["virtual", "up", "--arch", arch]).code, 0);
    }
    let both = ["virtual-mips", "virtual-mipsle"];
    assert_eq!(completed(&desk, &["hop", "run", "-r", ""]), both);
    assert_eq!(completed(&desk, &["hop", "ps", "--router", "=", "virt"]), both);
    assert_eq!(completed(&desk, &["hop", "router", "info", "virtual-mipsl"]), both[1..]);
    assert_eq!(completed(&desk, &["hop", "virtual", "down", ""]), both);

    let packages = completed(&desk, &["hop", "run", "-r", "virtual-mips", "./examples/"]);
    assert_eq!(packages, ["./examples/hello", "./examples/server", "./examples/sysinfo"]);
    assert_eq!(completed(&desk, &["hop", "run", "-C", "examples", "./h"]), ["./hello"]);

    let ran = desk.run(&["run", "-r", "virtual-mips", "-d", "./tests/fixtures/wait"]);
    assert_eq!((ran.stderr(), ran.code), ("", 0));
    let job = ran.stdout().trim();
    for command in ["attach", "logs", "kill"] {
        assert_eq!(completed(&desk, &["hop", command, "-r", "virtual-mips", &job[..2]]), [job]);
        assert_eq!(completed(&desk, &["hop", command, "-r", "virtual-mipsle", ""]), [""; 0]);
    }
    assert_eq!(desk.run(&["kill", "-r", "virtual-mips", job]).code, 0);
}

#[test]
fn completion_starts_and_writes_nothing() {
    let desk = Desk::new();
    for line in
        [&["hop", "attach", ""][..], &["hop", "run", "-r", ""], &["hop", "virtual", "up", "--profile", ""]]
    {
        completed(&desk, line);
    }
    assert!(is_empty(desk.home.path()), "not even a key");
    assert_eq!(desk.run(&["virtual", "up"]).code, 0);
    let router = fs::read_to_string(desk.path("routers/virtual-mips.toml")).unwrap();
    let pid = router.lines().find_map(|line| line.strip_prefix("pid = ")).unwrap();
    kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    wait_until("it has stopped", || desk.list()[0]["running"] == false);
    assert_eq!(completed(&desk, &["hop", "attach", ""]), [""; 0]);
    assert_eq!(desk.list()[0]["running"], false);
    assert_eq!(fs::read_to_string(desk.path("routers/virtual-mips.toml")).unwrap(), router);
}

#[test]
fn completion_survives_silent_router_and_ssh() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["virtual", "up"]).code, 0);
    let entry = fs::read_to_string(desk.path("routers/virtual-mips.toml")).unwrap();
    let address = entry.lines().find(|line| line.starts_with("address")).unwrap();
    // It accepts, by its kernel, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let lines: Vec<_> = entry.lines().take_while(|line| !line.starts_with('[')).collect();
    let entry = format!("{}\n", lines.join("\n"));
    let silent_address = format!("address = \"{}\"", silent.local_addr().unwrap());
    fs::write(desk.path("routers/silent.toml"), entry.replace(address, &silent_address)).unwrap();
    assert_eq!(completed(&desk, &["hop", "logs", "-r", "silent", ""]), [""; 0]);
    assert!(silent.accept().is_ok(), "it was asked");

    let via_ssh = "[enrolment]\npersistence = \"install\"\nport = 4670\nvia_ssh = true\n[enrolment.ssh]\nhost = \"desk\"\n";
    fs::write(desk.path("routers/via-ssh.toml"), format!("{entry}{via_ssh}")).unwrap();
    let programs = desk.path("programs");
    fs::create_dir(&programs).unwrap();
    let (ssh, called) = (programs.join("ssh"), desk.path("called"));
    fs::write(&ssh, format!("#!/bin/sh\n: >{}\n", called.display())).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let complete = |words: &[&str]| desk.hop().first_in_path(&programs).args(words).run();
    let ran = complete(&["complete", "bash", "3", "--", "hop", "attach", "--router=via-ssh", ""]);
    assert_eq!((ran.stdout(), ran.stderr(), ran.code, called.exists()), ("", "", 0, false));
    // What would call it, were it to be called.
    assert_ne!(complete(&["ps", "-r", "via-ssh"]).code, 0);
    assert!(called.exists());
}

#[test]
fn every_command_has_man_page() {
    let desk = Desk::new();
    let directory = desk.path("man");
    fs::create_dir(&directory).unwrap();
    let ran = desk.run(&["man-pages", directory.to_str().unwrap()]);
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("", "", 0));
    let names = |directory: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let written = names(&directory);
    // The page of all commands has a heading for each.
    let commands = fs::read_to_string(root().join("docs/commands.md")).unwrap();
    let headings = commands.lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`'));
    let expected: BTreeSet<_> = headings.map(|name| format!("{}.1", name.replace(' ', "-"))).collect();
    assert_eq!(written, expected);
    let page = fs::read_to_string(directory.join("hop-run.1")).unwrap();
    assert!(page.contains(".TH HOP-RUN 1") && page.contains("keep\\-connection"), "{page}");
    desk.run(&["man-pages", "/nonexistent"]).assert_fails(125, "cannot write /nonexistent/hop");
}
