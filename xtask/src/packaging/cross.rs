//! `hop` for another machine than this one, linked by zig against an old C library.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::Machine;
use crate::build::toolchain::{host_cargo_build, write_script};
use crate::command::{output, run};
use crate::packages;
use crate::paths;

/// The version of glibc that it needs at least: that of Debian 11 and Ubuntu 20.04.
const GLIBC: &str = "2.31";

/// What zig refuses, or has its own of: Rust's words for the target.
const C_COMPILER: &str = "\
for argument do
    shift
    case $argument in --target=*) ;; *) set -- \"$@\" \"$argument\" ;; esac
done
exec ZIG cc -target TARGET \"$@\"
";

/// Builds it, and returns its path.
pub fn build(machine: Machine) -> Result<PathBuf> {
    let target = machine.target();
    let zig: Vec<_> = packages::zig::install()?.iter().map(|word| format!("'{}'", word.display())).collect();
    let zig = zig.join(" ");
    let directory = paths::root().join("target/toolchain");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let cc = directory.join(format!("cc-{target}"));
    let ar = directory.join(format!("ar-{target}"));
    let zig_target = format!("{}-linux-gnu.{GLIBC}", machine.kernel());
    write_script(&cc, &C_COMPILER.replace("TARGET", &zig_target).replace("ZIG", &zig))?;
    write_script(&ar, &format!("exec {zig} ar \"$@\"\n"))?;

    eprintln!("building hop for {}: four minutes on two cores", machine.debian());
    let lower = target.replace('-', "_");
    let mut build = host_cargo_build()?;
    build
        .args(["--quiet", "--release", "--package", "hop", "--target", &target])
        .env("HOP_AGENTS", paths::dist())
        .env(format!("CC_{lower}"), &cc)
        .env(format!("AR_{lower}"), &ar)
        .env(format!("CARGO_TARGET_{}_LINKER", lower.to_uppercase()), &cc);
    if !has_standard_library(&target)? {
        // As the agents' is: it takes the source of the library, which `cargo xtask setup` has installed for them.
        build.arg("-Zbuild-std=std").env("RUSTC_BOOTSTRAP", "1");
    }
    run(&mut build)?;
    Ok(paths::root().join(format!("target/{target}/release/hop")))
}

/// True if the compiler has a compiled standard library for the target: `rustup target add`.
fn has_standard_library(target: &str) -> Result<bool> {
    let mut rustc = Command::new("rustc");
    rustc.current_dir(paths::root()).args(["--print", "target-libdir", "--target", target]);
    Ok(PathBuf::from(output(&mut rustc)?).is_dir())
}
