//! Debian's source packages. The system's own configuration of apt stays as it is: a copy of it with `deb-src` for `deb`
//! and lists of its own is used. apt checks the signatures, as always. What must stay true: that copy, which may have a
//! password in it, is for its owner only, and is removed as soon as apt-get has fetched.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::part::{remove, scratch};
use crate::command::run_quietly;
use crate::packages;

/// Where apt looks for what it may install from.
const ETC: &str = "/etc/apt";

/// All that something is built from. One is hardly ever built without the other.
const PACKAGES: [&str; 2] = ["busybox", "dropbear"];

/// Source packages, fetched when the first is asked for.
pub struct Sources {
    /// Where they are unpacked, once they are.
    directory: Option<PathBuf>,
}

impl Sources {
    /// Nothing is asked yet.
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
            // What cannot be removed is in the way of nobody: the next build empties it.
            let _ = remove(directory);
        }
    }
}

/// Fetches and unpacks all packages into one directory.
fn fetch() -> Result<PathBuf> {
    // dpkg-dev brings the programs that unpack and patch.
    let tools = [
        ("dpkg-source", "dpkg-dev"),
        ("make", "make"),
        ("gcc", "gcc"),
        ("/usr/include/stdio.h", "libc6-dev"),
    ];
    packages::require(&tools, "busybox and dropbear are built from Debian's source packages")?;
    let directory = scratch("sources")?;
    let apt = scratch("sources/apt")?;
    let fetched = fetch_with(&apt, &directory);
    remove(&apt)?;
    fetched?;
    Ok(directory)
}

/// Fetches with apt's own files in one directory, and the packages in another.
fn fetch_with(apt: &Path, directory: &Path) -> Result<()> {
    write_entries(&create_private(apt.join("entries"))?)?;
    fs::create_dir_all(apt.join("lists/partial"))
        .and_then(|()| fs::create_dir_all(apt.join("cache/archives/partial")))
        .context("cannot create a directory for apt")?;
    eprintln!("asking apt for its list of source packages");
    // One entry that has no sources need not be the one that is needed.
    if let Err(error) = run_quietly(apt_get(apt, directory).arg("update")) {
        eprintln!("{error}; trying all the same");
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

/// Writes the machine's own entries as entries for source packages into a directory.
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

/// Entries of one line each: `deb [options] URI suite components`.
fn lines_for_sources(content: &str) -> String {
    content
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t'])))
        .map(|rest| format!("deb-src{rest}\n"))
        .collect()
}

/// Entries of a paragraph each, with a field `Types`.
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
    fn a_copy_of_the_entries_is_for_its_owner_only() {
        let place = tempfile::tempdir().unwrap();
        let entries = create_private(place.path().join("entries")).unwrap();
        assert_eq!(entries.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn one_line_entries_become_source_entries_and_keep_their_options() {
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
    fn paragraphs_become_source_entries_and_keep_their_other_fields() {
        let content = "types: deb deb-src\nURIs: file:/debian\nSuites: stable\nSigned-By:\n -----BEGIN\n .\n\nTypes: deb\n";
        assert_eq!(
            paragraphs_for_sources(content),
            "Types: deb-src\nURIs: file:/debian\nSuites: stable\nSigned-By:\n -----BEGIN\n .\n\nTypes: deb-src\n"
        );
    }
}
