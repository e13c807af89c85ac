//! A hostile router, or a program on it, against the machine of the developer who runs `hop`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use bytes::Bytes;
use hop_proto::limits::{MAX_KEPT_OUTPUT_BYTES, MAX_OUTPUT_FILES_BYTES, MAX_REPLY_BYTES, OUTPUT_CHUNK_BYTES};
use hop_proto::v1::{
    Accepted, Cause, ErrorDetail, ErrorReason, FileInfo, GetInfoResponse, Job, JobState, MissingBlob,
    NotExecuted, Outcome, Output, OutputFile, ReadOutputResponse, Started, StdinAck, Stream, outcome,
    run_request, run_response,
};
use hop_tests::{Ran, TIMEOUT};
use rustix::process::Signal;

use super::lying_router::{Call, LyingRouter, Said};
use crate::plan::Case;

pub const ALL: &[Case] = &cases![
    no_hidden_file_is_planted,
    unnamed_local_files_are_not_replaced,
    local_links_redirect_no_artifact,
    output_beyond_window_fails_the_job,
    excess_windows_counts_and_sizes_fail,
    excess_lists_and_logs_fail,
    unrequested_answers_break_the_protocol,
    unrequested_terminal_is_refused,
    escape_sequences_stay_off_the_terminal,
    control_characters_in_name_are_refused,
    killed_hop_leaves_no_partial_file,
];

/// Clears the screen and sets the title, and then writes a line as if it were Hop's.
const NASTY: &str = "x\u{1b}[2J\u{1b}]0;pwned\u{7}\u{9b}1m\nhint: all is well";

/// What of it may be shown.
const SHOWN: &str = "x\\u{1b}[2J\\u{1b}]0;pwned\\u{7}\\u{9b}1m\\nhint: all is well";

fn info(path: &str) -> FileInfo {
    FileInfo { path: path.into(), size: 3, files: 1, ..FileInfo::default() }
}

fn file(info: FileInfo, data: &'static [u8]) -> run_response::Message {
    run_response::Message::OutputFile(OutputFile {
        data: Bytes::from_static(data),
        info: Some(info),
        ..OutputFile::default()
    })
}

fn output(offset: u64, length: usize) -> run_response::Message {
    let stream = Stream::Stdout.into();
    run_response::Message::Output(Output {
        stream,
        offset,
        data: vec![b'x'; length].into(),
        uncompressed_size: 0,
    })
}

/// A router whose program leaves one file.
fn leaves(info: FileInfo) -> LyingRouter {
    LyingRouter::start(move |mut call| {
        let info = info.clone();
        async move {
            call.run().await;
            call.say(file(info, b"new"));
            while !matches!(call.next().await, None | Some(run_request::Message::FileAck(_))) {}
            call.exit();
        }
    })
}

/// A router that says this of a job that it has accepted, and a `hop exec` of it with these options.
fn answer(options: &[&str], said: run_response::Message) -> Ran {
    let router = LyingRouter::start(move |mut call| {
        let said = said.clone();
        async move {
            call.accept().await;
            call.say(said);
            call.wait_for_the_end().await;
        }
    });
    router.exec(options).run()
}

fn started(stdin_window: u32, terminal: bool) -> run_response::Message {
    run_response::Message::Started(Started { stdin_window, terminal })
}

/// An empty directory of the developer's.
fn place(router: &LyingRouter) -> PathBuf {
    let place = router.directory.path().join("here");
    fs::create_dir(&place).unwrap();
    place
}

fn names(directory: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    fs::read_dir(directory).unwrap().map(name).collect()
}

#[track_caller]
fn assert_broken(ran: &Ran, what: &str) {
    ran.assert_fails(125, &format!("error: router broke the protocol: {what}\n"));
}

#[track_caller]
fn assert_tame(shown: &[u8]) {
    let shown = std::str::from_utf8(shown).unwrap();
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
}

fn no_hidden_file_is_planted() {
    for path in [".envrc", ".git/hooks/pre-commit", "sub/.git/config", "sub/.npmrc"] {
        for asked in ["*:.", ".:.", "*/*:."] {
            let router = leaves(FileInfo { executable: true, ..info(path) });
            let place = place(&router);
            let ran = router.exec(&["--artifact", asked]).current_dir(&place).run();
            assert_broken(&ran, "an output file that nobody asked for");
            assert_eq!(names(&place), [""; 0], "{path} for {asked}");
        }
    }
    let router = leaves(info("a"));
    for asked in ["*", ".", "a/?"] {
        let ran = router.exec(&["--artifact", asked]).run();
        ran.assert_fails(
            125,
            &format!("--artifact {asked}: files whose names are the router's choice need a directory"),
        );
    }
}

fn unnamed_local_files_are_not_replaced() {
    let router = leaves(FileInfo { executable: true, ..info("Makefile") });
    let place = place(&router);
    let makefile = place.join("Makefile");
    fs::write(&makefile, "all:\n").unwrap();
    let fetch = |options: &[&str]| router.exec(options).current_dir(&place).run();
    let ran = fetch(&["--artifact", "*:."]);
    let kept =
        "hop: Makefile was not fetched: there is another file here; --artifact-overwrite replaces it\n";
    assert_eq!((ran.stderr(), ran.code), (kept, 0));
    assert_eq!(fs::read(&makefile).unwrap(), b"all:\n");
    for options in [&["--artifact", "Makefile"][..], &["--artifact", "*:.", "--artifact-overwrite"]] {
        fs::write(&makefile, "all:\n").unwrap();
        let ran = fetch(options);
        assert_eq!((ran.stderr(), ran.code), ("", 0));
        assert_eq!(fs::read(&makefile).unwrap(), b"new");
        assert_eq!(makefile.metadata().unwrap().permissions().mode() & 0o111, 0, "nobody asked for that");
    }
    fs::remove_file(&makefile).unwrap();
    assert_eq!(fetch(&["--artifact", "*:.", "--artifact-executable"]).code, 0);
    assert_ne!(makefile.metadata().unwrap().permissions().mode() & 0o100, 0);
}

fn local_links_redirect_no_artifact() {
    let router = leaves(info("sub/x"));
    let place = place(&router);
    let elsewhere = router.directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink("../elsewhere", place.join("sub")).unwrap();
    for asked in [".:.", "*/x:.", "sub", "sub/x"] {
        let ran = router.exec(&["--artifact", asked]).current_dir(&place).run();
        ran.assert_fails(125, "sub is a symbolic link\n");
        assert_eq!(names(&elsewhere), [""; 0], "{asked}");
    }
    // The user may say so.
    let ran = router.exec(&["--artifact", "sub/x:sub/x"]).current_dir(&place).run();
    assert_eq!((ran.stderr(), ran.code), ("", 0));
    assert_eq!(names(&elsewhere), ["x"]);
}

fn output_beyond_window_fails_the_job() {
    let (send, ended) = mpsc::channel();
    let router = LyingRouter::start(move |mut call| {
        let ended = send.clone();
        async move {
            call.run().await;
            for number in 0..64 {
                call.say(output(number * OUTPUT_CHUNK_BYTES as u64, OUTPUT_CHUNK_BYTES));
            }
            call.wait_for_the_end().await;
            ended.send(()).unwrap();
        }
    });
    let running = router.exec(&[]).start();
    // Nobody reads it meanwhile, so no acknowledgement makes room.
    ended.recv_timeout(TIMEOUT).unwrap();
    let ran = running.wait();
    let said = "error: router broke the protocol: more output at a time than it may send\n";
    assert_eq!((ran.stderr(), ran.code), (said, 125));
    // A window, and what a pipe takes of it.
    assert!((256 << 10..512 << 10).contains(&ran.stdout.len()), "{}", ran.stdout.len());
}

fn excess_windows_counts_and_sizes_fail() {
    for window in [0, (1 << 20) + 1, u32::MAX] {
        let ran = answer(&[], started(window, false));
        assert_broken(&ran, "a window for standard input that is not between 1 byte and 1 MiB");
    }
    let ack = run_response::Message::StdinAck(StdinAck { offset: 1 << 40, closed: false });
    assert_broken(&answer(&[], ack), "standard input is acknowledged that was never sent");
    assert_broken(&answer(&[], output(0, OUTPUT_CHUNK_BYTES + 1)), "more output at a time than it may send");
    let (many, long) = (
        FileInfo { files: 197_433, ..info("a") },
        FileInfo { size: MAX_OUTPUT_FILES_BYTES + 1, ..info("a") },
    );
    let place = tempfile::tempdir().unwrap();
    let local = format!("*:{}", place.path().display());
    for (sent, what) in [
        (many, "more output files than a job can have"),
        (long, "output files that are longer than a job can have them"),
    ] {
        assert_broken(&answer(&["--artifact", &local], file(sent, b"")), what);
    }
    assert_eq!(names(place.path()), [""; 0]);
    let reason = "x".repeat(MAX_REPLY_BYTES);
    let ending = Some(outcome::Ending::NotExecuted(NotExecuted { reason }));
    let large = run_response::Message::Outcome(Outcome { ending, ..Outcome::default() });
    assert_broken(&answer(&[], large), "a message that is longer than any may be");
}

fn excess_lists_and_logs_fail() {
    let job = |number: usize| Job { job_id: number.to_string(), own: true, ..Job::default() };
    let router = LyingRouter::start_saying(
        Said { jobs: (0..2000).map(job).collect(), ..Said::default() },
        |call| async { call.end() },
    );
    let ran = router.hop().args(["ps", "-r", "router"]).run();
    assert_broken(&ran, "more jobs than an agent can have");
    let endless = |mut call: Call| async move {
        for number in 0..=u64::from(MAX_KEPT_OUTPUT_BYTES) / OUTPUT_CHUNK_BYTES as u64 {
            let output = Output {
                stream: Stream::Stdout.into(),
                offset: number * OUTPUT_CHUNK_BYTES as u64,
                data: vec![b'x'; OUTPUT_CHUNK_BYTES].into(),
                uncompressed_size: 0,
            };
            call.say_raw(&ReadOutputResponse { output: Some(output), caught_up: false });
        }
        // Who asked has said all it had to say, so there is nothing to wait for.
        call.end();
    };
    let router = LyingRouter::start_saying(Said { jobs: vec![job(7)], ..Said::default() }, endless);
    let ran = router.hop().args(["logs", "-r", "router", "7"]).run();
    assert_eq!(
        (ran.stderr(), ran.code),
        ("error: router broke the protocol: more output than it may keep\n", 125)
    );
}

fn unrequested_answers_break_the_protocol() {
    let unasked = "an output file that nobody asked for";
    assert_broken(&answer(&[], file(info("a"), b"new")), unasked);
    let place = tempfile::tempdir().unwrap();
    let local = format!("a:{}/a", place.path().display());
    for sent in [info("b"), FileInfo { core: true, ..info("core") }, FileInfo { request: 1, ..info("a") }] {
        assert_broken(&answer(&["--artifact", &local], file(sent, b"new")), unasked);
    }
    assert_eq!(names(place.path()), [""; 0]);
    let ending = Some(outcome::Ending::ExitCode(0));
    let lost = Outcome { ending, files_lost: Cause::Memory.into(), ..Outcome::default() };
    let lost = answer(&[], run_response::Message::Outcome(lost));
    assert_broken(&lost, "output files are lost that nobody asked for");
    // Of what was sent to other routers, this one gets nothing to compare with.
    type Accept = fn(String, Vec<u8>) -> Accepted;
    let accepts: [(Accept, &str); 3] = [
        (
            |job_id, sha256| Accepted {
                job_id,
                missing_blobs: vec![MissingBlob { sha256, offset: 0, base: vec![7; 32] }],
                ..Accepted::default()
            },
            "a blob that nobody offered is needed",
        ),
        (
            |_, _| Accepted { job_id: "77".into(), ..Accepted::default() },
            "another job than the one that was asked for",
        ),
        (
            |job_id, _| Accepted { job_id, stdout_offset: u64::MAX, ..Accepted::default() },
            "a stream that begins where it cannot",
        ),
    ];
    for (accept, what) in accepts {
        let router = LyingRouter::start(move |mut call| async move {
            let Some(run_request::Message::Spec(spec)) = call.next().await else { return };
            let accepted = accept(spec.job_id, spec.program.unwrap().sha256);
            call.say(run_response::Message::Accepted(accepted));
            call.wait_for_the_end().await;
        });
        assert_broken(&router.exec(&[]).run(), what);
    }
}

fn unrequested_terminal_is_refused() {
    let router = LyingRouter::start(|mut call| async move {
        call.accept().await;
        call.say(started(65_536, true));
        call.wait_for_the_end().await;
    });
    let mut terminal = router.exec(&[]).start_in_terminal([24, 80]);
    terminal.shows(" router broke the protocol: a terminal that nobody asked for\r\n");
    assert!(terminal.is_cooked());
    assert_eq!(terminal.wait(), Some(125));
    // Who attaches says so too: without that, keys keep their meaning, and Ctrl-C ends hop after all.
    let jobs = vec![Job { job_id: "7".into(), own: true, ..Job::default() }];
    let (send, signals) = mpsc::channel();
    let router = LyingRouter::start_saying(Said { jobs, ..Said::default() }, move |mut call| {
        let signals = send.clone();
        async move {
            call.accept().await;
            call.say(started(65_536, true));
            call.say(output(0, 5));
            while let Some(message) = call.next().await {
                if let run_request::Message::Signal(signal) = message {
                    signals.send(signal.name).unwrap();
                }
            }
        }
    });
    let mut terminal = router.hop().args(["attach", "-r", "router", "7"]).start_in_terminal([24, 80]);
    terminal.shows("xxxxx");
    assert!(terminal.is_cooked());
    for name in ["INT", "INT", "KILL"] {
        terminal.type_in("\x03");
        assert_eq!(signals.recv_timeout(TIMEOUT).unwrap(), name);
    }
    terminal.type_in("\x03");
    assert_eq!(terminal.wait(), Some(130));
}

fn escape_sequences_stay_off_the_terminal() {
    let said = Said {
        info: GetInfoResponse {
            hostname: NASTY.into(),
            kernel: NASTY.into(),
            firmware: NASTY.into(),
            ..GetInfoResponse::default()
        },
        jobs: vec![Job {
            job_id: "7".into(),
            name: NASTY.into(),
            state: JobState::Running.into(),
            ..Job::default()
        }],
    };
    let router = LyingRouter::start_saying(said, |mut call| async move {
        call.next().await;
        call.refuse(&ErrorDetail { reason: ErrorReason::Io.into(), ..ErrorDetail::default() }, NASTY);
    });
    for command in ["info", "ps"] {
        let ran = router.hop().args([command, "-r", "router"]).run();
        assert_eq!((ran.stderr(), ran.code), ("", 0));
        assert!(ran.stdout().contains(SHOWN), "{}", ran.stdout());
        assert_tame(&ran.stdout);
        let ran = router.hop().args([command, "-r", "router", "--json"]).run();
        assert!(ran.stdout().contains(r"x\u001b[2J\u001b]0;pwned\u0007\u009b1m\nhint"), "{}", ran.stdout());
        assert_tame(&ran.stdout);
    }
    let ran = router.exec(&[]).run();
    assert_eq!((ran.stderr(), ran.code), (&*format!("error: router refused: {SHOWN}\n"), 125));
    let ending = outcome::Ending::NotExecuted(NotExecuted { reason: NASTY.into() });
    let refused = Outcome { ending: Some(ending), ..Outcome::default() };
    let ran = answer(&[], run_response::Message::Outcome(refused));
    let said = format!("error: the router cannot execute the program: {SHOWN}\n");
    assert_eq!((ran.stderr(), ran.code), (&*said, 126));
}

fn control_characters_in_name_are_refused() {
    let router = LyingRouter::start(|call| async { call.end() });
    let program = router.directory.path().join("x\u{1b}[2J");
    fs::copy("/bin/true", &program).unwrap();
    let ran = router.hop().args(["exec", "-r", "router"]).arg(&program).run();
    ran.assert_fails(125, "x\\u{1b}[2J has control characters in its name");
    assert_tame(ran.stderr_bytes());
}

fn killed_hop_leaves_no_partial_file() {
    let (send, sent) = mpsc::channel();
    let router = LyingRouter::start(move |mut call| {
        let sent = send.clone();
        async move {
            call.run().await;
            call.say(file(FileInfo { size: 1 << 20, ..info("a") }, b"half"));
            // More than a quarter of the window, so that it is acknowledged.
            for number in 1..8 {
                call.say(run_response::Message::OutputFile(OutputFile {
                    offset: number * OUTPUT_CHUNK_BYTES as u64,
                    data: vec![7; OUTPUT_CHUNK_BYTES].into(),
                    ..OutputFile::default()
                }));
            }
            while !matches!(call.next().await, None | Some(run_request::Message::FileAck(_))) {}
            sent.send(()).unwrap();
            call.wait_for_the_end().await;
        }
    });
    // A file system that has files without names, whatever that of the tests is.
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let running = router.exec(&["--artifact", &format!("a:{}", place.path().display())]).start();
    sent.recv_timeout(TIMEOUT).unwrap();
    running.signal(Signal::KILL);
    assert_eq!(running.wait().code, -9);
    assert_eq!(names(place.path()), [""; 0]);
}
