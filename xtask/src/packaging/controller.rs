//! `hop` for a user's machine: a Debian package, and a tarball for all others.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use object::elf::FileHeader64;
use object::endian::Endianness;
use object::read::elf::{FileHeader, SectionHeader};

use super::archive::{self, Tree};
use super::{Input, Machine, VERSION};
use crate::paths;

const DESCRIPTION: &str = "runs Go programs on MIPS routers as if they were local
 hop cross-compiles a Go program, uploads it into the RAM of a router with
 OpenWrt, RutOS or DD-WRT, runs it there, and behaves like the program: same
 output, same exit code. It carries the agent that it installs on routers.";

/// Where scripts are in Debian, each with the name under which `hop` has printed it.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/hop"),
    ("zsh", "usr/share/zsh/vendor-completions/_hop"),
    ("fish", "usr/share/fish/vendor_completions.d/hop.fish"),
];

/// Makes `hop_*.deb`, `hop-*.tar.gz` and the directory that is in the tarball. Returns the packages.
pub fn pack(input: &Input, machine: Machine, hop: &Path, to: &Path) -> Result<Vec<PathBuf>> {
    Ok(vec![tarball(input, machine, hop, to)?, deb(input, machine, hop, to)?])
}

fn tarball(input: &Input, machine: Machine, hop: &Path, to: &Path) -> Result<PathBuf> {
    let name = format!("hop-{VERSION}-linux-{}", machine.debian());
    let tree = Tree::new(to.join(&name))?;
    tree.copy("hop", 0o755, hop)?;
    tree.copy_all("man/man1", &input.generated.join("man1"))?;
    for (shell, file) in [("bash", "hop.bash"), ("zsh", "_hop"), ("fish", "hop.fish")] {
        tree.copy(&format!("completions/{file}"), 0o644, &input.generated.join(shell))?;
    }
    add_documents(&tree, "", input)?;
    tree.copy("CHANGELOG.md", 0o644, &paths::root().join("CHANGELOG.md"))?;
    let path = to.join(format!("{name}.tar.gz"));
    archive::tar_gz(to, &[&name], input.epoch, &path)?;
    Ok(path)
}

fn deb(input: &Input, machine: Machine, hop: &Path, to: &Path) -> Result<PathBuf> {
    let work = paths::root().join(format!("target/packaging/deb-{}", machine.debian()));
    let tree = Tree::new(work)?;
    tree.copy("usr/bin/hop", 0o755, hop)?;
    for page in archive::files(&input.generated.join("man1"))? {
        let name = page.file_name().unwrap_or_default().to_string_lossy();
        tree.add(&format!("usr/share/man/man1/{name}.gz"), 0o644, archive::gzipped(&page)?)?;
    }
    for (shell, place) in COMPLETIONS {
        tree.copy(place, 0o644, &input.generated.join(shell))?;
    }
    let documents = "usr/share/doc/hop/";
    add_documents(&tree, documents, input)?;
    let changelog = archive::gzipped(&paths::root().join("CHANGELOG.md"))?;
    tree.add(&format!("{documents}changelog.gz"), 0o644, changelog)?;
    tree.add(&format!("{documents}copyright"), 0o644, &input.licences)?;
    let size = tree.size()?.div_ceil(1024);
    let content = fs::read(hop).with_context(|| format!("cannot read {}", hop.display()))?;
    let glibc = needed_glibc(&content).with_context(|| format!("{} is malformed", hop.display()))?;
    let control = format!(
        "Package: hop\nVersion: {VERSION}\nArchitecture: {}\nMaintainer: The Hop developers <hop@localhost>\n\
         Installed-Size: {size}\nDepends: libc6 (>= {glibc}), libgcc-s1\n\
         Recommends: golang-go, openssh-client, git\nSuggests: qemu-user-static, bubblewrap, qemu-system-mips\n\
         Section: devel\nPriority: optional\nDescription: {DESCRIPTION}\n",
        machine.debian()
    );
    tree.add("DEBIAN/control", 0o644, control)?;
    let path = to.join(format!("hop_{VERSION}_{}.deb", machine.debian()));
    archive::deb(&tree, input.epoch, &path)?;
    Ok(path)
}

/// Adds the README and what it links to, below `prefix`.
fn add_documents(tree: &Tree, prefix: &str, input: &Input) -> Result<()> {
    let root = paths::root();
    for file in ["README.md", "CONTRIBUTING.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        tree.copy(&format!("{prefix}{file}"), 0o644, &root.join(file))?;
    }
    for directory in ["docs", "docs/benchmarks"] {
        tree.copy_all(&format!("{prefix}{directory}"), &root.join(directory))?;
    }
    tree.add(&format!("{prefix}LICENSES.txt"), 0o644, &input.licences)
}

/// The version of glibc that a program needs: the highest of those that its symbols name.
fn needed_glibc(content: &[u8]) -> Result<String> {
    let header = FileHeader64::<Endianness>::parse(content)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, content)?;
    let mut newest = (2, 0);
    for section in sections.iter() {
        let Some((mut needs, link)) = section.gnu_verneed(endian, content)? else { continue };
        let strings = sections.strings(endian, content, link)?;
        while let Some((_, mut symbols)) = needs.next()? {
            while let Some(symbol) = symbols.next()? {
                let name = String::from_utf8_lossy(symbol.name(endian, strings)?).into_owned();
                newest = newest.max(glibc_version(&name).unwrap_or(newest));
            }
        }
    }
    Ok(format!("{}.{}", newest.0, newest.1))
}

/// The numbers in `GLIBC_2.34`.
fn glibc_version(name: &str) -> Option<(u32, u32)> {
    let mut numbers = name.strip_prefix("GLIBC_")?.split('.').map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn glibc_versions_are_numbers() {
        assert_eq!(glibc_version("GLIBC_2.34"), Some((2, 34)));
        assert_eq!(glibc_version("GLIBC_2.2.5"), Some((2, 2)));
        assert_eq!(glibc_version("GLIBC_PRIVATE"), None);
        assert_eq!(glibc_version("GCC_3.0"), None);
        // This test's own program is linked as hop is.
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let needed = needed_glibc(&own).unwrap();
        assert!(glibc_version(&format!("GLIBC_{needed}")).unwrap() > (2, 10), "{needed}");
    }
}
