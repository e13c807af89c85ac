//! `cargo xtask dist --check`: looks at the packages as who installs them would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command::{output, run_quietly};
use crate::packages::debian;
use crate::paths::which;

/// Fails unless two runs have made the same packages.
pub fn check_equal(first: &[PathBuf], second: &[PathBuf]) -> Result<()> {
    ensure!(first.len() == second.len(), "{} packages, and {} the second time", first.len(), second.len());
    for (one, other) in first.iter().zip(second) {
        let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        ensure!(
            read(one)? == read(other)?,
            "{} and {} differ: it is not reproducible",
            one.display(),
            other.display()
        );
    }
    println!("{} files are the same, made twice", first.len());
    Ok(())
}

/// Fails unless the packages of these machines, by Debian's names, can be unpacked, and what is in them works.
pub fn check(directory: &Path, version: &str, machines: Vec<&str>) -> Result<()> {
    debian::require(&[("man", "man-db"), ("groff", "groff-base")], "the man pages are checked with them")?;
    for machine in machines {
        let deb = directory.join(format!("hop_{version}_{machine}.deb"));
        for (field, expected) in [("Package", "hop"), ("Version", version), ("Architecture", machine)] {
            let found = output(Command::new("dpkg-deb").arg("--field").arg(&deb).arg(field))?;
            ensure!(found == expected, "{}: {field} is {found:?}", deb.display());
        }
        let unpacked = directory.join(format!("unpacked-{machine}"));
        crate::packaging::empty_directory(&unpacked)?;
        run_quietly(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(&unpacked))?;
        check_hop(&unpacked.join("usr/bin/hop"), version, machine)?;
        check_completions(&unpacked.join("usr/share"))?;
        check_man_pages(&directory.join(format!("hop-{version}-linux-{machine}/man/man1")))?;
        fs::remove_dir_all(&unpacked).with_context(|| format!("cannot remove {}", unpacked.display()))?;
        println!("hop for {machine}: the package, its program, scripts and man pages are good");
    }
    Ok(())
}

/// Runs it: here, or under qemu-user with the C library of a cross compiler.
fn check_hop(hop: &Path, version: &str, machine: &str) -> Result<()> {
    let mut command = match (machine, std::env::consts::ARCH) {
        ("amd64", "x86_64") | ("arm64", "aarch64") => Command::new(hop),
        ("arm64", _) => {
            let needs = [
                ("qemu-aarch64-static", "qemu-user-static"),
                ("/usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1", "libc6-arm64-cross"),
                ("/usr/aarch64-linux-gnu/lib/libgcc_s.so.1", "libgcc-s1-arm64-cross"),
            ];
            debian::require(&needs, "hop for arm64 is run with them")?;
            let mut qemu = Command::new("qemu-aarch64-static");
            qemu.args(["-L", "/usr/aarch64-linux-gnu"]).arg(hop);
            qemu
        }
        _ => {
            println!("hop for {machine} is not run on this machine");
            return Ok(());
        }
    };
    let said = output(command.arg("version"))?;
    ensure!(said == format!("hop {version}"), "{} says {said:?}", hop.display());
    Ok(())
}

/// Lets each shell that is installed read its script.
fn check_completions(share: &Path) -> Result<()> {
    for (shell, script) in [
        ("bash", "bash-completion/completions/hop"),
        ("zsh", "zsh/vendor-completions/_hop"),
        ("fish", "fish/vendor_completions.d/hop.fish"),
    ] {
        let script = share.join(script);
        ensure!(script.is_file(), "{} is not in the package", script.display());
        if which(shell).is_some() {
            run_quietly(Command::new(shell).arg("-n").arg(&script))?;
        }
    }
    Ok(())
}

/// Formats each page; groff's warnings are errors.
fn check_man_pages(directory: &Path) -> Result<()> {
    let pages = crate::packaging::files(directory)?;
    ensure!(pages.len() > 20, "{} has {} man pages", directory.display(), pages.len());
    for page in pages {
        let mut man = Command::new("man");
        man.args(["--warnings", "--local-file"]).arg(&page).env("LC_ALL", "C.UTF-8").env("MANWIDTH", "80");
        let output = man.output().context("cannot run man")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && said.is_empty(), "{}: {}", page.display(), said.trim_end());
        ensure!(
            String::from_utf8_lossy(&output.stdout).contains("SYNOPSIS"),
            "{} has no text",
            page.display()
        );
    }
    Ok(())
}
