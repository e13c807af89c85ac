//! `go test` and `go run`, with a router instead of this machine.
//!
//! A router with strict overcommit is let promise more for it: a test binary of Go 1.26 has 32 MiB of zeroed data
//! (`crypto/internal/fips140/drbg.memory`), of which no page is ever used, and which a DD-WRT with 64 MB does not promise.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Behaviour;
use hop_tests::{Ran, Running, Target, VirtualRouter, dist, root};
use rustix::process::Signal;

pub const ALL: &[Behaviour] = &behaviours! {
    Everywhere:
        go_test_finds_its_module_files,
        fetched_profiles_are_readable,
        written_files_and_fuzz_corpus_are_fetched;
    Portable:
        go_test_output_matches_local,
        coverage_matches_local,
        program_coverage_is_fetched,
        hanging_test_shows_its_goroutines,
        hops_failure_is_one_line,
        go_run_finds_hop_by_itself;
};

/// A module with tests of every kind, which is not ours.
fn suite() -> PathBuf {
    root().join("tests/fixtures/suite")
}

/// Go, at the top of that module, for the programs of a target. It does not remember what passed.
fn go(target: Target, words: &[&str]) -> Command {
    let mut go = Command::new("go");
    go.args(words).current_dir(suite());
    let target =
        [("GOOS", "linux"), ("GOARCH", target.goarch()), ("GOMIPS", "softfloat"), ("CGO_ENABLED", "0")];
    go.envs(target).env_remove("GOFLAGS").env_remove("GOCOVERDIR");
    go
}

/// The same; what it builds runs on a router, with these further options of `hop exec`.
fn go_there(router: &VirtualRouter, options: &str, words: &[&str]) -> Command {
    let mut go = go(router.target(), &words[..1]);
    let exec = format!("{} exec --go {options}", dist("hop").display());
    go.args(["-exec", &exec]).args(&words[1..]);
    go.env("HOP_HOME", router.path("home")).env("HOP_ROUTER", "router").env("SUITE_SECRET", "of the host");
    go
}

fn run(mut command: Command) -> Ran {
    Running::start(&mut command).wait()
}

/// What all tests of the module say, on this machine, which has the same words.
fn assert_passes(ran: &Ran) {
    assert_eq!((ran.stderr(), ran.code), ("", 0), "{}", ran.stdout());
}

fn go_test_finds_its_module_files(target: Target) {
    let router = VirtualRouter::start(target);
    let _more = router.allow_overcommit();
    let ran = run(go_there(&router, "", &["test", "-count=1", "./..."]));
    assert_passes(&ran);
    let lines: Vec<_> = ran.stdout().lines().filter(|line| line.starts_with("ok ")).collect();
    assert!(lines.len() == 2 && lines[1].contains("example.com/suite/words"), "{}", ran.stdout());
    router.assert_serves_on();
}

fn go_test_output_matches_local(target: Target) {
    let router = VirtualRouter::start(target);
    let _more = router.allow_overcommit();
    let words = ["test", "-count=1", "-v", "-cpu=2", "-run=Count|Outputs|Fail", "./words", "-fail"];
    // What takes time and what does not are not the same there.
    let plain = |text: &str| {
        let words = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
        let line = |line: &str| match line.split_once(" (0.") {
            Some((line, _)) => line.to_owned(),
            None if line.starts_with("FAIL\t") => words(line),
            None => line.to_owned(),
        };
        text.lines().map(line).filter(|line| !line.contains("/two")).collect::<Vec<_>>()
    };
    let there = run(go_there(&router, "", &words));
    let here = run(go(Target::Host, &words));
    assert_eq!((there.code, here.code), (1, 1));
    assert_eq!(plain(there.stdout()), plain(here.stdout()));
    assert!(there.stdout().contains("line 38\nline 39\n"), "{}", there.stdout());
    let json = run(go_there(&router, "", &["test", "-count=1", "-json", "-run=Count", "./words"]));
    let passed = r#""Action":"pass","Package":"example.com/suite/words","Test":"TestCount/two""#;
    assert!(json.code == 0 && json.stdout().contains(passed), "{}", json.stdout());
    router.assert_serves_on();
}

fn coverage_matches_local(target: Target) {
    let router = VirtualRouter::start(target);
    let _more = router.allow_overcommit();
    let place = |name: &str| router.path(name).display().to_string();
    for (name, words) in [("own", &["./..."][..]), ("all", &["-coverpkg=./...", "./..."])] {
        let (there, here) = (place(&format!("{name}.there")), place(&format!("{name}.here")));
        let [to_there, to_here] = [&there, &here].map(|place| format!("-coverprofile={place}"));
        let call = |profile| [&["test", "-count=1", profile], words].concat();
        assert_passes(&run(go_there(&router, "", &call(&to_there))));
        assert_passes(&run(go(Target::Host, &call(&to_here))));
        // In the order in which the packages were done.
        let [there, here] = [there, here].map(|place| {
            let mut lines: Vec<_> = fs::read_to_string(place).unwrap().lines().map(str::to_owned).collect();
            lines.sort();
            lines.join("\n")
        });
        assert!(there.contains("suite/words/words.go:12.16,14.3 1 1"), "{there}");
        assert_eq!(there, here);
    }
    router.assert_serves_on();
}

/// Go 1.26 arms no timer for CPU profiles on big endian with the 64-bit times of Linux 5.1 and later: docs/go-test.md.
fn samples_are_lost(router: &VirtualRouter) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).take(2).collect()
    };
    let version = run(go(router.target(), &["env", "GOVERSION"]));
    let kernel = numbers(router.info()["kernel"].as_str().unwrap());
    router.target().goarch() == "mips" && kernel >= vec![5, 1] && numbers(version.stdout()) >= vec![1, 26]
}

fn fetched_profiles_are_readable(target: Target) {
    let router = VirtualRouter::start(target);
    let _more = router.allow_overcommit();
    let directory = router.path("profiles");
    fs::create_dir(&directory).unwrap();
    let out = format!("-outputdir={}", directory.display());
    let words = ["test", "-count=1", "-run=-", "-bench=.", "-benchtime=500ms", &out, "-cpuprofile=cpu.out"];
    let more =
        ["-memprofile=mem.out", "-blockprofile=block.out", "-mutexprofile=mutex.out", "-trace=trace.out"];
    // The test binary stays here, for the profiles.
    let binary = router.path("words.test").display().to_string();
    let ran = run(go_there(&router, "", &[&words[..], &more, &["-o", &binary, "./words"]].concat()));
    assert_passes(&ran);
    assert!(ran.stdout().contains("BenchmarkCount"), "{}", ran.stdout());
    for name in ["cpu.out", "mem.out", "block.out", "mutex.out"] {
        let top =
            run(go(Target::Host, &["tool", "pprof", "-top", &directory.join(name).display().to_string()]));
        assert!(top.code == 0 && top.stdout().contains("flat%"), "{name}: {}{}", top.stdout(), top.stderr());
    }
    let cpu = directory.join("cpu.out").display().to_string();
    let top = run(go(Target::Host, &["tool", "pprof", "-top", &cpu]));
    let is_empty = top.stdout().contains("Total samples = 0 ");
    assert!(!is_empty || samples_are_lost(&router), "{}", top.stdout());
    assert!(fs::read(directory.join("trace.out")).unwrap().starts_with(b"go 1."));
    router.assert_serves_on();
}

fn program_coverage_is_fetched(target: Target) {
    let router = VirtualRouter::start(target);
    let _more = router.allow_overcommit();
    let covered = router.path("covered");
    fs::create_dir(&covered).unwrap();
    let run_leaves = |words: &[&str]| {
        let hop = router.hop().current_dir(suite()).env("GOCOVERDIR", &covered);
        let ran = hop.args(["run", "-cover", "-r", "router", "./leaves"]).args(words).run();
        assert_eq!((ran.stderr(), ran.code), ("", 0));
        let input = format!("-i={}", covered.display());
        let percent = run(go(Target::Host, &["tool", "covdata", "percent", &input]));
        assert_eq!(percent.code, 0, "{}", percent.stderr());
        percent.stdout().split_whitespace().find(|word| word.ends_with('%')).unwrap().to_owned()
    };
    let once = run_leaves(&[]);
    assert!(once != "100.0%" && run_leaves(&["word"]) == "100.0%", "{once}");
    router.assert_serves_on();
}

fn hanging_test_shows_its_goroutines(target: Target) {
    let router = VirtualRouter::start(target);
    let _more = router.allow_overcommit();
    let words = ["test", "-count=1", "-run=Hang", "-timeout=2s", "./words", "-hang"];
    let ran = run(go_there(&router, "", &words));
    let said = ran.stdout();
    assert_eq!(ran.code, 1);
    assert!(said.contains("panic: test timed out after 2s") && said.contains("words.TestHang("), "{said}");
    // As cmd/go does it when that is of no avail.
    let binary = router.path("words.test");
    let build = go(target, &["test", "-c", "-o", &binary.display().to_string(), "./words"]);
    assert_eq!(run(build).code, 0);
    let hop = router.hop().current_dir(suite().join("words")).args(["exec", "--go", "-r", "router"]);
    let mut running = hop.arg(&binary).args(["-test.run=Hang", "-hang"]).start();
    assert_eq!(running.line(), "it hangs\n");
    running.signal(Signal::QUIT);
    let ran = running.wait();
    assert_eq!(ran.code, 2);
    assert!(ran.stderr().starts_with("SIGQUIT: quit\n") && ran.stderr().contains("words.TestHang("));
    router.assert_serves_on();
}

fn written_files_and_fuzz_corpus_are_fetched(target: Target) {
    let router = VirtualRouter::start(target);
    let _more = router.allow_overcommit();
    // A copy, because this writes there.
    let copy = router.path("suite");
    let copied = Command::new("cp").arg("-r").arg(suite()).arg(&copy).status().unwrap();
    assert!(copied.success());
    let in_copy = |mut go: Command| {
        go.current_dir(&copy);
        run(go)
    };
    let data = copy.join("words/testdata");
    let words = ["test", "-count=1", "-run=Update", "./words", "-update"];
    assert_passes(&in_copy(go_there(&router, "", &words)));
    assert!(!data.join("new.golden").exists(), "nobody asked");
    assert_passes(&in_copy(go_there(&router, "--artifact testdata/*.golden", &words)));
    assert_eq!(fs::read_to_string(data.join("new.golden")).unwrap(), "three\n");
    let fuzz = ["test", "-run=-", "-fuzz=Fuzz", "-fuzztime=10x", "-parallel=1", "./words"];
    let ran = in_copy(go_there(&router, "", &fuzz));
    if router.info()["memory_total"].as_u64().unwrap() < 104 << 20 {
        assert!(ran.stdout().contains("error: a worker of Go's fuzzer takes 100 MiB"), "{}", ran.stdout());
    } else {
        assert_passes(&ran);
        let ran = in_copy(go_there(&router, "", &[&fuzz[..], &["-find"]].concat()));
        assert_eq!(ran.code, 1, "{}", ran.stdout());
        let found = ran.stdout().split_whitespace().find(|word| word.starts_with("testdata/fuzz/")).unwrap();
        assert!(copy.join("words").join(found).is_file(), "{}", ran.stdout());
    }
    router.assert_serves_on();
}

fn hops_failure_is_one_line(target: Target) {
    let router = VirtualRouter::start(target);
    let _more = router.allow_overcommit();
    let mut go = go_there(&router, "--connect-timeout 100ms", &["test", "-count=1", "./numbers"]);
    go.env("HOP_ROUTER", "nowhere");
    let ran = run(go);
    assert_eq!(ran.code, 1);
    let said: Vec<_> = ran.stdout().lines().collect();
    assert!(said[0].starts_with("error: there is no router named nowhere; "), "{said:?}");
    assert!(said[1].starts_with("FAIL\texample.com/suite/numbers"), "{said:?}");
    router.assert_serves_on();
}

fn go_run_finds_hop_by_itself(target: Target) {
    let router = VirtualRouter::start(target);
    let _more = router.allow_overcommit();
    let installed = router.hop().args(["go-exec", "install"]).arg(router.path("bin")).run();
    let directory = Path::new(installed.stdout().trim_end());
    assert_eq!(directory, router.path("bin").canonicalize().unwrap());
    assert_eq!((installed.stderr(), installed.code), ("", 0), "what is captured is on its way to PATH");
    let mut go = go(target, &["run", "./leaves", "word"]);
    let path = std::env::var_os("PATH").unwrap();
    let places = [directory.to_owned()].into_iter().chain(std::env::split_paths(&path));
    go.env("PATH", std::env::join_paths(places).unwrap());
    go.env("HOP_HOME", router.path("home")).env("HOP_ROUTER", "router").env("HOP_EXEC_FLAGS", "-v");
    let ran = run(go);
    assert_eq!((ran.stdout(), ran.code), ("with words\n", 0), "{}", ran.stderr());
    // For a program of this machine, Go needs nobody.
    assert!(ran.stderr().contains("hop: started after") || target.is_here(), "{}", ran.stderr());
    router.assert_serves_on();
}
