//! Packages of the system, of Python and of Rust that the build needs. What must stay true: it is said what is installed and why
//! before it is installed, and what is there is never installed again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::{cargo, run, succeeds};
use crate::paths::{self, cache, which};

/// The version of zig that the agents are linked with. Its C library is part of the agent.
pub const ZIG: &str = "0.17.1";

/// The version of cargo-fuzz that builds the fuzz targets.
const CARGO_FUZZ: &str = "0.13.1";

/// Installs Debian packages, or says what to do where apt or the right to use it is missing.
pub fn apt(packages: &[&str], why: &str) -> Result<()> {
    let list = packages.join(" ");
    eprintln!("installing the Debian packages {list}: {why}");
    if which("apt-get").is_none() {
        bail!("there is no apt-get here; install the equivalents of {list} yourself");
    }
    let sudo: &[&str] = if is_root()? { &[] } else { &["sudo"] };
    if !sudo.is_empty() && which("sudo").is_none() {
        bail!("this needs root, and there is no sudo; as root: apt-get update && apt-get install {list}");
    }
    let apt_get = |words: &[&str]| {
        // `env` inside sudo, which keeps no variable.
        let prefix = [sudo, &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]].concat();
        let mut command = Command::new(prefix[0]);
        command.args(&prefix[1..]).args(words);
        command
    };
    // The lists of a fresh machine are empty or old. One source that does not answer need not be the one that is needed.
    if let Err(error) = run(&mut apt_get(&["update", "--quiet", "--quiet"])) {
        eprintln!("{error}; trying to install all the same");
    }
    // What dpkg says of each step is for nobody; what goes wrong is on standard error.
    let install = ["install", "--yes", "--quiet", "--quiet", "--no-install-recommends"];
    run(apt_get(&install).args(packages).stdout(Stdio::null()))
}

/// Installs the packages of which a program, or a file by its absolute path, is not there. The pairs are what is looked
/// for and the package that brings it.
pub fn require(needs: &[(&str, &str)], why: &str) -> Result<()> {
    let is_there = |proof: &str| {
        if proof.starts_with('/') { Path::new(proof).exists() } else { which(proof).is_some() }
    };
    let missing: Vec<&str> =
        needs.iter().filter(|(proof, _)| !is_there(proof)).map(|(_, package)| *package).collect();
    if missing.is_empty() { Ok(()) } else { apt(&missing, why) }
}

fn is_root() -> Result<bool> {
    Ok(crate::command::output(Command::new("id").arg("-u"))? == "0")
}

/// qemu-user, which runs agents and their programs without a router around them.
pub fn qemu_user() -> Result<()> {
    let found = |arch| ["", "-static"].iter().any(|suffix| which(&format!("qemu-{arch}{suffix}")).is_some());
    if found("mips") && found("mipsel") {
        return Ok(());
    }
    apt(&["qemu-user-static"], "virtual routers that are an agent alone run under qemu-user")
}

/// QEMU's whole machines, which are virtual routers, and ssh, by which they are enrolled.
pub fn qemu_system() -> Result<()> {
    let needs = [("qemu-system-mipsel", "qemu-system-mips"), ("ssh", "openssh-client")];
    require(&needs, "virtual routers with a kernel of their own run under QEMU, and are enrolled over ssh")
}

/// A server of ssh, which is not started by being installed, and what tells it of another home than the user's.
pub fn ssh_server() -> Result<()> {
    let wrapper = format!("/usr/lib/{}-linux-gnu/libnss_wrapper.so", std::env::consts::ARCH);
    let needs =
        [("/usr/sbin/dropbear", "dropbear-bin"), (&*wrapper, "libnss-wrapper"), ("ssh", "openssh-client")];
    require(&needs, "one program to many is compared with ssh, whose servers run as long as that takes")
}

/// The zig to link with: the one in PATH if it is the right version, else one from PyPI in the user's cache.
pub fn zig() -> Result<Vec<PathBuf>> {
    if let Some(zig) = which("zig")
        && crate::command::output(Command::new(&zig).arg("version")).is_ok_and(|version| version == ZIG)
    {
        return Ok(vec![zig]);
    }
    // Not `zig-…`: an older Hop installed that one without digests.
    let environment = cache()?.join(format!("ziglang-{ZIG}"));
    let python = environment.join("bin/python3");
    let zig: Vec<PathBuf> = vec![python.clone(), "-m".into(), "ziglang".into()];
    let works = |python: &PathBuf| succeeds(Command::new(python).args(["-m", "ziglang", "version"]));
    if works(&python) {
        return Ok(zig);
    }
    eprintln!(
        "installing ziglang {ZIG} from PyPI into {}: it links the agents against musl for soft-float MIPS",
        environment.display()
    );
    // A broken environment, such as one of a Python that is gone, is made anew.
    if environment.exists() {
        std::fs::remove_dir_all(&environment)
            .with_context(|| format!("cannot remove {}", environment.display()))?;
    }
    if !succeeds(Command::new("python3").args(["-m", "venv"]).arg(&environment)) {
        apt(&["python3", "python3-venv"], "zig comes as a Python package")?;
        run(Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    }
    run(&mut pip_install(&python, &paths::root().join("xtask/ziglang.txt")))?;
    if !works(&python) {
        bail!("ziglang was installed into {} but does not run", environment.display());
    }
    Ok(zig)
}

/// What installs the packages that a file names, each only if it is the file of one of its digests; nothing that they might want
/// besides, and nothing that would run while it is installed.
fn pip_install(python: &Path, requirements: &Path) -> Command {
    let mut command = Command::new(python);
    command.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--require-hashes",
        "--no-deps",
        "--only-binary",
        ":all:",
    ]);
    command.arg("--requirement").arg(requirements);
    command
}

/// cargo-fuzz, in the user's cache.
pub fn cargo_fuzz() -> Result<PathBuf> {
    let directory = cache()?.join(format!("tools-cargo-fuzz-{CARGO_FUZZ}"));
    let program = directory.join("bin/cargo-fuzz");
    if !program.is_file() {
        eprintln!(
            "installing cargo-fuzz {CARGO_FUZZ} by cargo into {}: it builds the fuzz targets",
            directory.display()
        );
        let mut install = cargo();
        // In a directory of cargo's own, which is gone afterwards.
        install.env_remove("CARGO_TARGET_DIR").args(["install", "--quiet", "--locked", "--root"]);
        run(install.arg(&directory).arg(format!("cargo-fuzz@{CARGO_FUZZ}")))?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zig_is_pinned_by_digests() {
        let pinned = include_str!("../../ziglang.txt");
        assert!(pinned.contains(&format!("\nziglang=={ZIG} \\\n")));
        assert_eq!(pinned.matches("--hash=sha256:").count(), 2);
    }
}
