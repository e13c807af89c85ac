//! The Go programs that tests run, and the files that `cargo xtask build` makes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use hop::client::capabilities::Capabilities;
use hop::transfer::encode::{self, Decoders};
use tempfile::TempDir;

use crate::Target;

/// Has Go link a program to where neither agent nor C programs have code.
pub const ELSEWHERE: &str = "-ldflags=-s -w -T 0x10001000";

/// The top of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A file that `cargo xtask build` makes.
pub fn dist(name: &str) -> PathBuf {
    let path = root().join("target/dist").join(name);
    assert!(path.exists(), "{} is not there: run `cargo xtask build`", path.display());
    path
}

/// The fixtures that this process has built, by their files. `go build` would link a program again at each call.
static BUILT: Mutex<BTreeMap<PathBuf, Arc<OnceLock<()>>>> = Mutex::new(BTreeMap::new());

/// A Go program of one behaviour, built from `tests/fixtures/NAME` for the target, once per process.
pub fn fixture(target: Target, name: &str) -> PathBuf {
    let output = root().join("target/fixtures").join(target.goarch()).join(name);
    let once = BUILT.lock().unwrap().entry(output.clone()).or_default().clone();
    let package = format!("./tests/fixtures/{name}");
    once.get_or_init(|| build_go(&package, target.goarch(), &[("GOMIPS", "softfloat")], &output));
    output
}

/// The same, linked to where neither agent nor C programs have code on a router, so that a profile tells them apart.
pub fn fixture_elsewhere(target: Target, name: &str) -> PathBuf {
    let output = root().join("target/fixtures/elsewhere").join(target.goarch()).join(name);
    let env = [("GOMIPS", "softfloat")];
    build(&format!("./tests/fixtures/{name}"), ELSEWHERE, target.goarch(), &env, &output);
    output
}

/// Bytes that a program is on the wire when it is sent for the first time over a fast link.
pub fn length_on_the_wire(program: &Path) -> u64 {
    let capabilities = ["checksum", "zstd", "lz4", "delta"].map(str::to_owned).to_vec();
    let decoders = Decoders::of(&Capabilities::from(capabilities));
    let content = fs::read(program).unwrap().into();
    encode::encode(&content, decoders, None, None).bytes.len() as u64
}

/// What the fixture `leave` writes into a file of this length: nothing that packing makes smaller.
pub fn left(bytes: usize) -> Vec<u8> {
    let mixed = |number: u32| {
        let mixed = number.wrapping_mul(2_654_435_761);
        ((mixed ^ mixed >> 15).wrapping_mul(2_246_822_519) >> 24) as u8
    };
    (0..bytes as u32).map(mixed).collect()
}

/// Builds a package with plain `go build`.
pub fn build_go(package: &str, goarch: &str, env: &[(&str, &str)], output: &Path) {
    build(package, "-ldflags=-s -w", goarch, env, output);
}

fn build(package: &str, flags: &str, goarch: &str, env: &[(&str, &str)], output: &Path) {
    // Built aside and renamed: another test may be running the same program.
    let directory = output.parent().unwrap();
    fs::create_dir_all(directory).unwrap();
    let built = TempDir::new_in(directory).unwrap();
    let program = built.path().join("program");
    let status = Command::new("go")
        .args(["build", "-trimpath", flags, "-o"])
        .arg(&program)
        .arg(package)
        .current_dir(root())
        .env("CGO_ENABLED", "0")
        .env("GOOS", "linux")
        .env("GOARCH", goarch)
        .envs(env.iter().copied())
        .status()
        .expect("go can be run");
    assert!(status.success(), "{package} builds for {goarch}");
    fs::rename(program, output).unwrap();
}
