//! `hop` as it is typed: Go's flags and Go's errors, virtual routers, help.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use hop_tests::{Hop, Process, dist, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::desk::{Desk, is_empty};

#[test]
fn program_runs_on_both_endians() {
    let desk = Desk::new();
    for arch in ["mips", "mipsle"] {
        let ran = desk.run(&["virtual", "up", "--arch", arch]);
        assert_eq!((ran.stderr(), ran.code), ("", 0));
        let ran = desk.run(&["run", "-r", &format!("virtual-{arch}"), "./examples/hello", "a", "b c", ""]);
        let expected =
            format!("Hello from linux/{arch}!\nargument 1: \"a\"\nargument 2: \"b c\"\nargument 3: \"\"\n");
        assert_eq!((ran.stdout(), ran.stderr(), ran.code), (&*expected, "", 0));
        let ran = desk.run(&["run", "-r", &format!("virtual-{arch}"), "./examples/hello", "-exit", "42"]);
        assert_eq!((ran.stderr(), ran.code), ("exiting with 42\n", 42));
    }
}

#[test]
fn every_example_runs() {
    let desk = Desk::new();
    for arch in ["mips", "mipsle"] {
        assert_eq!(desk.run(&["virtual", "up", "--arch", arch]).code, 0);
        let ran = desk.run(&["run", "-r", &format!("virtual-{arch}"), "./examples/sysinfo"]);
        assert_eq!((ran.stderr(), ran.code), ("", 0));
        let said = ran.stdout();
        assert!(said.contains(&format!("linux/{arch}")) && said.contains("MiB available"), "{said}");
        assert!(said.lines().any(|line| line.starts_with("lo ")), "{said}");
    }

    let mut running = desk.hop().args(["run", "-r", "virtual-mips", "./examples/server"]).start();
    let line = running.line();
    let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
    let mut peer = std::net::TcpStream::connect(&address).unwrap();
    std::io::Write::write_all(&mut peer, b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut peer, &mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK") && answer.contains("Hello from "), "{answer}");
    assert!(running.line().starts_with("GET / from 127.0.0.1"));
    running.signal(rustix::process::Signal::INT);
    let ran = running.wait();
    assert_eq!((ran.stdout(), ran.code), ("stopping\n", 0), "{}", ran.stderr());
}

#[test]
fn missing_capability_sends_nothing() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["virtual", "up", "--arch", "mips"]).code, 0);
    // The core of the emulator would be none of the program's.
    let core = desk.path("core");
    let words = ["run", "--core", core.to_str().unwrap(), "./examples/hello"];
    desk.run(&words).assert_fails(125, "the agent of virtual-mips does not support --core");
    let words = ["run", "--artifact", "../x", "./examples/hello"];
    desk.run(&words)
        .assert_fails(125, "--artifact ../x: it must be below the directory in which the program starts");
    let words = ["run", "--detach", "--artifact", "x:y", "./examples/hello"];
    desk.run(&words).assert_fails(125, "with --detach, --artifact takes no LOCAL");
}

#[test]
fn nothing_enrolled_starts_nothing() {
    let desk = Desk::new();
    let source = desk.path("x.go");
    let written = desk.path("written");
    let program = "package main; import \"os\"; func main(){ os.WriteFile(os.Args[1], nil, 0o600) }";
    fs::write(&source, program).unwrap();
    let source = source.to_str().unwrap();
    let refused = |words: &[&str]| {
        let ran = desk.run(words);
        ran.assert_fails(125, "no router is enrolled");
        assert!(ran.stderr().contains("`hop virtual up` starts a virtual one"), "{}", ran.stderr());
    };
    let commands = [
        &["run", source, written.to_str().unwrap()][..],
        &["exec", "/bin/true"],
        &["info"],
        &["ps"],
        &["router", "check"],
    ];
    for words in commands {
        refused(words);
    }
    // The same after the only one has gone.
    assert_eq!(desk.run(&["virtual", "up"]).code, 0);
    assert_eq!(desk.run(&["virtual", "down"]).code, 0);
    for words in commands {
        refused(words);
    }
    assert_eq!(desk.list().as_array().unwrap().len(), 0);
    assert!(!written.exists());
}

#[test]
fn emulated_programs_see_nothing_of_this_machine() {
    let desk = Desk::new();
    let source = desk.path("x.go");
    fs::write(
        &source,
        r#"package main

import (
	"os"
	"strings"
)

func main() {
	names, _ := os.ReadDir("/")
	for _, name := range names {
		print(name.Name(), " ")
	}
	println(os.Getuid(), os.WriteFile(os.Args[1], nil, 0o600) == nil)
	_, err := os.Stat("/proc/" + os.Args[2])
	status, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(status), "CapEff:\t")
	_, noTerminal := os.Open("/dev/tty")
	println(err == nil, rest[:16], noTerminal != nil)
}
"#,
    )
    .unwrap();
    let written = desk.path("written");
    let own = std::process::id().to_string();
    let run = |arch: &str| {
        let router = format!("virtual-{arch}");
        let words = ["-r", &router, source.to_str().unwrap(), written.to_str().unwrap(), &own];
        let ran = desk.run(&[&["run"], &words[..]].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr());
        ran.stderr().to_owned()
    };
    let sandbox = |arch: &str| {
        let ran = desk.run(&["info", "--json", "-r", &format!("virtual-{arch}")]);
        let info: Value = serde_json::from_slice(&ran.stdout).unwrap();
        info["sandbox"].as_bool().unwrap()
    };
    for arch in ["mips", "mipsle"] {
        let up = desk.run(&["virtual", "up", "--arch", arch]);
        assert!(up.stdout().ends_with(", with this machine's network\n"), "{}", up.stdout());
        assert_eq!(run(arch), "dev etc proc root sys tmp usr 0 false\nfalse 0000000000000000 true\n");
        assert!(sandbox(arch) && !written.exists());
    }
    let up = desk.run(&["virtual", "up", "--no-sandbox"]);
    assert!(up.stdout().ends_with(", with this machine's network, files and processes\n"), "{}", up.stdout());
    assert!(run("mips").contains(" true\ntrue "));
    assert!(!sandbox("mips") && written.exists());
}

#[test]
fn missing_sandbox_starts_nothing() {
    let desk = Desk::new();
    let bin = desk.path("bin");
    fs::create_dir(&bin).unwrap();
    symlink("/usr/bin/qemu-mips-static", bin.join("qemu-mips-static")).unwrap();
    let up = |desk: &Desk| {
        let ran = desk.hop().env("PATH", &bin).args(["virtual", "up"]).run();
        assert!(ran.stderr().contains("\nhint: install the package bubblewrap, or run"), "{}", ran.stderr());
        ran
    };
    up(&desk).assert_fails(125, "programs would run on this machine with your rights and files");
    // It may fail before and after it has reported a process.
    for report in ["", "echo '{\"child-pid\": 999999999}' >/dev/fd/$2\n"] {
        let fails =
            format!("#!/bin/sh\n{report}echo 'bwrap: no permissions to create a namespace' >&2\nexit 1\n");
        fs::write(bin.join("bwrap"), fails).unwrap();
        fs::set_permissions(bin.join("bwrap"), fs::Permissions::from_mode(0o755)).unwrap();
        up(&desk).assert_fails(125, "bwrap: no permissions to create a namespace");
    }
    assert_eq!(desk.list().as_array().unwrap().len(), 0);
}

#[test]
fn virtual_router_starts_once() {
    let desk = Desk::new();
    let first = desk.run(&["virtual", "up", "--arch", "mips"]);
    assert!(first.stdout().starts_with("virtual-mips started at 127.0.0.1:"), "{}", first.stdout());
    let second = desk.run(&["virtual", "up", "--arch", "mips"]);
    assert!(second.stdout().starts_with("virtual-mips runs already at 127.0.0.1:"), "{}", second.stdout());
    assert_eq!(desk.list()[0]["running"], true);
    assert_eq!(desk.list().as_array().unwrap().len(), 1);

    // An agent of another hop is replaced.
    let agent = desk.path("virtual/virtual-mips/hopd");
    fs::remove_file(&agent).unwrap();
    fs::write(&agent, "an older one").unwrap();
    let updated = desk.run(&["virtual", "up", "--arch", "mips"]);
    assert!(updated.stdout().starts_with("virtual-mips started at 127.0.0.1:"), "{}", updated.stdout());
    assert_eq!(desk.run(&["info"]).code, 0);

    desk.run(&["virtual", "down", "nothing"]).assert_fails(125, "there is no router named nothing");
    let down = desk.run(&["virtual", "down", "virtual-mips"]);
    assert_eq!((down.stdout(), down.stderr(), down.code), ("virtual-mips stopped\n", "", 0));
    assert_eq!(desk.list().as_array().unwrap().len(), 0);
}

#[test]
fn two_hops_start_one_router() {
    let desk = Desk::new();
    let both: Vec<_> = (0..2).map(|_| desk.hop().args(["virtual", "up"]).start()).collect();
    let mut said: Vec<_> = both.into_iter().map(|hop| hop.wait().stdout().contains("started")).collect();
    said.sort();
    assert_eq!(said, [false, true]);
}

#[test]
fn half_started_router_is_killed() {
    for words in [&["virtual", "down"][..], &["virtual", "down", "virtual-mips"], &["virtual", "up"]] {
        let desk = Desk::new();
        let (bin, number) = (desk.path("bin"), desk.path("number"));
        fs::create_dir(&bin).unwrap();
        let qemu = bin.join("qemu-mips-static");
        fs::write(&qemu, format!("#!/bin/sh\necho $$ >'{}'\nexec sleep 1000\n", number.display())).unwrap();
        fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
        let starting = desk.hop().first_in_path(&bin).args(["virtual", "up", "--no-sandbox"]).start();
        let written = desk.path("virtual/virtual-mips/process.toml");
        let read = |file: &PathBuf| fs::read_to_string(file).unwrap_or_default();
        wait_until("it is written down", || {
            read(&written).contains("started") && read(&number).ends_with('\n')
        });
        let agent = Process::open(read(&number).trim().parse().unwrap());
        starting.signal(Signal::KILL);
        starting.wait();
        let ran = desk.run(words);
        assert!(ran.stdout().starts_with("virtual-mips ") && ran.code == 0, "{words:?}: {}", ran.stderr());
        agent.wait_until_gone();
    }
}

#[test]
fn virtual_router_replaces_no_real_one() {
    let desk = Desk::new();
    let real =
        format!("address = '127.0.0.1:1'\nfingerprint = 'SHA256:{}'\ngoarch = 'mips'\n", "ab".repeat(32));
    fs::create_dir(desk.path("routers")).unwrap();
    let file = desk.path("routers/virtual-mips.toml");
    fs::write(&file, &real).unwrap();
    desk.run(&["virtual", "up"]).assert_fails(125, "virtual-mips is the name of a router of another kind");
    assert_eq!(fs::read_to_string(&file).unwrap(), real);
}

#[test]
fn several_routers_need_a_name() {
    let desk = Desk::new();
    for arch in ["mips", "mipsle"] {
        assert_eq!(desk.run(&["virtual", "up", "--arch", arch]).code, 0);
    }
    desk.run(&["info"])
        .assert_fails(125, "several routers are enrolled, and none is named: virtual-mips, virtual-mipsle");
    let ran = desk.hop().env("HOP_ROUTER", "virtual-mipsle").args(["info", "--json"]).run();
    let info: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&info["router"], &info["goarch"]), (&"virtual-mipsle".into(), &"mipsle".into()));

    desk.run(&["virtual", "down"])
        .assert_fails(125, "several virtual routers run, and none is named: virtual-mips, virtual-mipsle");
    assert_eq!(desk.list().as_array().unwrap().len(), 2, "none was stopped");
}

#[test]
fn mistyped_router_is_corrected() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["virtual", "up"]).code, 0);
    let hint = |hop: Hop| {
        let ran = hop.run();
        ran.assert_fails(125, "there is no router named virtual-mps; enrolled: virtual-mips");
        ran.stderr().lines().last().unwrap().to_owned()
    };
    let mistyped = desk.hop().args(["exec", "-r", "virtual-mps", "./a program", "-x"]);
    assert_eq!(hint(mistyped), "hint: hop exec -r virtual-mips './a program' -x");
    assert_eq!(hint(desk.hop().args(["info", "virtual-mps"])), "hint: hop info virtual-mips");
    let by_environment = desk.hop().env("HOP_ROUTER", "virtual-mps").arg("ps");
    assert_eq!(hint(by_environment), "hint: HOP_ROUTER=virtual-mips hop ps");
}

#[test]
fn unreachable_router_has_its_commands() {
    let desk = Desk::new();
    // Nobody has port 1, so the router is off.
    let entry = format!(
        "address = '127.0.0.1:1'\nfingerprint = 'SHA256:{}'\ngoarch = 'mips'\n\n[enrolment]\npersistence = 'install'\n\
         port = 4671\n\n[enrolment.ssh]\nhost = 'admin@127.0.0.1'\nport = 1\nidentity = '/my key'\n",
        "ab".repeat(32)
    );
    fs::create_dir(desk.path("routers")).unwrap();
    fs::write(desk.path("routers/desk.toml"), entry).unwrap();
    let hint = |words: &[&str], said: &str| {
        let ran = desk.run(words);
        ran.assert_fails(125, said);
        ran.stderr().lines().last().unwrap().to_owned()
    };
    let unreachable = hint(&["ps", "desk"], "desk at 127.0.0.1:1 cannot be reached");
    let command = "hop router add desk admin@ADDRESS:1 -i '/my key' --port 4671";
    assert!(unreachable.ends_with(command), "{unreachable}");
    let removed =
        hint(&["router", "remove", "-r", "desk"], "ssh to admin@127.0.0.1 failed; so desk was not removed");
    let expected = "hint: does `ssh -p 1 -i '/my key' admin@127.0.0.1` log in? If the router is gone for good: \
                    hop router remove --forget desk";
    assert_eq!(removed, expected);
    let forgotten = desk.run(&["router", "remove", "--forget", "desk"]);
    assert_eq!((forgotten.stdout(), forgotten.code), ("desk forgotten; what is on it stays there\n", 0));
}

#[test]
fn default_router_yields_to_named_one() {
    let desk = Desk::new();
    desk.run(&["router", "use", "virtual-mips"]).assert_fails(125, "there is no router named virtual-mips");
    for arch in ["mips", "mipsle"] {
        assert_eq!(desk.run(&["virtual", "up", "--arch", arch]).code, 0);
    }
    let used = |hop: Hop| {
        let ran = hop.args(["info", "--json"]).run();
        let info: Value = serde_json::from_slice(&ran.stdout).unwrap();
        info["router"].as_str().unwrap().to_owned()
    };
    assert_eq!(desk.run(&["router", "use"]).stdout(), "no router is the default\n");
    assert_eq!(desk.run(&["router", "use", "virtual-mipsle"]).code, 0);
    assert_eq!(desk.run(&["router", "use"]).stdout(), "virtual-mipsle\n");
    assert_eq!(used(desk.hop()), "virtual-mipsle");
    assert_eq!(used(desk.hop().env("HOP_ROUTER", "virtual-mips")), "virtual-mips");
    let list = desk.run(&["router", "list"]);
    let marked = |line: &&str| line.contains(" * ");
    let lines: Vec<_> = list.stdout().lines().filter(marked).collect();
    assert!(lines.len() == 1 && lines[0].starts_with("virtual-mipsle * "), "{}", list.stdout());
    let list: Value = serde_json::from_slice(&desk.run(&["router", "list", "--json"]).stdout).unwrap();
    assert_eq!((&list[0]["default"], &list[1]["default"]), (&false.into(), &true.into()));

    assert_eq!(desk.run(&["router", "use", "--unset"]).code, 0);
    desk.run(&["info"]).assert_fails(125, "several routers are enrolled, and none is named");
    // The default goes with its router.
    assert_eq!(desk.run(&["router", "use", "virtual-mipsle"]).code, 0);
    assert_eq!(desk.run(&["virtual", "down", "virtual-mipsle"]).code, 0);
    assert_eq!(used(desk.hop()), "virtual-mips");
}

#[test]
fn compile_errors_are_gos_own() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["virtual", "up"]).code, 0);
    let ran = desk.run(&["run", "./tests/fixtures/does-not-compile"]);
    assert_eq!((ran.stdout(), ran.code), ("", 125));
    let expected = "# example.com/hop/tests/fixtures/does-not-compile\n\
                    tests/fixtures/does-not-compile/main.go:5:2: undefined: undefinedFunction\n\
                    error: the program was not built: go build failed: exit status: 1\n";
    assert_eq!(ran.stderr(), expected);

    let ran = desk.run(&["run", "./tests/fixtures/not-main"]);
    ran.assert_fails(125, "./tests/fixtures/not-main is not a main package");
    let ran = desk.run(&["run", "./no/such/package"]);
    assert_eq!(ran.code, 125);
    assert!(ran.stderr().contains("no/such/package"), "{}", ran.stderr());
}

#[test]
fn go_build_flags_are_passed_on() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["virtual", "up"]).code, 0);
    let source = desk.path("flags");
    fs::create_dir(&source).unwrap();
    let file = |name: &str, content: &str| fs::write(source.join(name), content).unwrap();
    file("go.mod", "module flags\n\ngo 1.24\n");
    file(
        "main.go",
        "package main\n\nvar Version, Tag = \"none\", \"none\"\n\nfunc main() { println(Version, Tag) }\n",
    );
    file("tagged.go", "//go:build tagged\n\npackage main\n\nfunc init() { Tag = \"tagged\" }\n");
    let directory = source.to_str().unwrap();
    let kept = desk.path("kept");
    let kept_name = kept.to_str().unwrap();
    let run = |words: &[&str]| {
        let ran = desk.run(&[&["run", "-C", directory], words].concat());
        (ran.stderr().to_owned(), ran.code)
    };
    assert_eq!(run(&["."]), ("none none\n".into(), 0));
    assert_eq!(run(&["-ldflags", "-X main.Version=1.2", "-tags=tagged", "."]), ("1.2 tagged\n".into(), 0));
    assert_eq!(run(&["-o", kept_name, "-trimpath=false", "."]), ("none none\n".into(), 0));
    let exec = desk.hop().arg("exec").arg(&kept).run();
    assert_eq!((exec.stderr(), exec.code), ("none none\n", 0));
    let bin = desk.path("bin");
    fs::create_dir(&bin).unwrap();
    assert_eq!(run(&["-o", bin.to_str().unwrap(), "."]), ("none none\n".into(), 0));
    assert!(bin.join("flags").exists());
    let by_environment =
        desk.hop().env("GOFLAGS", "-ldflags=-X=main.Version=3").args(["run", "-C", directory, "."]).run();
    assert_eq!((by_environment.stderr(), by_environment.code), ("3 none\n", 0));
    let (said, code) = run(&["./..", "x"]);
    assert_eq!(code, 125, "{said}");
    let (said, code) = run(&["-race", "."]);
    assert!(code == 125 && said.contains("-race"), "{said}");

    let built = desk.path("built");
    let ran = desk.run(&["build", "--arch", "mipsle", "-o", built.to_str().unwrap(), "-C", directory, "."]);
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("", "", 0));
    desk.hop()
        .arg("exec")
        .arg(&built)
        .run()
        .assert_fails(126, "little endian, and the router is MIPS, 32 bits, big endian");
}

#[test]
fn pattern_runs_its_only_program() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["virtual", "up"]).code, 0);
    let module = desk.path("module");
    let file = |name: &str, content: &str| {
        fs::create_dir_all(module.join(name).parent().unwrap()).unwrap();
        fs::write(module.join(name), content).unwrap();
    };
    file("go.mod", "module example.com/several\n\ngo 1.24\n");
    file("library/library.go", "package library\n");
    file("cmd/one/main.go", "package main\n\nfunc main() { println(\"one\") }\n");
    file("cmd/two/main.go", "//go:build second\n\npackage main\n\nfunc main() { println(\"two\") }\n");
    let run = |words: &[&str]| {
        let ran = desk.run(&[&["run", "-C", module.to_str().unwrap()], words].concat());
        (ran.stderr().to_owned(), ran.code)
    };
    assert_eq!(run(&["./..."]), ("one\n".into(), 0));
    let (said, code) = run(&["-tags", "second", "./...", "x"]);
    let several = "error: pattern ./... matches multiple packages: example.com/several/cmd/one, example.com/several/cmd/two\n";
    assert!(said.starts_with(several) && code == 125, "{said}");
    let (said, code) = run(&["./library/..."]);
    assert!(
        said.starts_with("error: no program matches the pattern ./library/...\n") && code == 125,
        "{said}"
    );
}

#[test]
fn missing_go_is_named() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["virtual", "up"]).code, 0);
    let ran = desk.hop().env("PATH", "/nonexistent").args(["run", "./examples/hello"]).run();
    ran.assert_fails(125, "there is no `go` in PATH");
    assert!(ran.stderr().contains("hint: install Go"), "{}", ran.stderr());
}

#[test]
fn broken_go_version_is_refused() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["virtual", "up"]).code, 0);
    let bin = desk.path("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("go"), "#!/bin/sh\necho go1.26.4\n").unwrap();
    fs::set_permissions(bin.join("go"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("/bin/sh", bin.join("sh")).unwrap();
    let ran = desk.hop().env("PATH", &bin).args(["run", "./examples/hello"]).run();
    ran.assert_fails(125, "go1.26.4 builds programs that crash on these routers");
}

#[test]
fn versioned_package_is_never_executed_here() {
    let desk = Desk::new();
    let bin = desk.path("bin");
    fs::create_dir(&bin).unwrap();
    // A Go that writes down how it is called, and does what its -exec asks for.
    let calls = desk.path("calls");
    let script = format!(
        "#!/bin/sh\n[ $1 = env ] && echo go1.27.0 && exit\necho \"$*\" >>'{}'\nfor last; do :; done\necho program >\"$last\"\n",
        calls.display()
    );
    fs::write(bin.join("go"), script).unwrap();
    fs::set_permissions(bin.join("go"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let package = "example.com/cmd/probe@v1.2.3";
    for words in [&["build", package][..], &["build", "-o", "other", package]] {
        let ran = desk.hop().env("PATH", &path).current_dir(&bin).args(words).run();
        assert_eq!((ran.stderr(), ran.code), ("", 0), "{words:?}");
    }
    assert!(bin.join("probe").exists() && bin.join("other").exists());
    for call in fs::read_to_string(&calls).unwrap().lines() {
        assert!(call.starts_with("run ") && call.contains(&format!(" -exec cp -- {package} /")), "{call}");
    }
}

/// Waits until somebody has written to a fifo.
fn wait_for_writer(fifo: &std::path::Path) {
    let (written, wait) = std::sync::mpsc::channel();
    let fifo = fifo.to_owned();
    std::thread::spawn(move || written.send(fs::read(fifo)));
    wait.recv_timeout(hop_tests::TIMEOUT).unwrap().unwrap();
}

#[test]
fn interrupted_build_cleans_up() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["virtual", "up"]).code, 0);
    let bin = desk.path("bin");
    fs::create_dir(&bin).unwrap();
    // A Go that says by a pipe that it builds, and by another that it was interrupted.
    let (builds, interrupted) = (desk.path("builds"), desk.path("interrupted"));
    for fifo in [&builds, &interrupted] {
        assert!(std::process::Command::new("mkfifo").arg(fifo).status().unwrap().success());
    }
    let script = format!(
        "#!/bin/sh\n[ $1 = env ] && echo go1.27.0 && exit\ntrap 'kill $!; echo >{}; exit 1' INT\nsleep 1000 &\necho >{}\nwait\n",
        interrupted.display(),
        builds.display()
    );
    fs::write(bin.join("go"), script).unwrap();
    fs::set_permissions(bin.join("go"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let running = desk.hop().env("PATH", path).args(["run", "./examples/hello"]).start();
    wait_for_writer(&builds);
    running.signal(rustix::process::Signal::TERM);
    wait_for_writer(&interrupted);
    assert_eq!(running.wait_unread().code, 143);
}

#[test]
fn missing_qemu_is_named() {
    let desk = Desk::new();
    let ran = desk.hop().env("PATH", "/nonexistent").args(["virtual", "up"]).run();
    ran.assert_fails(125, "there is no qemu-mips in PATH");
    assert!(ran.stderr().contains("hint: install the package qemu-user-static"), "{}", ran.stderr());
}

#[test]
fn missing_image_leaves_no_files() {
    let desk = Desk::new();
    let nothing = desk.path("nothing");
    let fails = |words: &[&str], path: Option<&str>, text: &str, hint: &str| {
        let mut hop = desk.hop();
        if let Some(path) = path {
            hop = hop.env("PATH", path);
        }
        let ran = hop.env("HOP_VIRTUAL_ROUTERS", &nothing).args(words).run();
        ran.assert_fails(125, text);
        assert!(ran.stderr().contains(hint), "{}", ran.stderr());
    };
    let up = ["virtual", "up", "--profile", "dir-505"];
    let known =
        "there is no profile named dir-506; there are: archer-a6, dir-505, f7d7302, fritzbox-7362sl, rut955";
    fails(&["virtual", "up", "--profile", "dir-506"], None, known, "profiles\n");
    fails(
        &up,
        Some("/nonexistent"),
        "there is no qemu-system-mips in PATH",
        "install the package qemu-system-mips",
    );
    // What QEMU is, does not matter yet.
    let bin = desk.path("bin");
    fs::create_dir(&bin).unwrap();
    symlink("/bin/false", bin.join("qemu-system-mips")).unwrap();
    let kernel = format!("there is no {}", nothing.join("kernel-mips").display());
    fails(&up, bin.to_str(), &kernel, "hint: run `cargo xtask virtual-routers` in a checkout of Hop");
    for command in ["ssh", "console", "reboot"] {
        let text = "there is no virtual router named dir-505 with a profile; there are: none";
        fails(&["virtual", command, "dir-505"], None, text, "`hop virtual up --profile PROFILE` starts one");
    }
    fs::create_dir(desk.path("profiles")).unwrap();
    fs::write(desk.path("profiles/desk.toml"), "ram = 64").unwrap();
    fails(
        &["virtual", "up", "--profile", "desk"],
        None,
        "profiles/desk.toml cannot be read",
        "unknown field `ram`",
    );
    assert_eq!(desk.list().as_array().unwrap().len(), 0);
}

#[test]
fn unusable_options_are_refused_first() {
    let desk = Desk::new();
    for (words, text) in [
        (&["run", "--status-file", "/nonexistent/status", "."][..], "cannot write /nonexistent/status"),
        (&["run", "--env", "=1", "."], "--env =1 has no name"),
    ] {
        desk.run(words).assert_fails(125, text);
    }
    for words in [&["run"][..], &["run", "-frobnicate", "."], &["exec"], &["run", "--timeout", "soon", "."]] {
        let ran = desk.run(words);
        assert_eq!((ran.stdout(), ran.code), ("", 125), "{words:?}");
        assert!(ran.stderr().starts_with("error: "), "{}", ran.stderr());
    }
    assert_eq!(desk.list().as_array().unwrap().len(), 0, "no router was started for them");
}

/// The command line of a program for a router's CPU on this machine.
fn emulated(qemu: &str, program: &Path) -> std::process::Command {
    let static_name = format!("{qemu}-static");
    let exists =
        std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|d| d.join(&static_name).exists());
    let mut command = std::process::Command::new(if exists { &static_name } else { qemu });
    command.arg(program);
    command
}

#[test]
fn embedded_agents_pass_self_test() {
    for (agent, qemu) in
        [("hopd-host", None), ("hopd-mips", Some("qemu-mips")), ("hopd-mipsel", Some("qemu-mipsel"))]
    {
        let agent = dist(agent);
        let mut command =
            qemu.map_or_else(|| std::process::Command::new(&agent), |qemu| emulated(qemu, &agent));
        let directory = TempDir::new().unwrap();
        let output = command.arg("--self-test").arg("--dir").arg(directory.path()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && said.ends_with("12 of 12 checks passed\n"), "{command:?}: {said}");
        assert!(is_empty(directory.path()), "nothing is left");
    }
}

#[test]
fn cipher_passes_wycheproof_on_mips() {
    for cpu in ["mips", "mipsel"] {
        let program = dist(&format!("hop-vectors-{cpu}"));
        let output = emulated(&format!("qemu-{cpu}"), &program).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let passed: u32 = said.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0);
        assert!(output.status.success() && passed > 300, "{cpu}: {said}");
    }
}

/// Help that cannot be written is a panic of the standard library's.
#[test]
fn mips_panic_prints_message_and_location() {
    for cpu in ["mips", "mipsel"] {
        let mut command = emulated(&format!("qemu-{cpu}"), &dist(&format!("hopd-{cpu}")));
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = command.arg("--help").stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.signal(), Some(Signal::ABORT.as_raw()), "{said}");
        let place = "error: panicked at library/std/src/io/stdio.rs:";
        let why = "failed printing to stdout: No space left on device (os error 28)";
        assert!(said.lines().any(|line| line.starts_with(place) && line.ends_with(why)), "{said}");
    }
}
