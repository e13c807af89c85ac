//! Debian's source packages, fetched by apt-get with a copy of the system's sources in which `deb` is `deb-src`.
//!
//! **Invariants:** the system's configuration of apt is not changed; apt checks signatures; the copy, which may contain a password,
//! is readable for its owner only, and is removed as soon as apt-get has fetched.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cached_build::{remove, scratch};
use crate::command::run_quietly;
use crate::packages;

/// The directory of apt's sources.
const ETC: &str = "/etc/apt";

/// The packages that are fetched, together because they are mostly built together.
const PACKAGES: [&str; 2] = ["busybox", "dropbear"];

/// Source packages, fetched on first use.
pub struct Sources {
    /// Where they are unpacked; none before the first use.
    directory: Option<PathBuf>,
}

impl Sources {
    /// No packages yet.
    pub fn new() -> Self {
        Self { directory: None }
    }

    /// The tree of a source package with Debian's patches, and its version.
    pub fn get(&mut self, package: &str) -> Result<(PathBuf, String)> {
        let directory = match &self.directory {
            Some(directory) => directory,
            None => self.directory.insert(fetch()?),
        };
        find(directory, package)?.with_context(|| format!("apt-get source left no sources of {package}"))
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            // Best effort: the next build empties the directory.
            let _ = remove(directory);
        }
    }
}

/// Fetches and unpacks all packages into one directory.
fn fetch() -> Result<PathBuf> {
    // dpkg-dev has the programs that unpack and patch.
    let tools = [
        ("dpkg-source", "dpkg-dev"),
        ("make", "make"),
        ("gcc", "gcc"),
        ("/usr/include/stdio.h", "libc6-dev"),
    ];
    packages::debian::require(&tools, "busybox and dropbear are built from Debian's source packages")?;
    let directory = scratch("sources")?;
    let apt = scratch("sources/apt")?;
    let fetched = fetch_with(&apt, &directory);
    remove(&apt)?;
    fetched?;
    Ok(directory)
}

/// Fetches the packages into `directory`, with apt's files in `apt`.
fn fetch_with(apt: &Path, directory: &Path) -> Result<()> {
    write_entries(&create_private(apt.join("entries"))?)?;
    fs::create_dir_all(apt.join("lists/partial"))
        .and_then(|()| fs::create_dir_all(apt.join("cache/archives/partial")))
        .context("cannot create a directory for apt")?;
    eprintln!("fetching apt's list of source packages");
    // An entry without sources fails, and the packages may come from another one.
    if let Err(error) = run_quietly(apt_get(apt, directory).arg("update")) {
        eprintln!("{error}; trying anyway");
    }
    eprintln!("fetching the source packages {}", PACKAGES.join(" "));
    run_quietly(apt_get(apt, directory).arg("source").args(PACKAGES))
}

fn create_private(directory: PathBuf) -> Result<PathBuf> {
    let created = DirBuilder::new().mode(0o700).create(&directory);
    created.with_context(|| format!("cannot create {}", directory.display()))?;
    Ok(directory)
}

fn apt_get(apt: &Path, directory: &Path) -> Command {
    let mut command = Command::new("apt-get");
    command.current_dir(directory).args(["--quiet", "--quiet"]);
    let place = |name: &str| apt.join(name).display().to_string();
    for option in [
        "Dir::Etc::SourceList=/dev/null".to_owned(),
        format!("Dir::Etc::SourceParts={}", place("entries")),
        format!("Dir::State::Lists={}", place("lists")),
        format!("Dir::Cache={}", place("cache")),
        "Acquire::Languages=none".to_owned(),
    ] {
        command.arg("--option").arg(option);
    }
    command
}

/// The tree and the version of an unpacked package.
fn find(directory: &Path, package: &str) -> Result<Option<(PathBuf, String)>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let tree = names.iter().find(|name| {
        name.strip_prefix(package).is_some_and(|rest| rest.starts_with('-')) && directory.join(name).is_dir()
    });
    let version =
        names.iter().find_map(|name| name.strip_prefix(package)?.strip_prefix('_')?.strip_suffix(".dsc"));
    Ok(tree.zip(version).map(|(tree, version)| (directory.join(tree), version.to_owned())))
}

/// Writes the machine's sources as entries for source packages into a directory.
fn write_entries(place: &Path) -> Result<()> {
    let mut found = vec![Path::new(ETC).join("sources.list")];
    if let Ok(entries) = fs::read_dir(Path::new(ETC).join("sources.list.d")) {
        found.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    let mut written = 0;
    for path in found {
        let (Some(name), Ok(content)) = (path.file_name(), fs::read_to_string(&path)) else { continue };
        let translated = match path.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => paragraphs_for_sources(&content),
            Some("list") => lines_for_sources(&content),
            _ => continue,
        };
        let path = place.join(name);
        fs::write(&path, translated).with_context(|| format!("cannot write {}", path.display()))?;
        written += 1;
    }
    if written == 0 {
        bail!("apt has no sources: neither {ETC}/sources.list nor a file in {ETC}/sources.list.d");
    }
    Ok(())
}

/// Translates one-line entries: `deb [options] URI suite components`.
fn lines_for_sources(content: &str) -> String {
    content
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t'])))
        .map(|rest| format!("deb-src{rest}\n"))
        .collect()
}

/// Translates entries in deb822 format: a paragraph each, with a field `Types`.
fn paragraphs_for_sources(content: &str) -> String {
    content
        .lines()
        .map(|line| match line.split_once(':') {
            Some((field, _)) if field.eq_ignore_ascii_case("types") => "Types: deb-src\n".to_owned(),
            _ => format!("{line}\n"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn copied_entries_are_private() {
        let place = tempfile::tempdir().unwrap();
        let entries = create_private(place.path().join("entries")).unwrap();
        assert_eq!(entries.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn one_line_entries_keep_their_options() {
        let content = "# deb file:/commented stable main\n\
                       deb [signed-by=/usr/share/keyrings/k.gpg] file:/debian stable main contrib\n\
                       deb-src file:/debian stable main\n\
                       \tdeb\tfile:/security stable main\n";
        assert_eq!(
            lines_for_sources(content),
            "deb-src [signed-by=/usr/share/keyrings/k.gpg] file:/debian stable main contrib\n\
             deb-src\tfile:/security stable main\n"
        );
    }

    #[test]
    fn paragraphs_keep_their_other_fields() {
        let content = "types: deb deb-src\nURIs: file:/debian\nSuites: stable\nSigned-By:\n -----BEGIN\n .\n\nTypes: deb\n";
        assert_eq!(
            paragraphs_for_sources(content),
            "Types: deb-src\nURIs: file:/debian\nSuites: stable\nSigned-By:\n -----BEGIN\n .\n\nTypes: deb-src\n"
        );
    }
}
