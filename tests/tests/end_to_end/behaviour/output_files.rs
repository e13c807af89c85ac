//! The files that a program leaves, and how they come here.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Behaviour;
use hop_tests::{Hop, Target, VirtualRouter, fixture, left};
use rustix::process::Signal;
use serde_json::{Value, json};

pub const ALL: &[Behaviour] = &behaviours! {
    Everywhere:
        other_users_files_are_not_fetched;
    Portable:
        output_files_arrive_byte_for_byte,
        output_patterns_choose_local_paths,
        missing_outputs_change_no_exit_code,
        hidden_files_need_exact_names,
        missing_directory_and_excess_files_are_reported,
        file_transfer_resumes_after_break,
        files_of_detached_jobs_wait,
        unfetched_files_are_removed_in_time,
        last_eight_jobs_keep_files,
        unwritable_file_is_hops_failure,
        artifact_outside_job_directory_is_refused;
};

/// A file that is long enough to be cut in the middle, with all that is on its way.
const LONG: usize = 1_500_000;

/// Bytes from the router after which a part of it is here.
const SOME_OF_LONG: u64 = 700_000;

/// A new directory for what comes.
fn place(router: &VirtualRouter) -> PathBuf {
    let place = router.path("here");
    fs::create_dir(&place).unwrap();
    place
}

/// `hop exec` of a program that leaves `what`, in the directory where its files go.
fn leave<T: AsRef<OsStr>>(router: &VirtualRouter, place: &Path, options: &[T], what: &[&[u8]]) -> Hop {
    let hop = router.hop().current_dir(place).args(["exec", "-r", "router"]).args(options);
    hop.arg(fixture(router.target(), "leave")).args(what.iter().map(|word| OsStr::from_bytes(word)))
}

/// Everything below a directory, and how long it is.
fn files(place: &Path) -> Vec<(Vec<u8>, u64)> {
    let mut found = Vec::new();
    let mut directories = vec![place.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => directories.push(path),
                false => {
                    let name = path.strip_prefix(place).unwrap().as_os_str().as_bytes().to_vec();
                    found.push((name, path.metadata().unwrap().len()));
                }
            }
        }
    }
    found.sort();
    found
}

fn named(names: &[(&[u8], u64)]) -> Vec<(Vec<u8>, u64)> {
    names.iter().map(|(name, size)| (name.to_vec(), *size)).collect()
}

fn output_files_arrive_byte_for_byte(target: Target) {
    let router = VirtualRouter::start(target);
    let place = place(&router);
    let what: [&[u8]; 6] = [
        b"file=long=1500000",
        b"file=empty=0",
        b"program=results/deep/er/tool=70000",
        b"file=results/odd\n\xff name=5",
        b"hole=results/hole=3000000",
        b"file=unwanted=1000",
    ];
    let options =
        ["--artifact", "long", "--artifact", "./empty", "--artifact=results/", "--artifact-executable"];
    let ran = leave(&router, &place, &options, &what).run();
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("left\n", "", 7));
    let expected: [(&[u8], u64); 5] = [
        (b"empty", 0),
        (b"long", LONG as u64),
        (b"results/deep/er/tool", 70_000),
        (b"results/hole", 3_000_000),
        (b"results/odd\n\xff name", 5),
    ];
    assert_eq!(files(&place), named(&expected));
    assert!(fs::read(place.join("long")).unwrap() == left(LONG));
    assert!(fs::read(place.join("results/deep/er/tool")).unwrap() == left(70_000));
    let mode = |name: &str| place.join(name).metadata().unwrap().permissions().mode();
    assert_eq!((mode("results/deep/er/tool") & 0o100, mode("long") & 0o100), (0o100, 0));
    let hole = fs::read(place.join("results/hole")).unwrap();
    assert!(hole.iter().enumerate().all(|(at, byte)| *byte == u8::from(at == 1_500_000)));
    router.assert_serves_on();
}

fn output_patterns_choose_local_paths(target: Target) {
    let router = VirtualRouter::start(target);
    let place = place(&router);
    fs::create_dir(place.join("there")).unwrap();
    fs::write(place.join("new"), "what was there before").unwrap();
    let what: [&[u8]; 4] =
        [b"file=a/cpu.prof=10", b"file=a/mem.prof=20", b"file=b/cpu.prof=30", b"file=result=40"];
    let options = [
        "--artifact",
        "a/*.prof:profiles",
        "--artifact",
        "?/cpu.prof:of-each",
        "--artifact",
        "result:new",
        "--artifact",
        "result:there",
        "--artifact",
        "b:c/d",
    ];
    let ran = leave(&router, &place, &options, &what).run();
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("left\n", "", 7));
    let expected: [(&[u8], u64); 7] = [
        (b"c/d/cpu.prof", 30),
        (b"new", 40),
        (b"of-each/a/cpu.prof", 10),
        (b"of-each/b/cpu.prof", 30),
        (b"profiles/cpu.prof", 10),
        (b"profiles/mem.prof", 20),
        (b"there/result", 40),
    ];
    assert_eq!(files(&place), named(&expected));
    router.assert_serves_on();
}

fn missing_outputs_change_no_exit_code(target: Target) {
    let router = VirtualRouter::start(target);
    let place = place(&router);
    let status_file = router.path("status.json");
    let secret = router.path_there("authorized");
    let link = format!("link=link={}", secret.display());
    let linked = format!("link=linked={}", secret.parent().unwrap().display());
    let what: [&[u8]; 6] = [
        b"file=good=3",
        link.as_bytes(),
        linked.as_bytes(),
        b"pipe=pipe",
        b"directory=nothing",
        b"hole=huge=300000000",
    ];
    let mut options: Vec<OsString> = vec!["--status-file".into(), status_file.clone().into()];
    let paths =
        ["good", "link", "linked/authorized", "pipe", "nothing", "huge", "missing", "good/x", "*.x:."];
    for path in paths {
        options.extend(["--artifact".into(), path.into()]);
    }
    let ran = leave(&router, &place, &options, &what).run();
    assert_eq!((ran.stdout(), ran.code), ("left\n", 7), "{}", ran.stderr());
    let why_not = |path: &str, why: &str| format!("hop: {path} was not fetched: {why}\n");
    let (no_file, missing) = ("it is not a regular file of the program's directory", "there is no such file");
    let said: String = [
        why_not("link", no_file),
        why_not("linked", no_file),
        why_not("pipe", no_file),
        why_not("huge", "with it, the files would be longer than 256 MiB"),
        why_not("missing", missing),
        why_not("good/x", missing),
        why_not("*.x", missing),
    ]
    .concat();
    assert_eq!(ran.stderr(), said);
    assert_eq!(files(&place), named(&[(b"good", 3)]));
    let status: Value = serde_json::from_slice(&fs::read(status_file).unwrap()).unwrap();
    assert_eq!((&status["outcome"], &status["exit_code"]), (&json!("exited"), &json!(7)));
    assert_eq!(status["output_files"][0], json!({"path": "good", "file": "good", "bytes": 3}));
    assert_eq!(status["output_files"][1], json!({"path": "link", "problem": "not_a_file"}));
    assert_eq!(status["output_files"][5], json!({"path": "missing", "problem": "not_there"}));
    router.assert_serves_on();
}

fn hidden_files_need_exact_names(target: Target) {
    let router = VirtualRouter::start(target);
    let place = place(&router);
    let what: [&[u8]; 4] =
        [b"file=.envrc=1", b"file=d/.hidden=2", b"file=d/plain=3", b"program=.git/hooks/x=4"];
    let fetch = |options: &[&str]| leave(&router, &place, options, &what).run();
    assert_eq!((fetch(&["--artifact", "*:."]).code, files(&place)), (7, named(&[(b"d/plain", 3)])));
    let ran = fetch(&["--artifact", ".:all", "--artifact", ".e*:."]);
    let hidden = |path: &str| {
        format!("hop: {path} was not fetched: its name begins with a dot, and --artifact does not name it\n")
    };
    let said: String = [".envrc", ".git", "d/.hidden"].map(hidden).concat();
    assert_eq!((ran.stderr(), ran.code), (&*said, 7));
    assert_eq!(files(&place), named(&[(b".envrc", 1), (b"all/d/plain", 3), (b"d/plain", 3)]));
    router.assert_serves_on();
}

fn missing_directory_and_excess_files_are_reported(target: Target) {
    let router = VirtualRouter::start(target);
    let place = place(&router);
    let ran = leave(&router, &place, &["--artifact", "many"], &[b"many=many/=1500"]).run();
    assert_eq!(ran.code, 7);
    assert_eq!(ran.stderr(), "hop: many was not fetched: there are too many files\n");
    assert_eq!(files(&place).len(), 1024, "those that were found come");
    let here = router.path("nowhere");
    fs::create_dir(&here).unwrap();
    // Where it works, by a path that has no end of its own.
    let ran = leave(&router, &here, &["--artifact", ".:."], &[b"file=x=1", b"gone=../w"]).run();
    assert_eq!((ran.stderr(), ran.code), ("hop: . was not fetched: there is no such file\n", 7));
    router.assert_serves_on();
}

fn other_users_files_are_not_fetched(target: Target) {
    let router = VirtualRouter::start(target);
    let place = place(&router);
    // It may pass the agent's directory, and give what lies there another name.
    let blob = router.ram().join("secret");
    router.put(&blob, b"secret");
    let hard = format!("hard=hard={}", blob.display());
    let options = ["--user", "nobody", "--artifact", "own", "--artifact", "hard"];
    let ran = leave(&router, &place, &options, &[b"file=own=4", hard.as_bytes()]).run();
    // Where the kernel protects such names (proc_sys_fs(5), protected_hardlinks), there is none.
    let refused = ran.code == 2 && ran.stderr().contains("operation not permitted");
    let kept = "hop: hard was not fetched: it does not belong to the program's user\n";
    assert!(refused || (ran.stderr(), ran.code) == (kept, 7), "{}: {}", ran.code, ran.stderr());
    assert_eq!(files(&place), named(&[(b"own", 4)]));
    router.remove(&blob);
    router.assert_serves_on();
}

fn file_transfer_resumes_after_break(target: Target) {
    let router = VirtualRouter::start(target);
    let (place, proxy) = (place(&router), router.proxy());
    proxy.cut_after_received(SOME_OF_LONG);
    let hop = router.hop().current_dir(&place).args(["exec", "-r", "proxied", "--artifact", "long"]);
    let running = hop.arg(fixture(target, "leave")).arg(format!("file=long={LONG}")).start();
    for _ in 0..2 {
        proxy.wait_until_cut();
        assert!(!place.join("long").exists(), "it has its name when it is whole");
        proxy.reset();
        proxy.cut_after_received(SOME_OF_LONG / 2);
    }
    proxy.reset();
    let ran = running.wait();
    assert_eq!((ran.stdout(), ran.code), ("left\n", 7), "{}", ran.stderr());
    let broke = "hop: the connection to proxied broke; reconnecting for up to 1m\n";
    assert!((2..4).any(|count| ran.stderr() == broke.repeat(count)), "{}", ran.stderr());
    assert_eq!(files(&place), named(&[(b"long", LONG as u64)]));
    assert!(fs::read(place.join("long")).unwrap() == left(LONG));
    router.wait_until_forgotten();
    router.assert_serves_on();
}

fn files_of_detached_jobs_wait(target: Target) {
    let router = VirtualRouter::start(target);
    let place = place(&router);
    let options = ["--detach", "--artifact", "a/*"];
    let ran = leave(&router, &place, &options, &[b"file=a/one=1000", b"file=a/two=2000"]).run();
    assert_eq!((ran.stderr(), ran.code), ("", 0));
    let job = ran.stdout().trim_end().to_owned();
    router.wait_until_idle();
    let attach = |options: &[&str]| {
        let hop = router.hop().current_dir(&place).args(["attach", "-r", "router"]);
        hop.args(options).arg(&job).run()
    };
    let ran = attach(&[]);
    assert_eq!((ran.stdout(), ran.code), ("left\n", 125), "what they are for comes before");
    assert!(
        ran.stderr().contains("has artifacts, and no --artifact says where to put them"),
        "{}",
        ran.stderr()
    );
    let ran = attach(&["--artifact", "a/one:.", "--artifact", "three"]);
    let said = "hop: a/two was not fetched: no --artifact names it\n\
                hop: three was not fetched: there is no such file\n";
    assert_eq!((ran.stderr(), ran.code), (said, 7));
    assert_eq!(files(&place), named(&[(b"one", 1000)]));
    router.wait_until_forgotten();
    router.assert_serves_on();
}

fn unfetched_files_are_removed_in_time(target: Target) {
    let router = VirtualRouter::start(target);
    let (place, proxy) = (place(&router), router.proxy());
    proxy.cut_after_received(SOME_OF_LONG);
    let hop = router.hop().current_dir(&place);
    let hop = hop.args(["exec", "-r", "proxied", "--reconnect-timeout", "1s", "--artifact", "long"]);
    let running = hop.arg(fixture(target, "leave")).arg(format!("file=long={LONG}")).start();
    proxy.wait_until_cut();
    running.signal(Signal::KILL);
    running.wait();
    assert!(!router.leftovers().is_empty(), "the file waits");
    proxy.reset();
    router.wait_until_forgotten();
    assert!(!place.join("long").exists());
    router.assert_serves_on();
}

fn last_eight_jobs_keep_files(target: Target) {
    let router = VirtualRouter::start(target);
    let place = place(&router);
    let mut left = Vec::new();
    for _ in 0..9 {
        let ran = leave(&router, &place, &["--detach", "--artifact", "x"], &[b"file=x=1000"]).run();
        assert_eq!((ran.stderr(), ran.code), ("", 0));
        left.push(ran.stdout().trim_end().to_owned());
        // They have no place among those that run.
        router.wait_until_idle();
    }
    hop_tests::wait_until("the oldest goes", || router.leftovers().len() == 8);
    let attach = |job: &str| {
        let hop = router.hop().current_dir(&place);
        hop.args(["attach", "-r", "router", "--artifact", "x", job]).run()
    };
    attach(&left[0]).assert_fails(125, "there is no job");
    for job in &left[1..] {
        assert_eq!(attach(job).code, 7);
    }
    router.wait_until_forgotten();
    router.assert_serves_on();
}

fn unwritable_file_is_hops_failure(target: Target) {
    let router = VirtualRouter::start(target);
    let place = place(&router);
    fs::write(place.join("file"), "").unwrap();
    let ran = leave(&router, &place, &["--artifact", "x:file/x"], &[b"file=x=1000"]).run();
    assert_eq!((ran.stdout(), ran.code), ("left\n", 125));
    assert!(ran.stderr().starts_with("error: cannot create file\n"), "{}", ran.stderr());
    assert_eq!(files(&place), named(&[(b"file", 0)]));
    router.wait_until_forgotten();
    router.assert_serves_on();
}

fn artifact_outside_job_directory_is_refused(target: Target) {
    let router = VirtualRouter::start(target);
    for path in ["/etc/passwd", "../key", "a/../../b", "", "x:"] {
        let ran = leave(&router, &router.path("home"), &["--artifact", path], &[]).run();
        ran.assert_fails(125, &format!("--artifact {path}"));
    }
    router.assert_serves_on();
}
