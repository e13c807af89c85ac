//! Builds dropbear, dropbearkey and scp as one static file, from Debian's source package.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::available_parallelism;

use anyhow::{Context, Result};

use super::cached_build::{CachedBuild, remove, scratch};
use super::sources::Sources;
use super::{System, routers};
use crate::build::toolchain::{C_COMPILER, Toolchain};
use crate::command::{run, succeeds};
use crate::packages::zig;

/// Options of configure: no libraries, and no records of logins in files that these systems do not have.
const FEATURES: [&str; 7] = [
    "--enable-static",
    "--disable-zlib",
    "--disable-pam",
    "--disable-lastlog",
    "--disable-utmp",
    "--disable-wtmp",
    "--disable-utmpx",
];

/// Returns a directory with `dropbear`, which is also `dropbearkey` and `scp`, by the name that it is called by.
pub fn build(system: System, toolchain: &Toolchain, sources: &mut Sources) -> Result<PathBuf> {
    let architecture = system.architecture;
    // DD-WRT writes root's keys from nvram into root's home at boot; the others keep them in the host keys' directory.
    let keys = if system.flavour == "dd-wrt" { "home" } else { "etc" };
    let patch = routers().join("dropbear.patch");
    let build = CachedBuild::new(format!("dropbear-{keys}-{architecture}"), include_str!("dropbear.rs"))
        .input(C_COMPILER)
        .input(zig::VERSION)
        .input_file(&patch)?;
    build.get(&["dropbear"], |place| {
        let (source, version) = sources.get("dropbear")?;
        apply(&patch, &source)?;
        eprintln!(
            "building dropbear {version} for {architecture}, keys in {keys}: half a minute on two cores"
        );
        let objects = scratch("dropbear")?;
        let options = if keys == "etc" { "#define ROOT_KEYS_DIRECTORY \"/etc/dropbear\"\n" } else { "" };
        fs::write(objects.join("localoptions.h"), options).context("cannot write dropbear's options")?;
        compile(&source, &objects, toolchain, architecture)
            .with_context(|| format!("see {}", objects.join("log").display()))?;
        fs::copy(objects.join("dropbearmulti"), place.join("dropbear")).context("cannot keep dropbear")?;
        system.check(&place.join("dropbear"))?;
        remove(&objects)
    })
}

/// Applies the patch, unless it is applied: two flavours are built from one tree.
fn apply(patch: &Path, source: &Path) -> Result<()> {
    let command = |extra: &[&str]| {
        let mut command = Command::new("patch");
        command
            .current_dir(source)
            .args(["--strip=1", "--silent", "--force", "--input"])
            .arg(patch)
            .args(extra);
        command
    };
    if succeeds(&mut command(&["--reverse", "--dry-run"])) {
        return Ok(());
    }
    run(&mut command(&[]))
}

fn compile(source: &Path, objects: &Path, toolchain: &Toolchain, architecture: &str) -> Result<()> {
    let (cc, ar) = toolchain.c_compiler(architecture)?;
    let log = File::create(objects.join("log")).context("cannot create a log")?;
    let to_log = || log.try_clone().map(Stdio::from).context("cannot write a log");
    let mut configure = Command::new(source.join("configure"));
    configure
        .current_dir(objects)
        .arg(format!("--host={architecture}-linux-musl"))
        .args(FEATURES)
        // Without symbols and zig's debug information, which are four fifths of the file: a router has it in RAM. The prefix map
        // keeps paths of this machine out of its assertions.
        .arg(format!(
            "CFLAGS=-Os -ffunction-sections -fdata-sections -ffile-prefix-map={}/=",
            source.display()
        ))
        .arg("LDFLAGS=-static -s -Wl,--gc-sections")
        // zig's ar writes the index itself.
        .arg("RANLIB=:")
        .arg(format!("CC={}", cc.display()))
        .arg(format!("AR={}", ar.display()));
    run(configure.stdin(Stdio::null()).stdout(to_log()?).stderr(to_log()?))?;
    let jobs = available_parallelism().map_or(1, |jobs| jobs.get());
    let mut make = Command::new("make");
    make.current_dir(objects)
        .args(["--silent", &format!("--jobs={jobs}"), "MULTI=1", "PROGRAMS=dropbear dropbearkey scp"])
        .env_remove("MAKEFLAGS");
    run(make.stdout(to_log()?).stderr(to_log()?))
}
