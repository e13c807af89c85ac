//! What a program finds on the router, and which files are no programs for it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use hop_tests::{Ran, VirtualRouter, build_go, fixture};

use crate::STAGE;

fn zero_separated(ran: &Ran) -> Vec<&[u8]> {
    assert_eq!((ran.stderr(), ran.code), ("", 0));
    let mut parts: Vec<_> = ran.stdout.split(|byte| *byte == 0).collect();
    assert_eq!(parts.pop(), Some(&b""[..]));
    parts
}

#[test]
fn arguments_arrive_as_they_were_given() {
    let router = VirtualRouter::start(STAGE);
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

#[test]
fn the_environment_is_the_routers_and_what_the_user_adds() {
    let router = VirtualRouter::start(STAGE);
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
        .arg(fixture(STAGE, "environment"))
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

#[test]
fn a_megabyte_of_environment_arrives() {
    let router = VirtualRouter::start(STAGE);
    let value = "x".repeat(100_000);
    let mut hop = router.hop().arg("exec");
    for i in 0..10 {
        hop = hop.arg("--env").arg(format!("BIG{i}={value}"));
    }
    let ran = hop.arg(fixture(STAGE, "environment")).run();
    let variables = zero_separated(&ran);
    for i in 0..10 {
        assert!(variables.contains(&format!("BIG{i}={value}").as_bytes()));
    }
    router.assert_serves_on();
}

#[test]
fn more_arguments_and_environment_than_a_message_holds_are_refused_here() {
    let router = VirtualRouter::start(STAGE);
    // The kernel would not give hop itself as much; but a value from its environment may be passed on many times.
    let many = ["-e", "BIG"].repeat(22);
    let program = fixture(STAGE, "environment");
    let ran = router.hop().env("BIG", "x".repeat(100_000)).arg("exec").args(many).arg(program).run();
    ran.assert_fails(125, "2,097,152");
    router.assert_serves_on();
}

#[test]
fn a_program_has_its_name_and_a_directory_of_its_own() {
    let router = VirtualRouter::start(STAGE);
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

#[test]
fn a_program_may_have_any_name() {
    let router = VirtualRouter::start(STAGE);
    // The first two are what the agent calls things of its own.
    for name in ["work", "bin", "two words", "-dash", "\u{1f407}"] {
        let program = router.path(name);
        fs::copy(fixture(STAGE, "both-outputs"), &program).unwrap();
        let ran = router.hop().arg("exec").arg(&program).run();
        assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("out\n", "err\n", 7), "{name}");
    }
    router.assert_serves_on();
}

#[test]
fn two_jobs_share_one_program_at_the_same_time() {
    let router = VirtualRouter::start(STAGE);
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

#[test]
fn a_file_that_is_no_program_for_this_router_is_refused_with_126() {
    let router = VirtualRouter::start(STAGE);
    let program = fs::read(fixture(STAGE, "both-outputs")).unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = router.path(name);
        fs::write(&path, content).unwrap();
        path
    };
    let (wrong_arch, wrong_target) = match STAGE.goarch() {
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

#[test]
fn a_program_that_wants_an_fpu_or_a_dynamic_linker_is_refused_with_126() {
    if STAGE.is_here() {
        // A machine of one's own has both.
        return;
    }
    let router = VirtualRouter::start(STAGE);
    let hard = router.path("hard");
    build_go("./tests/fixtures/both-outputs", STAGE.goarch(), &[("GOMIPS", "hardfloat")], &hard);
    router.hop().arg("exec").arg(&hard).run().assert_fails(126, "it uses an FPU, and the router has none");

    // A dynamic program differs from a static one by a segment: here the note segment is made to name an interpreter.
    let mut dynamic = fs::read(fixture(STAGE, "both-outputs")).unwrap();
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

#[test]
fn a_program_runs_as_the_user_that_is_named() {
    let router = VirtualRouter::start(STAGE);
    let ram = router.ram();
    let args = [ram.clone(), ram.join("jobs"), ram.join("blobs")];
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

#[test]
fn a_program_of_another_user_dies_with_its_agent() {
    let router = VirtualRouter::start(STAGE);
    let mut running = router.exec_with(&["--user", "nobody", "--reconnect-timeout", "0"], "pid").start();
    let number = running.line().trim().to_owned();
    let program = router.watch(&number);
    router.signal_agent(rustix::process::Signal::KILL);
    running.wait().assert_fails(125, "the connection to router was lost");
    program.wait_until_gone();
}

/// A C compiler for the stage's programs, as a user would name it.
fn c_compiler() -> String {
    let cpu = match STAGE.goarch() {
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

#[test]
fn a_program_with_parts_in_c_wants_a_compiler_and_runs_with_it() {
    let router = VirtualRouter::start(STAGE);
    let package = "./tests/fixtures/with-c";
    let ran = router.hop().args(["run", "-r", "router", package]).run();
    assert_eq!(ran.code, 125);
    assert!(ran.stderr().contains("no C compiler for the router was given: "), "{}", ran.stderr());
    let ran = router.hop().args(["run", "-r", "router", "--cc", &c_compiler(), package]).run();
    assert_eq!((ran.stdout(), ran.code), ("42\n", 0), "{}", ran.stderr());
    router.assert_serves_on();
}
