//! The licences of all that is in `hop` and in the agents, with their texts.
//!
//! **Invariants:** each crate that is linked is in the list with a text, or there is no list.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::Machine;
use crate::build::agents::AGENTS;
use crate::command::{cargo, output};
use crate::packages;

/// What is not in crates, and in which programs it is; the text is a file of zig's, below the directory with its own licence.
const C_LIBRARIES: [(&str, &str); 2] = [
    ("musl, the C library of the agents", "lib/libc/musl/COPYRIGHT"),
    ("LLVM's compiler-rt and libunwind, in the agents", "lib/libunwind/LICENSE.TXT"),
];

/// Directories in crates whose content is not linked.
const NOT_LINKED: [&str; 6] = ["benches", "contrib", "examples", "fuzz", "programs", "tests"];

/// A package, as `cargo metadata` describes it.
#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    manifest_path: PathBuf,
    /// None for a crate of this repository.
    source: Option<String>,
}

/// What of the output of `cargo metadata` is used.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// The list and the texts, for `hop` on these machines and the agents in it.
pub fn collect(machines: &[Machine]) -> Result<String> {
    let mut linked = BTreeSet::new();
    for machine in machines {
        linked.extend(linked_with("hop", &machine.target())?);
    }
    for agent in &AGENTS {
        linked.extend(linked_with("hopd", agent.target)?);
    }
    let metadata = output(cargo().args(["metadata", "--format-version", "1", "--locked", "--all-features"]))?;
    let metadata: Metadata =
        serde_json::from_str(&metadata).context("cargo metadata has printed something else")?;
    let packages: Vec<_> = metadata
        .packages
        .iter()
        .filter(|package| package.source.is_some())
        .filter(|package| linked.contains(&format!("{} v{}", package.name, package.version)))
        .collect();
    ensure!(packages.len() > 50, "cargo tree names only {} crates", packages.len());
    let mut text = "Hop and what is linked into hop and hopd: which licences, and their texts.\n\nHop itself: MIT OR Apache-2.0\n".to_owned();
    text.push_str(
        "Rust's standard library: MIT OR Apache-2.0, Copyright (c) The Rust Project Contributors\n",
    );
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in &packages {
        let licence = package.license.as_deref().unwrap_or("see its text");
        let title = format!("{} {}", package.name, package.version);
        text.push_str(&format!("{title}: {licence}\n"));
        for licence_text in texts_of(package, &packages)? {
            texts.entry(licence_text).or_default().push(title.clone());
        }
    }
    let zig = zig_directory()?;
    for (title, file) in C_LIBRARIES {
        text.push_str(&format!("{title}\n"));
        texts.entry(read(&zig.join(file))?).or_default().push(title.to_owned());
    }
    for file in ["LICENSE-MIT", "LICENSE-APACHE"] {
        let own = read(&crate::paths::root().join(file))?;
        texts.entry(own).or_default().extend(["Hop".to_owned(), "Rust's standard library".to_owned()]);
    }
    // By the first crate that has a text.
    let mut texts: Vec<_> = texts.into_iter().collect();
    texts.sort_by(|one, other| one.1.cmp(&other.1).then_with(|| one.0.cmp(&other.0)));
    for (licence, mut titles) in texts {
        titles.dedup();
        let rule = "-".repeat(79);
        text.push_str(&format!("\n{rule}\n{}:\n\n{}\n", titles.join(", "), licence.trim_end()));
    }
    Ok(text)
}

/// The crates that are linked into a package's program, as `name vVERSION`. No macros, which run while it is compiled.
fn linked_with(package: &str, target: &str) -> Result<BTreeSet<String>> {
    let tree = ["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"];
    let tree = output(cargo().args(tree).args(["--package", package, "--target", target]))?;
    let name = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    Ok(tree.lines().map(name).collect())
}

/// The texts that a crate has, or else those of a crate from the same repository.
fn texts_of(package: &Package, others: &[&Package]) -> Result<Vec<String>> {
    let own = texts_in(package.manifest_path.parent().unwrap_or(Path::new("/")))?;
    if !own.is_empty() {
        return Ok(own);
    }
    let siblings =
        others.iter().filter(|other| other.repository.is_some() && other.repository == package.repository);
    for sibling in siblings {
        let texts = texts_in(sibling.manifest_path.parent().unwrap_or(Path::new("/")))?;
        if !texts.is_empty() {
            return Ok(texts);
        }
    }
    anyhow::bail!(
        "{} {} has no text of its licence, and neither has a crate of its repository",
        package.name,
        package.version
    )
}

/// The texts of licences in a directory and those below it.
fn texts_in(directory: &Path) -> Result<Vec<String>> {
    let failed = || format!("cannot read {}", directory.display());
    let mut entries: Vec<_> = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .with_context(failed)?;
    entries.sort();
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
    // Where both are, COPYING is a second licence that one may choose: zstd's and LZ4's GPL.
    let has_licence = entries.iter().any(|path| name(path).starts_with("LICENSE"));
    let mut texts = Vec::new();
    for path in &entries {
        let upper = name(path);
        if path.is_dir() {
            if !NOT_LINKED.contains(&upper.to_lowercase().as_str()) {
                texts.extend(texts_in(path)?);
            }
        } else if ["LICENSE", "LICENCE", "NOTICE", "UNLICENSE"].iter().any(|start| upper.starts_with(start))
            || (upper.starts_with("COPYING") && !has_licence)
        {
            texts.push(read(path)?);
        }
    }
    Ok(texts)
}

/// The directory of zig with its libraries' sources.
fn zig_directory() -> Result<PathBuf> {
    let zig = packages::zig::install()?;
    let [program, rest @ ..] = &zig[..] else { anyhow::bail!("zig has no command line") };
    let said = output(Command::new(program).args(rest).arg("env"))?;
    let line = said.lines().find(|line| line.contains("lib_dir")).context("`zig env` names no lib_dir")?;
    let path = line.split('"').rfind(|part| part.contains('/')).context("`zig env` names no lib_dir")?;
    Ok(Path::new(path).parent().unwrap_or(Path::new(path)).to_owned())
}

fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"))
}
