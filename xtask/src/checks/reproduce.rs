//! `cargo xtask reproduce`: builds an agent a second time, in another directory and another home, and compares it byte by byte.
//!
//! A reproducible agent can be checked by anyone who builds it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build::agents::{AGENTS, copy};
use crate::build::toolchain::{Homes, Toolchain};
use crate::command::output;
use crate::paths;
use hop_formats::segments;

/// Builds the first agent again, elsewhere, and fails if it differs from the one of `cargo xtask build`.
pub fn check() -> Result<()> {
    let [agent, _] = &AGENTS;
    let toolchain = Toolchain::set_up()?;
    agent.build(&toolchain)?;
    let directory = ScratchDirectory::new()?;
    let checkout = directory.0.join("another checkout");
    copy_checkout(&checkout)?;
    let homes = Homes { user: directory.0.join("home"), cargo: directory.0.join("home/cargo") };
    link_cargo_home(&Homes::of_environment()?.cargo, &homes.cargo)?;
    eprintln!("building hopd-{} again, in {}: two minutes on two cores", agent.name, checkout.display());
    let built = agent.compile(&toolchain.elsewhere(checkout, homes))?;
    let first = fs::read(agent.path()).with_context(|| format!("cannot read {}", agent.path().display()))?;
    let second = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let second = segments::alone(&second).with_context(|| format!("{} has no symbols", built.display()))?;
    if let Some(offset) = first_difference(&first, &second) {
        let kept = paths::root().join(format!("target/reproduce/hopd-{}", agent.name));
        copy(&built, &kept)?;
        ensure!(
            false,
            "hopd-{} is not reproducible: {} bytes and {} bytes, which differ from byte {offset} on; {} is the second build, \
             with symbols",
            agent.name,
            first.len(),
            second.len(),
            kept.display()
        );
    }
    println!("hopd-{}: {} bytes, the same from two directories", agent.name, first.len());
    Ok(())
}

/// The offset of the first difference of two files; none if they are equal.
fn first_difference(first: &[u8], second: &[u8]) -> Option<usize> {
    if first == second {
        return None;
    }
    let differs = first.iter().zip(second).position(|(one, other)| one != other);
    Some(differs.unwrap_or(first.len().min(second.len())))
}

/// A directory in the cache that is removed on drop.
struct ScratchDirectory(PathBuf);

impl ScratchDirectory {
    fn new() -> Result<Self> {
        let place = paths::cache()?.join(format!("reproduce-{}", std::process::id()));
        fs::create_dir_all(&place).with_context(|| format!("cannot create {}", place.display()))?;
        Ok(Self(place))
    }
}

impl Drop for ScratchDirectory {
    fn drop(&mut self) {
        // Best effort: its name is not used again.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Copies the working tree: tracked files, and untracked ones that git does not ignore.
fn copy_checkout(to: &Path) -> Result<()> {
    let mut list = Command::new("git");
    list.current_dir(paths::root()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let names = output(&mut list)?;
    let names: Vec<&str> = names.split('\0').filter(|name| !name.is_empty()).collect();
    ensure!(!names.is_empty(), "git knows no file of {}", paths::root().display());
    for name in names {
        let from = paths::root().join(name);
        // A removed file is tracked until the removal is committed.
        if from.is_file() {
            copy(&from, &to.join(name))?;
        }
    }
    Ok(())
}

/// Makes a CARGO_HOME at another path, with the registries and the configuration of this one.
fn link_cargo_home(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        let link = to.join(entry.file_name());
        symlink(entry.path(), &link).with_context(|| format!("cannot create {}", link.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_difference_has_its_offset() {
        assert_eq!(first_difference(b"agent", b"agent"), None);
        assert_eq!(first_difference(b"agent", b"agenT"), Some(4));
        assert_eq!(first_difference(b"agent", b"age"), Some(3));
    }
}
