//! Root archives in the format that Linux unpacks into its first root: cpio, "newc"
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! **Invariants:** the same entries give the same bytes; all belong to root and are from 1970.

use std::collections::BTreeMap;
use std::io::Write;

use ::cpio::newc::{self, Builder};
use anyhow::{Context, Result, ensure};

/// A file of any kind. Modes are the permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory {
        /// 0o755, or 0o1777 for all to write into.
        mode: u32,
    },
    /// A regular file.
    File {
        /// 0o644 or 0o755.
        mode: u32,
        /// All of it.
        content: Vec<u8>,
    },
    /// A symbolic link and where it leads.
    Link(String),
    /// A character device and its major and minor number.
    Device(u32, u32),
}

impl Entry {
    /// The entry's header, and what follows it.
    fn header(&self, path: &str) -> (Builder, &[u8]) {
        let builder = Builder::new(path);
        match self {
            Self::Directory { mode } => (builder.mode(0o040_000 | mode).nlink(2), &[]),
            Self::File { mode, content } => (builder.mode(0o100_000 | mode), content),
            Self::Link(target) => (builder.mode(0o120_777), target.as_bytes()),
            Self::Device(major, minor) => {
                (builder.mode(0o020_600).rdev_major(*major).rdev_minor(*minor), &[])
            }
        }
    }
}

/// Entries by their path, without a leading slash.
#[derive(Debug, Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// Adds an entry, and the directories above it. It replaces an earlier one, unless that is a directory that is not empty.
    pub fn put(&mut self, path: &str, entry: Entry) -> Result<()> {
        let path = path.trim_matches('/');
        ensure!(!path.is_empty(), "the root of an archive has no entry");
        for (end, _) in path.match_indices('/') {
            let above = &path[..end];
            let directory = Entry::Directory { mode: 0o755 };
            let found = self.entries.entry(above.to_owned()).or_insert(directory);
            ensure!(
                matches!(found, Entry::Directory { .. }),
                "/{above} is not a directory, but /{path} is below it"
            );
        }
        if !matches!(entry, Entry::Directory { .. }) {
            let inside = format!("{path}/");
            let is_full =
                self.entries.range(inside.clone()..).next().is_some_and(|(p, _)| p.starts_with(&inside));
            ensure!(!is_full, "/{path} is a directory that is not empty");
        }
        self.entries.insert(path.to_owned(), entry);
        Ok(())
    }

    /// True if there is an entry.
    pub fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(path.trim_start_matches('/'))
    }

    /// The archive's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // Sorted: a directory comes before what is in it.
        for (inode, (path, entry)) in (1..).zip(&self.entries) {
            let (header, content) = entry.header(path);
            let size = u32::try_from(content.len()).with_context(|| format!("/{path} is too large"))?;
            let mut writer = header.ino(inode).write(&mut bytes, size);
            writer.write_all(content).and_then(|()| writer.finish()).with_context(|| format!("/{path}"))?;
        }
        newc::trailer(&mut bytes).context("cannot finish an archive")?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;

    use super::*;

    /// Name, mode, device and content.
    type Found = (String, u32, (u32, u32), Vec<u8>);

    /// The entries that an archive has.
    fn read(mut bytes: &[u8]) -> Vec<Found> {
        let mut entries = Vec::new();
        loop {
            let mut reader = newc::Reader::new(bytes).unwrap();
            let entry = reader.entry().clone();
            assert_eq!((entry.uid(), entry.gid(), entry.mtime()), (0, 0, 0), "root's, and from 1970");
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            bytes = reader.finish().unwrap();
            if entry.is_trailer() {
                assert_eq!(bytes, b"");
                return entries;
            }
            let device = (entry.rdev_major(), entry.rdev_minor());
            entries.push((entry.name().to_owned(), entry.mode(), device, content));
        }
    }

    fn file(content: &str) -> Entry {
        Entry::File { mode: 0o644, content: content.into() }
    }

    #[test]
    fn archives_can_be_read_back() {
        let mut archive = Archive::default();
        archive.put("/rom/etc/hosts", file("127.0.0.1 localhost\n")).unwrap();
        archive.put("rom/bin/busybox", Entry::File { mode: 0o755, content: b"\x7fELF".into() }).unwrap();
        archive.put("rom/bin/sh", Entry::Link("busybox".into())).unwrap();
        archive.put("dev/console", Entry::Device(5, 1)).unwrap();
        archive.put("rom/tmp/", Entry::Directory { mode: 0o1777 }).unwrap();
        let expected = [
            ("dev", 0o040_755, (0, 0), ""),
            ("dev/console", 0o020_600, (5, 1), ""),
            ("rom", 0o040_755, (0, 0), ""),
            ("rom/bin", 0o040_755, (0, 0), ""),
            ("rom/bin/busybox", 0o100_755, (0, 0), "\x7fELF"),
            ("rom/bin/sh", 0o120_777, (0, 0), "busybox"),
            ("rom/etc", 0o040_755, (0, 0), ""),
            ("rom/etc/hosts", 0o100_644, (0, 0), "127.0.0.1 localhost\n"),
            ("rom/tmp", 0o041_777, (0, 0), ""),
        ];
        let expected = expected.map(|(name, mode, device, content)| {
            (name.to_owned(), mode, device, content.as_bytes().to_vec())
        });
        assert_eq!(read(&archive.to_bytes().unwrap()), expected);
    }

    #[test]
    fn later_entries_replace_earlier_ones() {
        let mut archive = Archive::default();
        archive.put("etc/motd", file("hello\n")).unwrap();
        archive.put("etc/motd", file("good bye\n")).unwrap();
        archive.put("root", Entry::Directory { mode: 0o755 }).unwrap();
        archive.put("root", Entry::Link("home/root".into())).unwrap();
        let found = read(&archive.to_bytes().unwrap());
        let found: Vec<_> =
            found.iter().map(|(name, _, _, content)| (name.as_str(), content.as_slice())).collect();
        assert_eq!(found, [("etc", &b""[..]), ("etc/motd", b"good bye\n"), ("root", b"home/root")]);
        assert!(archive.contains("/etc/motd") && !archive.contains("/etc/issue"));
    }

    #[test]
    fn full_directories_and_files_stay() {
        let mut archive = Archive::default();
        archive.put("etc/motd", file("hello\n")).unwrap();
        assert!(archive.put("etc/motd/sub", file("")).is_err());
        assert!(archive.put("etc", Entry::Link("tmp/etc".into())).is_err());
    }
}
