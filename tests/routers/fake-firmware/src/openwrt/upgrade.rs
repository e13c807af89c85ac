//! `sysupgrade`: a firmware upgrade that keeps some files.
//!
//! It archives them in RAM. After all processes have exited, PID 1 erases the flash and writes the archive there; the next boot unpacks
//! it over the new root and removes it. Losing power in between loses everything, as on a real router.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::console::{fail, log, print, report};
use crate::procd::ubus;

/// The archive in RAM.
const ARCHIVE: &str = "/tmp/sysupgrade.tgz";
/// The archive on the flash.
const SAVED: &str = "/overlay/sysupgrade.tgz";
/// Directories with lists of files to keep. The second is RutOS's.
const KEEP: [&str; 2] = ["/lib/upgrade/keep.d", "/usr/local/lib/upgrade/keep.d"];

/// `sysupgrade -l`, `sysupgrade -b FILE`, `sysupgrade [-n] [IMAGE]`
pub fn main(arguments: &[String]) -> ExitCode {
    match arguments.first().map(String::as_str) {
        Some("-l" | "--list-backup") => {
            print(
                &kept(Path::new("/")).iter().map(|path| format!("{}\n", path.display())).collect::<String>(),
            );
            ExitCode::SUCCESS
        }
        Some("-b" | "--create-backup") => match arguments.get(1).map(|file| save(file)) {
            Some(Ok(())) => ExitCode::SUCCESS,
            Some(Err(error)) => fail(&format!("sysupgrade: {error}")),
            None => fail("Usage: sysupgrade -b FILE"),
        },
        first => {
            let _ = fs::remove_file(ARCHIVE);
            if first != Some("-n")
                && let Err(error) = save(ARCHIVE)
            {
                return fail(&format!("sysupgrade: {error}"));
            }
            print("Commencing upgrade. Closing all shell sessions.\n");
            match ubus::request("system", "sysupgrade", "{}") {
                Ok(_) => ExitCode::SUCCESS,
                Err(error) => fail(&format!("sysupgrade: {error}")),
            }
        }
    }
}

fn save(archive: &str) -> io::Result<()> {
    let list = format!("{ARCHIVE}.files");
    let names = kept(Path::new("/"));
    fs::write(
        &list,
        names.iter().map(|name| format!("{}\n", name.display()).split_off(1)).collect::<String>(),
    )?;
    let status = Command::new("tar").args(["-C", "/", "-czf", archive, "-T", &list]).status();
    fs::remove_file(&list)?;
    if status?.success() { Ok(()) } else { Err(io::Error::other("tar failed")) }
}

/// The files and links that keep.d and sysupgrade.conf name, below this root; directories with their content.
fn kept(root: &Path) -> BTreeSet<PathBuf> {
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let mut lists = vec![below("/etc/sysupgrade.conf")];
    for directory in KEEP {
        lists.extend(entries(&below(directory)));
    }
    let mut found = BTreeSet::new();
    for list in lists {
        let text = fs::read_to_string(list).unwrap_or_default();
        for line in text.lines().map(str::trim).filter(|line| line.starts_with('/')) {
            let mut paths = vec![root.to_owned()];
            for part in line.split('/').filter(|part| !part.is_empty()) {
                paths = paths.iter().flat_map(|path| matching(path, part)).collect();
            }
            paths.iter().for_each(|path| collect(path, &mut found));
        }
    }
    found
}

/// The entries of a directory that match a pattern with `*` and `?`.
fn matching(directory: &Path, pattern: &str) -> Vec<PathBuf> {
    if !pattern.contains(['*', '?']) {
        return vec![directory.join(pattern)];
    }
    let named = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| !name.starts_with('.') && matches(pattern.as_bytes(), name.as_bytes()))
    };
    entries(directory).into_iter().filter(named).collect()
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.first(), name.first()) {
        (None, None) => true,
        (Some(b'*'), _) => matches(&pattern[1..], name) || !name.is_empty() && matches(pattern, &name[1..]),
        (Some(b'?'), Some(_)) => matches(&pattern[1..], &name[1..]),
        (Some(p), Some(n)) => p == n && matches(&pattern[1..], &name[1..]),
        _ => false,
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn collect(path: &Path, found: &mut BTreeSet<PathBuf>) {
    match fs::symlink_metadata(path) {
        Ok(of) if of.is_dir() => entries(path).iter().for_each(|path| collect(path, found)),
        Ok(of) if of.is_file() || of.is_symlink() => {
            found.insert(path.to_owned());
        }
        _ => {}
    }
}

/// Erases the flash, and writes the archive: the last step of PID 1 in an upgrade.
pub fn wipe() {
    log("upgrade: erasing the flash");
    let archive = fs::read(ARCHIVE);
    for path in entries(Path::new("/overlay")) {
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        report(&path.display().to_string(), removed);
    }
    if let Ok(archive) = archive {
        report(SAVED, fs::write(SAVED, archive));
    }
}

/// Restores the kept files: the first step in the new root. RutOS leaves out links that start services, and the shell's profile.
pub fn restore(without_links: bool) {
    if fs::symlink_metadata(SAVED).is_err() {
        return;
    }
    log("upgrade: restoring kept files");
    let mut tar = Command::new("tar");
    tar.args(["-C", "/", "-xzf", SAVED]).env("PATH", crate::pid1::spawn::PATH);
    if without_links {
        let list = format!("{ARCHIVE}.left-out");
        report(&list, fs::write(&list, "etc/rc.d/*\netc/profile\n"));
        tar.args(["-X", &list]);
    }
    report("unpack", tar.status());
    report(SAVED, fs::remove_file(SAVED));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, result) in
            [("S??hopd", "S95hopd", true), ("*", "a", true), ("a*c", "abbc", true), ("a?", "a", false)]
        {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), result, "{pattern} {name}");
        }
    }

    #[test]
    fn what_the_lists_name_is_kept_and_nothing_else() -> io::Result<()> {
        let root = std::env::temp_dir().join(format!("fake-firmware-kept-{}", std::process::id()));
        for (path, text) in [
            ("etc/sysupgrade.conf", "# comment\n/etc/mine\n"),
            ("lib/upgrade/keep.d/hopd", "/etc/hopd/\n/etc/rc.d/S??hopd\n/usr/sbin/hopd\n/gone\n"),
            ("usr/local/lib/upgrade/keep.d/x", "/etc/x\n"),
            ("etc/mine", ""),
            ("etc/x", ""),
            ("etc/other", ""),
            ("etc/hopd/deep/key", ""),
            ("etc/rc.d/S95hopd", ""),
            ("usr/sbin/hopd", ""),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap_or(&root))?;
            fs::write(path, text)?;
        }
        let kept: Vec<_> = kept(&root)
            .into_iter()
            .filter_map(|path| path.strip_prefix(&root).ok().map(|path| path.display().to_string()))
            .collect();
        fs::remove_dir_all(&root)?;
        assert_eq!(kept, ["etc/hopd/deep/key", "etc/mine", "etc/rc.d/S95hopd", "etc/x", "usr/sbin/hopd"]);
        Ok(())
    }
}
