//! Root archives: the files of a system when its kernel starts. `/init` and, below `/rom`, the firmware as its maker would ship it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::archive::{Archive, Entry};
use super::cached_build::CachedBuild;
use super::{System, routers};
use crate::command::run;

/// Builds the archive of a system, compressed.
pub fn build(system: System, busybox: &Path, dropbear: &Path, fake_firmware: &Path) -> Result<PathBuf> {
    let archive = archive(system, busybox, dropbear, fake_firmware)
        .with_context(|| {
            format!("cannot build the archive of {} for {}", system.flavour, system.architecture)
        })?
        .to_bytes()?;
    let name = format!("root-{}-{}", system.flavour, system.architecture);
    let file = format!("{name}.cpio.gz");
    let place = CachedBuild::new(name, include_str!("root.rs")).input(&archive).get(&[&file], |place| {
        let plain = place.join("cpio");
        fs::write(&plain, &archive).with_context(|| format!("cannot write {}", plain.display()))?;
        let compressed = fs::File::create(place.join(&file)).context("cannot create a root archive")?;
        // -n: without name and time, so that two builds are equal.
        let mut gzip = Command::new("gzip");
        run(gzip.args(["-n", "-9", "--stdout"]).arg(&plain).stdout(Stdio::from(compressed)))?;
        fs::remove_file(&plain).with_context(|| format!("cannot remove {}", plain.display()))
    })?;
    Ok(place.join(file))
}

fn archive(system: System, busybox: &Path, dropbear: &Path, fake_firmware: &Path) -> Result<Archive> {
    let mut archive = Archive::default();
    for directory in ["dev", "proc", "sys"] {
        archive.put(directory, Entry::Directory { mode: 0o755 })?;
    }
    archive.put("dev/console", Entry::Device(5, 1))?;
    archive.put("rom/sbin/fake-firmware", program(fake_firmware)?)?;
    archive.put("init", Entry::Link("rom/sbin/fake-firmware".to_owned()))?;

    let root = routers().join("root");
    let directories = lines(&root.join("directories"))?;
    for layer in layers(&lines(&root.join("layers"))?, system.flavour)? {
        for path in directories.iter().filter_map(|line| line.strip_prefix(&layer)?.strip_prefix(' ')) {
            archive.put(&format!("rom{path}"), Entry::Directory { mode: 0o755 })?;
        }
        let tree = root.join(&layer);
        if tree.exists() {
            add_tree(&mut archive, &tree, "rom")?;
        }
        let names = routers().join("fake-firmware/names").join(&layer);
        let names = if names.exists() { lines(&names)? } else { Vec::new() };
        for name in names {
            archive.put(&format!("rom{name}"), link(&name, "/sbin/fake-firmware"))?;
        }
    }

    archive.put("rom/usr/sbin/dropbear", program(&dropbear.join("dropbear"))?)?;
    for name in ["/usr/bin/dropbearkey", "/usr/bin/scp"] {
        archive.put(&format!("rom{name}"), link(name, "/usr/sbin/dropbear"))?;
    }
    archive.put("rom/bin/busybox", program(&busybox.join("busybox"))?)?;
    for name in lines(&busybox.join("links"))? {
        let path = format!("rom{name}");
        // As on the real systems, a program replaces the applet of its name.
        if !archive.contains(&path) {
            archive.put(&path, link(&name, "/bin/busybox"))?;
        }
    }
    Ok(archive)
}

/// The layers of a flavour, the lowest first, from a line `flavour: layer layer`. A layer may have no files, and no programs.
fn layers(lines: &[String], flavour: &str) -> Result<Vec<String>> {
    let of_flavour = lines.iter().find_map(|line| line.strip_prefix(flavour)?.strip_prefix(':'));
    let layers = of_flavour.with_context(|| format!("no layers of {flavour}"))?;
    Ok(layers.split_whitespace().map(str::to_owned).collect())
}

/// The lines of a file that are neither empty nor comments.
fn lines(path: &Path) -> Result<Vec<String>> {
    let content = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

fn program(path: &Path) -> Result<Entry> {
    let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Entry::File { mode: 0o755, content })
}

/// A relative symbolic link from one absolute path to another, valid wherever both are mounted.
fn link(from: &str, to: &str) -> Entry {
    let (mut from, mut to) = (components(from), components(to));
    while from.len() > 1 && to.len() > 1 && from[0] == to[0] {
        from.remove(0);
        to.remove(0);
    }
    let up = "../".repeat(from.len() - 1);
    Entry::Link(up + &to.join("/"))
}

fn components(path: &str) -> Vec<&str> {
    path.split('/').filter(|component| !component.is_empty()).collect()
}

/// Adds a tree of files of the repository. Of modes, only the executable bit counts, as in Git.
fn add_tree(archive: &mut Archive, directory: &Path, above: &str) -> Result<()> {
    let unreadable = || format!("cannot read {}", directory.display());
    for entry in fs::read_dir(directory).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let path = entry.path();
        let name = format!("{above}/{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().with_context(unreadable)?;
        if kind.is_dir() {
            archive.put(&name, Entry::Directory { mode: 0o755 })?;
            add_tree(archive, &path, &name)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).with_context(|| format!("cannot read {}", path.display()))?;
            archive.put(&name, Entry::Link(target.to_string_lossy().into_owned()))?;
        } else {
            let read = || format!("cannot read {}", path.display());
            let executable = entry.metadata().with_context(read)?.permissions().mode() & 0o100 != 0;
            let mode = if executable { 0o755 } else { 0o644 };
            archive.put(&name, Entry::File { mode, content: fs::read(&path).with_context(read)? })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn layers_are_in_order() {
        let lines = ["openwrt: common openwrt", "rutos: common openwrt rutos"].map(str::to_owned);
        assert_eq!(layers(&lines, "rutos").unwrap(), ["common", "openwrt", "rutos"]);
        assert!(layers(&lines, "dd-wrt").is_err());
    }

    #[test]
    fn links_are_relative() {
        for (from, to, target) in [
            ("/bin/sh", "/bin/busybox", "busybox"),
            ("/usr/bin/awk", "/bin/busybox", "../../bin/busybox"),
            ("/sbin/procd", "/sbin/fake-firmware", "fake-firmware"),
            ("/linuxrc", "/bin/busybox", "bin/busybox"),
            ("/usr/bin/dropbearkey", "/usr/sbin/dropbear", "../sbin/dropbear"),
        ] {
            assert_eq!(link(from, to), Entry::Link(target.to_owned()), "{from}");
        }
    }
}
