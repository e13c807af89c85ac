//! What a program finds on the router, and which files are no programs for it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Behaviour;
use hop_tests::{Ran, Target, VirtualRouter, build_go, fixture};

pub const ALL: &[Behaviour] = &behaviours! {
    Everywhere:
        environment_merges_router_and_options,
        program_runs_as_named_user,
        other_users_program_dies_with_agent;
    Portable:
        arguments_arrive_unchanged,
        megabyte_of_environment_arrives,
        too_many_arguments_fail_locally,
        program_has_name_and_own_directory,
        program_may_change_its_own_file,
        socket_paths_have_room_for_names,
        home_is_that_of_passwd,
        program_may_have_any_name,
        two_jobs_share_one_program,
        unsuitable_file_exits_with_126,
        hard_float_or_dynamic_exits_with_126,
        cgo_needs_a_c_compiler;
};

fn zero_separated(ran: &Ran) -> Vec<&[u8]> {
    assert_eq!((ran.stderr(), ran.code), ("", 0));
    let mut parts: Vec<_> = ran.stdout.split(|byte| *byte == 0).collect();
    assert_eq!(parts.pop(), Some(&b""[..]));
    parts
}

fn arguments_arrive_unchanged(target: Target) {
    let router = VirtualRouter::start(target);
    let given: [&[u8]; 9] = [
        b"a",
        b"b c",
        b"",
        b"'\"$HOME`x`\\",
        b"two\nlines",
        b"--help",
        b"-r",
        b"\xff\xfe not UTF-8",
        b"\xf0\x9f\x90\x87",
    ];
    let ran = router.exec("arguments").args(given.map(OsStr::from_bytes)).run();
    assert_eq!(zero_separated(&ran), given);
    let many: Vec<String> = (0..10_000).map(|i| i.to_string()).collect();
    let ran = router.exec("arguments").args(&many).run();
    assert_eq!(zero_separated(&ran), many.iter().map(String::as_bytes).collect::<Vec<_>>());
    router.assert_serves_on();
}

fn environment_merges_router_and_options(target: Target) {
    let router = VirtualRouter::start(target);
    let ran = router
        .hop()
        .env("FROM_HERE", "here")
        .env("NOT_PASSED_ON", "here")
        .args([
            "exec",
            "--env",
            "FROM_HERE",
            "-e",
            "A=one",
            "--env",
            "A=two words\nand = a line",
            "-e",
            "EMPTY=",
        ])
        .arg("--env")
        .arg(OsStr::from_bytes(b"BYTES=\xff\xfe"))
        .arg(fixture(target, "environment"))
        .run();
    let variables = zero_separated(&ran);
    let expected: [&[u8]; 4] =
        [b"FROM_HERE=here", b"A=two words\nand = a line", b"EMPTY=", b"BYTES=\xff\xfe"];
    for variable in expected {
        assert!(variables.contains(&variable), "{}", variable.escape_ascii());
    }
    let names: Vec<_> = variables.iter().map(|v| v.split(|byte| *byte == b'=').next().unwrap()).collect();
    assert_eq!(names.len(), 10, "{}", ran.stdout.escape_ascii());
    for name in ["PATH", "HOME", "TMPDIR", "GOMEMLIMIT", "GOMAXPROCS", "HOP_JOB_DIR"] {
        assert!(names.contains(&name.as_bytes()), "{name}");
    }
    router.assert_serves_on();
}

fn megabyte_of_environment_arrives(target: Target) {
    let router = VirtualRouter::start(target);
    let value = "x".repeat(100_000);
    let mut hop = router.hop().arg("exec");
    for i in 0..10 {
        hop = hop.arg("--env").arg(format!("BIG{i}={value}"));
    }
    let ran = hop.arg(fixture(target, "environment")).run();
    let variables = zero_separated(&ran);
    for i in 0..10 {
        assert!(variables.contains(&format!("BIG{i}={value}").as_bytes()));
    }
    router.assert_serves_on();
}

fn too_many_arguments_fail_locally(target: Target) {
    let router = VirtualRouter::start(target);
    // The kernel would not give hop itself as much; but a value from its environment may be passed on many times.
    let many = ["-e", "BIG"].repeat(22);
    let program = fixture(target, "environment");
    let ran = router.hop().env("BIG", "x".repeat(100_000)).arg("exec").args(many).arg(program).run();
    ran.assert_fails(125, "2,097,152");
    router.assert_serves_on();
}

fn program_has_name_and_own_directory(target: Target) {
    let router = VirtualRouter::start(target);
    let mut directories = Vec::new();
    for _ in 0..2 {
        let ran = router.exec("surroundings").run();
        assert_eq!((ran.stderr(), ran.code), ("", 0));
        let said = |name: &str| {
            let line = ran.stdout().lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap().to_owned()
        };
        assert_eq!((said("name"), said("entries")), ("surroundings".to_owned(), "0".to_owned()));
        assert_eq!(said("directory"), said("TMPDIR"));
        assert!(said("directory").starts_with(router.ram().to_str().unwrap()), "{}", ran.stdout());
        directories.push(said("directory"));
    }
    assert_ne!(directories[0], directories[1]);
    router.assert_serves_on();
}

fn program_may_have_any_name(target: Target) {
    let router = VirtualRouter::start(target);
    // The first two are what the agent calls things of its own.
    for name in ["w", "bin", "two words", "-dash", "\u{1f407}"] {
        let program = router.path(name);
        fs::copy(fixture(target, "both-outputs"), &program).unwrap();
        let ran = router.hop().arg("exec").arg(&program).run();
        assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("out\n", "err\n", 7), "{name}");
    }
    router.assert_serves_on();
}

fn program_may_change_its_own_file(target: Target) {
    let router = VirtualRouter::start(target);
    let run = |what: &str| {
        let ran = router.exec("own-file").arg(what).run();
        assert_eq!((ran.stderr(), ran.code), ("", 7), "{what}");
        ran.stdout().to_owned()
    };
    assert_eq!(run("write"), "write text file busy\n");
    // Only root gives files away.
    let owner = run("owner");
    assert!(owner == "owner <nil>\n" || target.is_here(), "{owner}");
    let blobs = router.blobs();
    for what in ["mode", "link", "unlink", "mode"] {
        assert_eq!(run(what), format!("{what} <nil>\n"));
        assert_eq!(router.blobs(), blobs, "the program is still cached after {what}");
    }
    router.assert_serves_on();
}

fn socket_paths_have_room_for_names(target: Target) {
    let router = VirtualRouter::start(target);
    let ran = router.exec("surroundings").run();
    let line = ran.stdout().lines().find_map(|line| line.strip_prefix("TMPDIR "));
    let more = Path::new(line.unwrap()).strip_prefix(router.ram()).unwrap().as_os_str().len();
    // With `/hop/` in front, 12 bytes more than /tmp.
    assert!(more <= 7, "{}", ran.stdout());
    router.assert_serves_on();
}

fn home_is_that_of_passwd(target: Target) {
    let router = VirtualRouter::start(target);
    let ran = router.exec("identity").run();
    let said = |name: &str| {
        let line = ran.stdout().lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap().split(' ').next().unwrap().to_owned()
    };
    let passwd = match target.is_here() {
        true => fs::read_to_string("/etc/passwd").unwrap(),
        false => router.shell().sh("cat /etc/passwd"),
    };
    let users = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let home = users.into_iter().find(|user| user[2] == said("user")).unwrap()[5].to_owned();
    assert_eq!(said("home"), home);
    router.assert_serves_on();
}

fn two_jobs_share_one_program(target: Target) {
    let router = VirtualRouter::start(target);
    let mut running: Vec<_> = (0..2).map(|_| router.exec("dialogue").start()).collect();
    for hop in &mut running {
        assert_eq!(hop.line(), "ready\n");
    }
    for hop in running {
        let ran = hop.wait();
        assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("end of input\n", "", 0));
    }
    router.assert_serves_on();
}

fn unsuitable_file_exits_with_126(target: Target) {
    let router = VirtualRouter::start(target);
    let program = fs::read(fixture(target, "both-outputs")).unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = router.path(name);
        fs::write(&path, content).unwrap();
        path
    };
    let (wrong_arch, wrong_target) = match target.goarch() {
        "mips" => ("mipsle", "MIPS, 32 bits, little endian"),
        _ => ("mips", "MIPS, 32 bits, big endian"),
    };
    let other = router.path("other");
    build_go("./tests/fixtures/both-outputs", wrong_arch, &[("GOMIPS", "softfloat")], &other);
    for (path, why) in [
        (file("empty", b""), "the file is empty"),
        (file("script", b"#!/bin/sh\nexit 0\n"), "it is not an ELF file"),
        (file("truncated", &program[..program.len() / 2]), "the file is truncated or damaged"),
        (file("header", &program[..20]), "the file is truncated or damaged"),
        (router.path("missing"), "No such file or directory"),
        (router.path("home"), "Is a directory"),
        (other, wrong_target),
    ] {
        let ran = router.hop().arg("exec").arg(&path).run();
        ran.assert_fails(126, why);
    }
    router.assert_serves_on();
}

fn hard_float_or_dynamic_exits_with_126(target: Target) {
    if target.is_here() {
        // A machine of one's own has both.
        return;
    }
    let router = VirtualRouter::start(target);
    let hard = router.path("hard");
    build_go("./tests/fixtures/both-outputs", target.goarch(), &[("GOMIPS", "hardfloat")], &hard);
    router.hop().arg("exec").arg(&hard).run().assert_fails(126, "it uses an FPU, and the router has none");

    // A dynamic program differs from a static one by a segment: here the note segment is made to name an interpreter.
    let mut dynamic = fs::read(fixture(target, "both-outputs")).unwrap();
    make_dynamic(&mut dynamic);
    let path = router.path("dynamic");
    fs::write(&path, dynamic).unwrap();
    router.hop().arg("exec").arg(&path).run().assert_fails(126, "dynamically linked");
    router.assert_serves_on();
}

/// Turns the first PT_NOTE of a 32-bit program into a PT_INTERP (elf(5)).
fn make_dynamic(program: &mut [u8]) {
    let big = program[5] == 2;
    let read = |bytes: &[u8]| -> usize {
        let value = bytes.iter().fold(0, |value, byte| value << 8 | usize::from(*byte));
        let swapped = bytes.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte));
        if big { value } else { swapped }
    };
    let (offset, size, count) = (read(&program[28..32]), read(&program[42..44]), read(&program[44..46]));
    let at = (0..count).map(|i| offset + i * size).find(|at| read(&program[*at..at + 4]) == 4).unwrap();
    let interp: u32 = 3;
    program[at..at + 4].copy_from_slice(&if big { interp.to_be_bytes() } else { interp.to_le_bytes() });
}

fn program_runs_as_named_user(target: Target) {
    let router = VirtualRouter::start(target);
    let ram = router.ram();
    let args = [ram.clone(), ram.join("j"), ram.join("blobs")];
    let ran = router.exec_with(&["--user", "nobody"], "identity").args(&args).run();
    assert_eq!((ran.stderr(), ran.code), ("", 0));
    let said = ran.stdout();
    assert!(said.starts_with("user 65534 group 65534 groups [65534]\nhome /"), "{said}");
    assert!(said.contains("can write where it works: true\n"), "{said}");
    assert_eq!(said.matches(": false\n").count(), 3, "{said}");
    assert!(said.contains("CapBnd: 0000000000000000\n"), "no capability can come back: {said}");
    let limit = said.lines().find_map(|line| line.strip_prefix("Max processes ")).unwrap();
    let limits: Vec<u32> = limit.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(limits.len() == 2 && limits.iter().all(|limit| *limit >= 64), "{said}");
    let ran = router.exec_with(&["--user", "7:8"], "identity").run();
    assert!(ran.stdout().starts_with("user 7 group 8 groups [8]\n"), "{}", ran.stdout());
    let ran = router.exec_with(&["--user", "somebody"], "identity").run();
    ran.assert_fails(125, "router refused: there is no user somebody on this router");
    router.assert_serves_on();
}

fn other_users_program_dies_with_agent(target: Target) {
    let router = VirtualRouter::start(target);
    let mut running = router.exec_with(&["--user", "nobody", "--reconnect-timeout", "0"], "pid").start();
    let number = running.line().trim().to_owned();
    let program = router.watch(&number);
    router.signal_agent(rustix::process::Signal::KILL);
    running.wait().assert_fails(125, "the connection to router was lost");
    program.wait_until_gone();
}

/// A C compiler for the target's programs, as a user would name it.
fn c_compiler(goarch: &str) -> String {
    let cpu = match goarch {
        "mips" => "mips",
        "mipsle" => "mipsel",
        _ => return "cc".to_owned(),
    };
    let target = format!("cc -target {cpu}-linux-musleabi");
    if Command::new("zig").arg("version").output().is_ok() {
        return format!("zig {target}");
    }
    // Where `cargo xtask build` puts the one from PyPI.
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache =
        cache.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache")).join("hop");
    let places = fs::read_dir(&cache).unwrap().flatten().map(|entry| entry.path().join("bin/python"));
    let python = places.into_iter().find(|python| {
        let zig = Command::new(python).args(["-m", "ziglang", "version"]).output();
        zig.is_ok_and(|zig| zig.status.success())
    });
    format!("{} -m ziglang {target}", python.expect("zig is in the cache").display())
}

fn cgo_needs_a_c_compiler(target: Target) {
    let router = VirtualRouter::start(target);
    let package = "./tests/fixtures/with-c";
    let ran = router.hop().args(["run", "-r", "router", package]).run();
    assert_eq!(ran.code, 125);
    assert!(ran.stderr().contains("no C compiler for the router was given: "), "{}", ran.stderr());
    let ran = router.hop().args(["run", "-r", "router", "--cc", &c_compiler(target.goarch()), package]).run();
    assert_eq!((ran.stdout(), ran.code), ("42\n", 0), "{}", ran.stderr());
    // Linked statically also with -ldflags of the user's own.
    let words = ["run", "-r", "router", "--cc", &c_compiler(target.goarch()), "-ldflags", "-w", package];
    let ran = router.hop().args(words).run();
    assert_eq!((ran.stdout(), ran.code), ("42\n", 0), "{}", ran.stderr());
    router.assert_serves_on();
}
