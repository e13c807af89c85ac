//! The three standard streams of `hop` itself: they work in any mode, and while other processes share them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::process::Stdio;
use std::thread;

use hop_tests::{Target, VirtualRouter, set_nonblocking, wait_for_exit, wait_until};
use rustix::io::ioctl_fionread;

/// Bytes that a pipe holds (pipe(7)).
const PIPE_BYTES: u64 = 64 * 1024;

#[test]
fn nonblocking_input_is_waited_for() {
    let router = VirtualRouter::start(Target::Host);
    let (stdin, mut typed) = pipe().unwrap();
    let (said, stdout) = pipe().unwrap();
    // As node and bun hand their pipes on: the flag is a matter of the pipe, not of the process.
    set_nonblocking(&stdin);
    let hop = router.exec("dialogue").spawn([stdin.into(), stdout.into(), Stdio::inherit()]);
    let mut said = BufReader::new(said);
    let mut line = |expected: &str| {
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, expected);
    };
    // By now it was read from, when there was nothing to read.
    line("ready\n");
    for word in ["one", "two"] {
        writeln!(typed, "{word}").unwrap();
        line(&format!("you said {word}\n"));
    }
    drop(typed);
    line("end of input\n");
    assert_eq!(wait_for_exit(hop), Some(0));
}

#[test]
fn full_nonblocking_outputs_lose_nothing() {
    const LINES: usize = 20_000;
    let router = VirtualRouter::start(Target::Host);
    let [(out, stdout), (err, stderr)] = [pipe().unwrap(), pipe().unwrap()];
    set_nonblocking(&stdout);
    set_nonblocking(&stderr);
    let streams = [Stdio::null(), stdout.into(), stderr.into()];
    let hop = router.exec("flood").arg(LINES.to_string()).spawn(streams);
    wait_until("a pipe is full", || {
        ioctl_fionread(&out).unwrap().max(ioctl_fionread(&err).unwrap()) == PIPE_BYTES
    });
    let read = |mut from: std::io::PipeReader| {
        thread::spawn(move || {
            let mut text = String::new();
            from.read_to_string(&mut text).unwrap();
            text
        })
    };
    for (name, text) in [("/dev/stdout", read(out)), ("/dev/stderr", read(err))] {
        let expected: String = (0..LINES).map(|i| format!("{name} {i}\n")).collect();
        assert!(text.join().unwrap() == expected, "{name}");
    }
    assert_eq!(wait_for_exit(hop), Some(0));
}

#[test]
fn nonblocking_terminal_loses_nothing() {
    let router = VirtualRouter::start(Target::Host);
    let mut terminal = router.exec("dialogue").start_in_terminal([24, 80]);
    terminal.set_nonblocking();
    terminal.shows("ready\r\n");
    for _ in 0..2 {
        terminal.type_in("hello\r");
        terminal.shows("you said hello\r\n");
    }
    terminal.type_in("\x04");
    terminal.shows("end of input\r\n");
    assert_eq!(terminal.wait(), Some(0));
}

#[test]
fn unusable_streams_are_hops_failure() {
    let router = VirtualRouter::start(Target::Host);
    let directory = router.path("directory");
    fs::create_dir(&directory).unwrap();
    let run = |script: &str, program: &str| {
        let hop = router.exec(program).arg("1000").env("DIRECTORY", &directory);
        let ran = hop.in_shell(script).run();
        assert_eq!(ran.code, 125, "{script}: {}", ran.stderr());
        ran.stderr().to_owned()
    };
    // `flood` writes on standard error too, and its last line may be cut.
    let stderr = run("exec \"$@\" <\"$DIRECTORY\"", "wait");
    assert_eq!(stderr, "error: cannot read standard input\ncaused by: Is a directory (os error 21)\n");
    let stderr = run("exec \"$@\" >/dev/full", "flood");
    let expected = "error: cannot write standard output\ncaused by: No space left on device (os error 28)\n";
    assert!(stderr.ends_with(expected), "{stderr}");
    let stderr = run("exec \"$@\" 1</dev/null", "flood");
    let expected = "error: cannot write standard output\ncaused by: Bad file descriptor (os error 9)\n";
    assert!(stderr.ends_with(expected), "{stderr}");
    router.wait_until_idle();
}

#[test]
fn no_stdin_leaves_loop_input_alone() {
    let router = VirtualRouter::start(Target::Host);
    // All of it is there from the start: what comes later, a `hop` may have ended before.
    let script = "printf '1\\n2\\n3\\n' | while read x; do \"$@\"; done";
    for (options, runs) in [(&["-n"][..], 3), (&[], 1)] {
        let ran = router.exec_with(options, "both-outputs").in_shell(script).run();
        assert_eq!((ran.stdout(), ran.code), (&*"out\n".repeat(runs), 7), "{options:?}");
    }
    // The program reads the end of file at once.
    let ran = router.exec_with(&["--no-stdin"], "echo-stdin").stdin("for somebody else").run();
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("", "0\n", 0));
}

#[test]
fn attach_without_stdin_leaves_it_open() {
    let router = VirtualRouter::start(Target::Host);
    let mut first = router.exec("dialogue").start();
    assert_eq!(first.line(), "ready\n");
    let ran = router.hop().args(["ps", "-r", "router", "--json"]).run();
    let jobs: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let attach = |options: &[&str]| {
        let hop = router.hop().args(["attach", "-r", "router"]).args(options);
        hop.arg(jobs[0]["job"].as_str().unwrap())
    };
    let mut second = attach(&["-n"]).start();
    assert_eq!(second.line(), "ready\n");
    // If this were read, or its end were told, the next one could not be the program's input.
    writeln!(second.stdin.take().unwrap(), "not this").unwrap();
    let third = attach(&[]).stdin("hello\n").run();
    assert_eq!((third.stdout(), third.code), ("ready\nyou said hello\nend of input\n", 0));
    for taken_over in [first, second] {
        taken_over.wait().assert_fails(125, "another connection has the job now");
    }
}

#[test]
fn background_job_leaves_the_terminal_alone() {
    let router = VirtualRouter::start(Target::Host);
    let shell = "set -m
        echo 'the job is stopped by its first key'
        \"$@\"
        bg; read line; echo \"shell: $line\"; jobs
        fg; echo \"ended with $?\"";
    let mut terminal = router.exec("dialogue").in_shell(shell).start_in_terminal([24, 80]);
    terminal.shows("ready\r\n");
    terminal.type_in("\x1a");
    // The terminal is the shell's: what is typed is not read there, and nobody is stopped for trying.
    terminal.shows("[1]");
    terminal.type_in("one\r");
    terminal.shows("shell: one\r\n");
    terminal.shows("[1] + Running");
    terminal.type_in("two\r");
    terminal.shows("you said two\r\n");
    terminal.type_in("\x04");
    terminal.shows("ended with 0\r\n");
    assert_eq!(terminal.wait(), Some(0));
}
