//! Tests that others wrote, run by plain `go test` on whole virtual routers with 64 MB, and their results here beside.
//!
//! **Invariants:** a test has the result there that it has here, but for what docs/go-test.md explains.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hop_tests::{Target, VirtualRouter, root};
use serde_json::Value;

use crate::plan::{Plan, Set};

/// The virtual routers on which they run, one of each endianness.
const TARGETS: [Target; 2] = [Target::DIR_505, Target::F7D7302];

type Test = (&'static str, fn(Target));

const ALL: [Test; 3] = [
    ("standard_library_tests_match_local", standard_library_tests_match_local),
    // Fetches them from a Go module proxy.
    ("third_party_module_tests_match_local", third_party_module_tests_match_local),
    ("versioned_package_runs", versioned_package_runs),
];

/// Adds the tests.
pub fn plan(plan: &mut Plan) {
    for target in TARGETS {
        for (name, test) in ALL {
            plan.add(Set::All, &format!("third_party::{}", target.name()), name, move || test(target));
        }
    }
}

/// Packages of the standard library.
const STANDARD: [&str; 18] = [
    "strings",
    "strconv",
    "bytes",
    "bufio",
    "encoding/json",
    "encoding/binary",
    "compress/gzip",
    "crypto/sha256",
    "net/http/httptest",
    "os",
    "os/exec",
    "path/filepath",
    "io",
    "time",
    "text/template",
    "go/parser",
    "testing/fstest",
    "unicode/utf8",
];

/// Tests that hold more memory than such a router has; they are run on neither side.
const TOO_LARGE: [&str; 6] = [
    "TestUnmarshalMaxDepth",
    "TestCVE202230631",
    "TestGrow",
    "TestReadFileLimit",
    "TestResetResult",
    "TestLargeCopyViaNetwork",
];

/// Modules of others, with the files that their tests read.
const MODULES: [&str; 3] = [
    "github.com/BurntSushi/toml@v1.4.0",
    "github.com/yuin/goldmark@v1.7.8",
    "github.com/joho/godotenv@v1.5.1",
];

/// How a test ended.
type Results = BTreeMap<(String, String), String>;

/// Runs `go test` in `directory` with these words, on a router or here, and gives what became of each test.
fn results(directory: &Path, words: &[&str], router: Option<&VirtualRouter>) -> Results {
    let mut go = Command::new("go");
    go.args(["test", "-json", "-short"]).args(words).current_dir(directory).env_remove("GOFLAGS");
    if let Some(router) = router {
        let names = router.path("go-exec");
        assert_eq!(router.hop().args(["go-exec", "install"]).arg(&names).run().code, 0);
        let path = std::env::var_os("PATH").unwrap();
        let places = [names].into_iter().chain(std::env::split_paths(&path));
        go.arg("-count=1").env("PATH", std::env::join_paths(places).unwrap());
        go.env("HOP_HOME", router.path("home")).env("HOP_ROUTER", "router");
        go.envs([
            ("GOOS", "linux"),
            ("GOARCH", router.target().goarch()),
            ("GOMIPS", "softfloat"),
            ("CGO_ENABLED", "0"),
        ]);
    }
    // Go itself ends what takes longer than ten minutes (-timeout).
    let ran = go.stdin(Stdio::null()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(ran.stdout).unwrap(), String::from_utf8_lossy(&ran.stderr));
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let mut results = Results::new();
    let mut said = String::new();
    for line in stdout.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        let action = text(&event, "Action");
        said += &text(&event, "Output");
        // A subtest may be named by what differs: an address, a path.
        if matches!(&*action, "pass" | "fail" | "skip") && !text(&event, "Test").contains('/') {
            results.insert((text(&event, "Package"), text(&event, "Test")), action);
        }
    }
    assert!(results.len() > 10, "{said}{stderr}");
    if results.values().any(|result| result == "fail") {
        println!("{said}");
    }
    results
}

/// What differs, as the documentation writes it: `package.Test: here, there`.
fn differences(here: &Results, there: &Results) -> Vec<String> {
    let names: std::collections::BTreeSet<_> = here.keys().chain(there.keys()).collect();
    let result = |results: &Results, name| results.get(name).map_or("-", String::as_str).to_owned();
    names
        .into_iter()
        .map(|name| (name, result(here, name), result(there, name)))
        .filter(|(_, here, there)| here != there)
        .map(|((package, test), here, there)| format!("{package}.{test}: {here}, {there}"))
        .collect()
}

/// Those differences that docs/go-test.md does not explain.
fn unexplained(here: &Results, there: &Results) -> Vec<String> {
    let explained = fs::read_to_string(root().join("docs/go-test.md")).unwrap();
    let mut differences = differences(here, there);
    differences.retain(|difference| !explained.contains(&format!("| `{difference}` |")));
    differences
}

/// Each difference between the results there and here is explained. Tests of others may count on a clock, and these machines
/// are busy: what differs once is looked at again, and what differs twice differs.
fn assert_ends_as_here(directory: &Path, words: &[&str], router: &VirtualRouter) -> Results {
    let here = results(directory, words, None);
    let mut differ = unexplained(&here, &results(directory, words, Some(router)));
    if !differ.is_empty() {
        println!("once more, because of {differ:#?}");
        let again = unexplained(&here, &results(directory, words, Some(router)));
        differ.retain(|difference| again.contains(difference));
    }
    assert!(differ.is_empty(), "not in docs/go-test.md: {differ:#?}");
    here
}

fn standard_library_tests_match_local(target: Target) {
    let router = VirtualRouter::start(target);
    // A test binary of Go 1.26 has 32 MiB of zeroed data, which a kernel with strict overcommit does not promise.
    let _more = router.allow_overcommit();
    let skip = format!("-skip=^({})$", TOO_LARGE.join("|"));
    let words: Vec<&str> = [&*skip].into_iter().chain(STANDARD).collect();
    let here = assert_ends_as_here(root(), &words, &router);
    assert!(here.len() > 1000, "{}", here.len());
    router.assert_serves_on();
}

/// A copy of a module that may be written, from Go's cache; it is fetched if it is not there.
fn module(name: &str, place: &Path) -> PathBuf {
    let fetched =
        Command::new("go").args(["mod", "download", "-json", name]).current_dir(place).output().unwrap();
    let answer: Value = serde_json::from_slice(&fetched.stdout).unwrap();
    let from = answer["Dir"].as_str().unwrap_or_else(|| panic!("{name}: {}", answer["Error"]));
    let copy = place.join(name.replace('/', "_"));
    let status = Command::new("cp").args(["-r", "--no-preserve=mode", from]).arg(&copy).status().unwrap();
    assert!(status.success());
    copy
}

fn versioned_package_runs(target: Target) {
    let router = VirtualRouter::start(target);
    let ran = router
        .hop()
        .args(["run", "-r", "router", "golang.org/x/example/hello@latest", "-g", "Hi", "desk"])
        .run();
    assert_eq!((ran.stdout(), ran.code), ("Hi, desk!\n", 0), "{}", ran.stderr());
    router.assert_serves_on();
}

fn third_party_module_tests_match_local(target: Target) {
    let router = VirtualRouter::start(target);
    // A test binary of Go 1.26 has 32 MiB of zeroed data, which a kernel with strict overcommit does not promise.
    let _more = router.allow_overcommit();
    for name in MODULES {
        let directory = module(name, &router.path(""));
        let here = assert_ends_as_here(&directory, &["./..."], &router);
        assert!(here.values().any(|result| result == "pass"), "{here:?}");
    }
    router.assert_serves_on();
}
