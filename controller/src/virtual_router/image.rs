//! What a machine boots: kernel and root file system from the cache, the files that only it has, its flash and its disk.
//!
//! `cargo xtask virtual-routers` fills the cache.
//!
//! **Invariants:** nothing in the cache is written to.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use cpio::newc;

use super::Error;
use super::profile::{Flavour, Profile};
use crate::program::embedded::Arch;

/// Size of the flash, in bytes: what QEMU's Malta board has.
const FLASH_SIZE: usize = 4 << 20;

/// The bytes that are looked at for emptiness when a disk is copied.
const BLOCK: usize = 64 << 10;

/// The directory with what virtual routers are made of.
#[derive(Debug)]
pub struct Artifacts {
    directory: PathBuf,
}

impl Artifacts {
    /// `$HOP_VIRTUAL_ROUTERS`, or the cache of the XDG base directory specification.
    ///
    /// # Errors
    /// [`Error::Usage`] if no variable says where that is.
    pub fn from_environment() -> Result<Self, Error> {
        Self::find(|name| env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn find(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        if let Some(directory) = variable("HOP_VIRTUAL_ROUTERS").map(PathBuf::from) {
            // Absolute, because QEMU is started in another directory than ours.
            let directory = std::path::absolute(&directory).map_err(Error::io("find", &directory))?;
            return Ok(Self { directory });
        }
        let cache = variable("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".cache")))
            .ok_or_else(|| Error::Usage("HOME is not set, so virtual routers are not found".into()))?;
        Ok(Self { directory: cache.join("hop/virtual-routers") })
    }

    /// The kernel for a profile, an ELF file.
    ///
    /// # Errors
    /// [`Error::NoArtifact`].
    pub fn kernel(&self, profile: &Profile) -> Result<PathBuf, Error> {
        let arch = profile.machine().machine();
        self.file(match &profile.kernel {
            Some(release) => format!("kernel-{arch}-{release}"),
            None => format!("kernel-{arch}"),
        })
    }

    /// The root file system for a profile, a gzipped cpio archive.
    ///
    /// # Errors
    /// [`Error::NoArtifact`].
    pub fn root(&self, profile: &Profile) -> Result<PathBuf, Error> {
        self.file(format!("root-{}-{}.cpio.gz", profile.flavour.name(), profile.machine().machine()))
    }

    /// A new USB stick: an image with an empty file system.
    ///
    /// # Errors
    /// [`Error::NoArtifact`].
    pub fn stick(&self) -> Result<PathBuf, Error> {
        self.file("stick.img".to_owned())
    }

    fn file(&self, name: String) -> Result<PathBuf, Error> {
        let path = self.directory.join(name);
        if path.is_file() { Ok(path) } else { Err(Error::NoArtifact { path }) }
    }
}

/// The name of QEMU for a machine.
pub fn qemu(arch: Arch) -> String {
    format!("qemu-system-{}", arch.machine())
}

/// Writes what the kernel unpacks: the root file system, and over it the files of this one machine.
///
/// `key` is the line that lets its owner log in.
///
/// # Errors
/// [`Error::Io`].
pub fn write_initramfs(path: &Path, root: &Path, profile: &Profile, key: &str) -> Result<(), Error> {
    let mut image = fs::read(root).map_err(Error::io("read", root))?;
    // The kernel takes several archives, packed or not; one that is not begins at a multiple of four bytes.
    image.resize(image.len().next_multiple_of(4), 0);
    image.extend(own_files(profile, key).map_err(Error::io("write", path))?);
    fs::write(path, image).map_err(Error::io("write", path))
}

fn own_files(profile: &Profile, key: &str) -> io::Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.file("profile", 0o644, profile.guest_file().as_bytes())?;
    archive.directory("rom", 0o755)?;
    match profile.flavour {
        Flavour::Openwrt | Flavour::Rutos => {
            archive.directory("rom/etc", 0o755)?;
            archive.directory("rom/etc/dropbear", 0o700)?;
            archive.file("rom/etc/dropbear/authorized_keys", 0o600, format!("{key}\n").as_bytes())?;
        }
        Flavour::DdWrt => {
            let line = format!("sshd_authorized_keys={key}\n");
            archive.file("rom/nvram.defaults", 0o644, line.as_bytes())?;
        }
    }
    archive.finish()
}

/// Writes an erased flash.
///
/// # Errors
/// [`Error::Io`].
pub fn write_flash(path: &Path) -> Result<(), Error> {
    fs::write(path, vec![0xff; FLASH_SIZE]).map_err(Error::io("write", path))
}

/// Copies an image as a sparse file: most of it is zeros, which then take no disk space.
///
/// # Errors
/// [`Error::Io`].
pub fn copy_disk(from: &Path, to: &Path) -> Result<(), Error> {
    let mut source = File::open(from).map_err(Error::io("read", from))?;
    let mut copy = || -> io::Result<()> {
        let mut target = File::create(to)?;
        let mut buffer = vec![0; BLOCK];
        let mut size = 0;
        loop {
            let count = source.read(&mut buffer)?;
            if count == 0 {
                return target.set_len(size);
            }
            size += count as u64;
            if buffer[..count].iter().any(|byte| *byte != 0) {
                target.write_all(&buffer[..count])?;
            } else {
                target.seek(SeekFrom::Start(size))?;
            }
        }
    };
    copy().map_err(Error::io("write", to))
}

/// A cpio archive of the format "newc" (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst), in which
/// everything belongs to root.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn file(&mut self, name: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.entry(name, 0o100_000 | permissions, content)
    }

    fn directory(&mut self, name: &str, permissions: u32) -> io::Result<()> {
        self.entry(name, 0o040_000 | permissions, &[])
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        newc::trailer(self.bytes)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        // Each entry has an inode number of its own, or the kernel takes two files for hard links to one.
        self.entries += 1;
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        let entry = newc::Builder::new(name).ino(self.entries).mode(mode);
        let mut writer = entry.write(&mut self.bytes, length);
        writer.write_all(content)?;
        writer.finish().map(drop)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::config::home::Home;

    /// Name, mode and content of each entry.
    fn read(mut archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            let mut reader = newc::Reader::new(archive).unwrap();
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            if reader.entry().is_trailer() {
                assert_eq!(reader.finish().unwrap(), b"", "nothing follows");
                return entries;
            }
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            archive = reader.finish().unwrap();
            entries.push((name, mode, content));
        }
    }

    #[test]
    fn own_files_hold_profile_and_key() {
        let home = Home::at(Path::new("/nonexistent"));
        let profile = Profile::load(&home, "dir-505").unwrap();
        let entries = read(&own_files(&profile, "ssh-ed25519 AAAA").unwrap());
        assert_eq!(entries[0], ("profile".into(), 0o100_644, profile.guest_file().into_bytes()));
        let (path, mode, content) = entries.last().unwrap();
        assert_eq!((&**path, *mode), ("rom/etc/dropbear/authorized_keys", 0o100_600));
        assert_eq!(content, b"ssh-ed25519 AAAA\n");
        let directories: Vec<_> =
            entries.iter().filter(|(_, mode, _)| mode & 0o170_000 == 0o040_000).collect();
        assert_eq!(directories.len(), 3);

        let profile = Profile::load(&home, "f7d7302").unwrap();
        let entries = read(&own_files(&profile, "ssh-ed25519 AAAA").unwrap());
        let (path, _, content) = entries.last().unwrap();
        assert_eq!(
            (&**path, &**content),
            ("rom/nvram.defaults", &b"sshd_authorized_keys=ssh-ed25519 AAAA\n"[..])
        );
    }

    #[test]
    fn own_archive_is_aligned() {
        let dir = tempfile::tempdir().unwrap();
        let (root, image) = (dir.path().join("root"), dir.path().join("image"));
        fs::write(&root, "12345").unwrap();
        let profile = Profile::load(&Home::at(dir.path()), "dir-505").unwrap();
        write_initramfs(&image, &root, &profile, "key").unwrap();
        let image = fs::read(&image).unwrap();
        assert_eq!((&image[..8], &image[8..14]), (&b"12345\0\0\0"[..], &b"070701"[..]));
    }

    #[test]
    fn empty_disk_is_sparse() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let mut content = vec![0; 5 * BLOCK + 7];
        content[2 * BLOCK + 1] = 1;
        fs::write(&from, &content).unwrap();
        copy_disk(&from, &to).unwrap();
        assert!(fs::read(&to).unwrap() == content);
        assert!(fs::metadata(&to).unwrap().blocks() * 512 <= 2 * BLOCK as u64);
    }

    #[test]
    fn cache_follows_the_environment() {
        let find = |variables: &[(&str, &str)]| {
            let variable = |name: &str| {
                variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
            };
            Artifacts::find(variable).map(|artifacts| artifacts.directory)
        };
        let all = [("HOP_VIRTUAL_ROUTERS", "/v"), ("XDG_CACHE_HOME", "/c"), ("HOME", "/u")];
        assert_eq!(find(&all).unwrap(), Path::new("/v"));
        assert_eq!(find(&all[1..]).unwrap(), Path::new("/c/hop/virtual-routers"));
        assert_eq!(find(&all[2..]).unwrap(), Path::new("/u/.cache/hop/virtual-routers"));
        assert!(find(&[]).is_err());
    }
}
