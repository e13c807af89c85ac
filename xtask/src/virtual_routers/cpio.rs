//! Archives in the format that Linux unpacks into its first root: cpio, "newc"
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//! What must stay true: the same entries give the same bytes. All belong to root and are from 1970.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

const MAGIC: &str = "070701";
const END: &str = "TRAILER!!!";

/// What is under a name. The modes are the permission bits.
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
    /// Type and permissions, as in `st_mode`.
    fn mode(&self) -> u32 {
        match self {
            Self::Directory { mode } => 0o040_000 | mode,
            Self::File { mode, .. } => 0o100_000 | mode,
            Self::Link(_) => 0o120_777,
            Self::Device(..) => 0o020_600,
        }
    }
}

/// Entries by their path, without a leading slash.
#[derive(Debug, Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// Puts an entry, and the directories above it. It takes the place of an earlier one, unless that is a directory in
    /// which there is something.
    pub fn put(&mut self, path: &str, entry: Entry) -> Result<()> {
        let path = path.trim_matches('/');
        ensure!(!path.is_empty(), "the root of an archive has no entry");
        for (end, _) in path.match_indices('/') {
            let above = &path[..end];
            let directory = Entry::Directory { mode: 0o755 };
            let found = self.entries.entry(above.to_owned()).or_insert(directory);
            ensure!(
                matches!(found, Entry::Directory { .. }),
                "/{above} is no directory, but /{path} is in it"
            );
        }
        if !matches!(entry, Entry::Directory { .. }) {
            let inside = format!("{path}/");
            let is_full =
                self.entries.range(inside.clone()..).next().is_some_and(|(p, _)| p.starts_with(&inside));
            ensure!(!is_full, "/{path} is a directory with something in it");
        }
        self.entries.insert(path.to_owned(), entry);
        Ok(())
    }

    /// True if there is an entry.
    pub fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(path.trim_start_matches('/'))
    }

    /// The archive's bytes, a multiple of four.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Sorted: a directory comes before what is in it.
        for (index, (path, entry)) in self.entries.iter().enumerate() {
            let (content, device): (&[u8], _) = match entry {
                Entry::File { content, .. } => (content, (0, 0)),
                Entry::Link(target) => (target.as_bytes(), (0, 0)),
                Entry::Device(major, minor) => (&[], (*major, *minor)),
                Entry::Directory { .. } => (&[], (0, 0)),
            };
            write(&mut bytes, index + 1, path, entry.mode(), device, content);
        }
        write(&mut bytes, 0, END, 0, (0, 0), &[]);
        bytes
    }
}

fn write(bytes: &mut Vec<u8>, inode: usize, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
    let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
    let (owner, group, time, checksum) = (0, 0, 0, 0);
    let name_size = path.len() + 1;
    bytes.extend(MAGIC.as_bytes());
    for field in [
        inode as u32,
        mode,
        owner,
        group,
        links,
        time,
        content.len() as u32,
        0,
        0,
        device.0,
        device.1,
        name_size as u32,
        checksum,
    ] {
        bytes.extend(format!("{field:08x}").as_bytes());
    }
    bytes.extend(path.as_bytes());
    bytes.push(0);
    pad(bytes);
    bytes.extend(content);
    pad(bytes);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Name, mode, device and content.
    type Found = (String, u32, (u32, u32), Vec<u8>);

    /// The entries, read as Linux reads them.
    fn read(mut bytes: &[u8]) -> Vec<Found> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], MAGIC.as_bytes());
            let field = |n: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * n..14 + 8 * n]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            assert_eq!((field(2), field(3), field(5)), (0, 0, 0), "root's, and from 1970");
            let name = std::str::from_utf8(&bytes[110..110 + name_size - 1]).unwrap().to_owned();
            assert_eq!(bytes[110 + name_size - 1], 0);
            let content = (110 + name_size).next_multiple_of(4);
            let next = (content + size).next_multiple_of(4);
            if name == END {
                assert_eq!(bytes.len(), next);
                return entries;
            }
            entries.push((name, mode, (field(9), field(10)), bytes[content..content + size].to_vec()));
            bytes = &bytes[next..];
        }
    }

    fn file(content: &str) -> Entry {
        Entry::File { mode: 0o644, content: content.into() }
    }

    #[test]
    fn what_is_written_can_be_read() {
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
        let bytes = archive.to_bytes();
        assert_eq!(read(&bytes), expected);
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn a_later_entry_takes_the_place_of_an_earlier_one() {
        let mut archive = Archive::default();
        archive.put("etc/motd", file("hello\n")).unwrap();
        archive.put("etc/motd", file("good bye\n")).unwrap();
        archive.put("root", Entry::Directory { mode: 0o755 }).unwrap();
        archive.put("root", Entry::Link("home/root".into())).unwrap();
        let found = read(&archive.to_bytes());
        let found: Vec<_> =
            found.iter().map(|(name, _, _, content)| (name.as_str(), content.as_slice())).collect();
        assert_eq!(found, [("etc", &b""[..]), ("etc/motd", b"good bye\n"), ("root", b"home/root")]);
        assert!(archive.contains("/etc/motd") && !archive.contains("/etc/issue"));
    }

    #[test]
    fn nothing_is_lost_below_an_entry_or_put_below_a_file() {
        let mut archive = Archive::default();
        archive.put("etc/motd", file("hello\n")).unwrap();
        assert!(archive.put("etc/motd/sub", file("")).is_err());
        assert!(archive.put("etc", Entry::Link("tmp/etc".into())).is_err());
    }
}
