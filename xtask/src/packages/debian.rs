//! Packages of Debian.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::command::{output, run};
use crate::paths::which;

/// Installs Debian packages, or says what to do if apt or root is missing.
pub fn apt(packages: &[&str], why: &str) -> Result<()> {
    let list = packages.join(" ");
    eprintln!("installing the Debian packages {list}: {why}");
    if which("apt-get").is_none() {
        bail!("apt-get is not installed; install the equivalents of {list} yourself");
    }
    let sudo: &[&str] = if is_root()? { &[] } else { &["sudo"] };
    if !sudo.is_empty() && which("sudo").is_none() {
        bail!(
            "this needs root, and sudo is not installed; as root: apt-get update && apt-get install {list}"
        );
    }
    let apt_get = |words: &[&str]| {
        // sudo drops variables, so `env` sets this one inside.
        let prefix = [sudo, &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]].concat();
        let mut command = Command::new(prefix[0]);
        command.args(&prefix[1..]).args(words);
        command
    };
    // The lists of a fresh machine are empty or old. The packages may come from another source than one that fails.
    if let Err(error) = run(&mut apt_get(&["update", "--quiet", "--quiet"])) {
        eprintln!("{error}; installing anyway");
    }
    // dpkg prints every step on standard output, and errors on standard error.
    let install = ["install", "--yes", "--quiet", "--quiet", "--no-install-recommends"];
    run(apt_get(&install).args(packages).stdout(Stdio::null()))
}

/// Installs missing packages. Each pair is a program in PATH, or a file by its absolute path, and the package that has it.
pub fn require(needs: &[(&str, &str)], why: &str) -> Result<()> {
    let exists = |proof: &str| {
        if proof.starts_with('/') { Path::new(proof).exists() } else { which(proof).is_some() }
    };
    let missing: Vec<&str> =
        needs.iter().filter(|(proof, _)| !exists(proof)).map(|(_, package)| *package).collect();
    if missing.is_empty() { Ok(()) } else { apt(&missing, why) }
}

fn is_root() -> Result<bool> {
    Ok(output(Command::new("id").arg("-u"))? == "0")
}
