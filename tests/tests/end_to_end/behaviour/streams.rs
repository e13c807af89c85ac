//! The program's three streams: every byte once, in order, when it is written, and no faster than it is read.

use std::io::Write;
use std::process::Command;

use super::Behaviour;
use hop_tests::{Target, VirtualRouter};

pub const ALL: &[Behaviour] = &behaviours! {
    Everywhere:
        stdout_and_stderr_arrive_separately;
    Portable:
        flood_on_both_outputs_loses_nothing,
        compressed_and_incompressible_output_arrive,
        streams_are_not_delayed,
        stdin_arrives_completely,
        unread_input_stays_in_its_file,
        unread_stdin_blocks_nothing,
        closed_output_is_sigpipe,
        slow_reader_gets_everything;
};

/// Bytes that look random, and hold everything that a terminal or a shell would change.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn stdout_and_stderr_arrive_separately(target: Target) {
    let router = VirtualRouter::start(target);
    let ran = router.exec("both-outputs").run();
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("out\n", "err\n", 7));
    router.assert_serves_on();
}

fn flood_on_both_outputs_loses_nothing(target: Target) {
    const LINES: usize = 100_000;
    let router = VirtualRouter::start(target);
    let ran = router.exec("flood").arg(LINES.to_string()).run();
    assert_eq!(ran.code, 0);
    for (name, content) in [("/dev/stdout", ran.stdout()), ("/dev/stderr", ran.stderr())] {
        assert_eq!(content.lines().count(), LINES, "{name}");
        for (i, line) in content.lines().enumerate() {
            assert_eq!(line, format!("{name} {i}"));
        }
    }
    router.assert_serves_on();
}

fn compressed_and_incompressible_output_arrive(target: Target) {
    let router = VirtualRouter::start(target);
    for name in ["log-lines", "noise"] {
        let local = Command::new(hop_tests::fixture(Target::Host, name)).arg("40").output().unwrap();
        let ran = router.exec(name).arg("40").run();
        assert_eq!((ran.code, ran.stdout.len()), (0, 40 << 16));
        assert!(ran.stdout == local.stdout, "{name}");
    }
    router.assert_serves_on();
}

fn streams_are_not_delayed(target: Target) {
    let router = VirtualRouter::start(target);
    let mut running = router.exec("dialogue").start();
    // No line below could be read if output waited for the program's end, or input for its own.
    assert_eq!(running.line(), "ready\n");
    let mut stdin = running.stdin.take().unwrap();
    for word in ["one", "two"] {
        writeln!(stdin, "{word}").unwrap();
        assert_eq!(running.line(), format!("you said {word}\n"));
    }
    drop(stdin);
    let ran = running.wait();
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("end of input\n", "", 0));
    router.assert_serves_on();
}

fn stdin_arrives_completely(target: Target) {
    let router = VirtualRouter::start(target);
    for length in [0, 1, 65_536, 1_000_003] {
        let content = noise(length);
        let ran = router.exec("echo-stdin").stdin(content.clone()).run();
        assert_eq!((ran.stderr(), ran.code), (&*format!("{length}\n"), 0));
        assert!(ran.stdout == content, "{length} bytes come back");
    }
    router.assert_serves_on();
}

fn unread_input_stays_in_its_file(target: Target) {
    let router = VirtualRouter::start(target);
    let file = router.path("input");
    // More than the window of standard input and a pipe together.
    let content: String = (0..40_000).map(|i| format!("line {i}\n")).collect();
    std::fs::write(&file, content).unwrap();
    let script = "{ \"$@\"; cat; } <\"$INPUT\"";
    for size in ["1", "4096"] {
        let program = hop_tests::fixture(Target::Host, "first-line");
        let local =
            Command::new("sh").args(["-c", script, "sh"]).arg(program).arg(size).env("INPUT", &file).output();
        let there = router.exec("first-line").arg(size).env("INPUT", &file).in_shell(script).run();
        assert_eq!((there.stderr(), there.code), ("", 0));
        assert!(there.stdout == local.unwrap().stdout, "{size}: {} bytes", there.stdout.len());
    }
    router.assert_serves_on();
}

fn unread_stdin_blocks_nothing(target: Target) {
    let router = VirtualRouter::start(target);
    let ran = router.exec("both-outputs").stdin(noise(4 << 20)).run();
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("out\n", "err\n", 7));
    // Its signals too get past the input that it does not take.
    let mut running = router.exec("signals").arg("1").start();
    assert_eq!(running.line(), "ready\n");
    let mut stdin = running.stdin.take().unwrap();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&noise(4 << 20))));
    running.signal(rustix::process::Signal::INT);
    assert_eq!(running.line(), "got interrupt\n");
    assert_eq!(running.wait().code, 3);
    writer.join().unwrap();
    router.assert_serves_on();
}

fn closed_output_is_sigpipe(target: Target) {
    let router = VirtualRouter::start(target);
    let mut running = router.exec("flood").arg("100000000").start();
    assert_eq!(running.line(), "/dev/stdout 0\n");
    running.close_stdout();
    // 128 + SIGPIPE, as `yes | head -1` has it in PIPESTATUS.
    assert_eq!(running.wait().code, 141);
    router.wait_until_idle();
    router.assert_serves_on();
}

fn slow_reader_gets_everything(target: Target) {
    const LINES: usize = 100_000;
    let router = VirtualRouter::start(target);
    let mut running = router.exec("flood").arg(LINES.to_string()).start();
    assert_eq!(running.line(), "/dev/stdout 0\n");
    // A whole other job goes through while nobody reads the first one's output.
    let other = router.exec("both-outputs").run();
    assert_eq!((other.stdout(), other.stderr(), other.code), ("out\n", "err\n", 7));
    assert_eq!(router.info()["jobs"], 1, "the first job still waits for its reader");
    let ran = running.wait();
    assert_eq!((ran.code, ran.stdout().lines().count(), ran.stderr().lines().count()), (0, LINES - 1, LINES));
    router.assert_serves_on();
}
