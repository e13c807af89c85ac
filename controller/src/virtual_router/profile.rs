//! Profiles: descriptions of virtual routers, a TOML file each.
//!
//! Five are built in; a user's own are in `profiles/` of the configuration directory, and come first.
//!
//! **Invariants:** a profile is data. A word in it that is not understood is an error, never ignored.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Error;
use crate::config::home::Home;
use crate::config::inventory::is_name;
use crate::program::embedded::Arch;

/// The profiles that every `hop` has.
const BUILT_IN: [(&str, &str); 5] = [
    ("archer-a6", include_str!("../../profiles/archer-a6.toml")),
    ("dir-505", include_str!("../../profiles/dir-505.toml")),
    ("f7d7302", include_str!("../../profiles/f7d7302.toml")),
    ("fritzbox-7362sl", include_str!("../../profiles/fritzbox-7362sl.toml")),
    ("rut955", include_str!("../../profiles/rut955.toml")),
];

/// The address of every virtual router in its own network.
pub const ADDRESS: &str = "192.168.1.1";

/// A kind of virtual router.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name, which is that of its file.
    #[serde(skip)]
    pub name: String,
    /// The router that it emulates, as text for the user.
    pub description: String,
    /// QEMU's name for the CPU.
    pub cpu: String,
    /// Its byte order.
    pub endian: Endian,
    /// RAM, in MiB.
    pub ram_mib: u32,
    /// Which firmware it has.
    pub flavour: Flavour,
    /// The release that the kernel reports, if it pretends to be an older one.
    pub kernel: Option<String>,
    /// The highest system call number (o32, from 4000) that the kernel knows, if it pretends.
    pub last_system_call: Option<u32>,
    /// The host name.
    pub hostname: String,
    /// The firmware's name of the device.
    pub model: String,
    /// The firmware's version.
    pub release: String,
    /// `DISTRIB_TARGET` of OpenWrt.
    pub target: String,
    /// `DISTRIB_ARCH` of OpenWrt.
    pub arch: String,
    /// The package manager.
    pub package_manager: PackageManager,
    /// True if cgroup2 is mounted.
    #[serde(default)]
    pub cgroups: bool,
    /// The clock at boot.
    #[serde(default)]
    pub clock: Clock,
    /// The network card.
    #[serde(default)]
    pub nic: Nic,
    /// True if there is a source of entropy.
    #[serde(default = "yes")]
    pub entropy: bool,
    /// root's password, empty if Enter is enough. Hop does not use it: it logs in with a key.
    pub password: Option<String>,
    /// Where a Modbus-TCP server listens, as the router itself sees it.
    pub modbus: Option<String>,
    /// Names in /dev for the serial ports `ttyS1` and `ttyS2`.
    #[serde(default)]
    pub serial: BTreeMap<String, String>,
    /// A USB stick or an SD card.
    pub disk: Option<Disk>,
}

/// A USB stick or an SD card.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Where the router mounts it.
    pub path: String,
    /// The name of its device in /dev.
    pub node: String,
    /// Seconds between the boot scripts and the mount.
    pub delay: u32,
    /// How slow it is; no limit if absent.
    pub bytes_per_second: Option<u64>,
}

/// Byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Endian {
    /// The most significant first.
    Big,
    /// The least significant first.
    Little,
}

/// A family of firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flavour {
    /// OpenWrt.
    Openwrt,
    /// Teltonika's OpenWrt.
    Rutos,
    /// DD-WRT.
    DdWrt,
}

/// The package manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PackageManager {
    /// OpenWrt until 24.10.
    Opkg,
    /// OpenWrt from 25.12.
    Apk,
    /// Nothing does.
    None,
}

/// The clock at boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Clock {
    /// The time of this machine.
    #[default]
    #[serde(rename = "now")]
    Now,
    /// The first second of 1970, as on a router without a battery.
    #[serde(rename = "1970")]
    Epoch,
}

/// The network card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nic {
    /// A fast one.
    #[default]
    Virtio,
    /// A bad one, which drops packets under load.
    Pcnet,
}

const fn yes() -> bool {
    true
}

impl Flavour {
    /// Its name in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Openwrt => "openwrt",
            Self::Rutos => "rutos",
            Self::DdWrt => "dd-wrt",
        }
    }
}

impl PackageManager {
    /// The command's name, or `none`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opkg => "opkg",
            Self::Apk => "apk",
            Self::None => "none",
        }
    }
}

impl Profile {
    /// The profile with this name: the user's, else a built-in one.
    ///
    /// # Errors
    /// [`Error::UnknownProfile`], or its file cannot be read or says something that is not understood.
    pub fn load(home: &Home, name: &str) -> Result<Self, Error> {
        if is_name(name) {
            let path = home.profiles().join(format!("{name}.toml"));
            match fs::read_to_string(&path) {
                Ok(text) => return Self::parse(name, &text, &path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("read", &path)(error)),
            }
            if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
                return Self::parse(name, text, &PathBuf::from(format!("the built-in profile {name}")));
            }
        }
        Err(Error::UnknownProfile {
            name: name.to_owned(),
            known: names(home)?.join(", "),
            own: home.profiles(),
        })
    }

    fn parse(name: &str, text: &str, path: &Path) -> Result<Self, Error> {
        let malformed = |source| Error::Malformed { path: path.to_owned(), source };
        let mut profile: Self = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            malformed(format!("line {line}: {}", error.message().replace('\n', "; ")).into())
        })?;
        profile.name = name.to_owned();
        // Lines are what the guest reads, and commas are what QEMU splits its options at.
        if profile.guest_file().lines().count() != profile.guest_keys().len()
            || profile.cpu.contains(',')
            || profile.kernel.as_deref().is_some_and(|release| release.contains('/'))
        {
            return Err(malformed("a value has a line break, a comma or a slash where it cannot".into()));
        }
        Ok(profile)
    }

    /// Which agent, and which QEMU, it is for.
    pub fn machine(&self) -> Arch {
        match self.endian {
            Endian::Big => Arch::Mips,
            Endian::Little => Arch::Mipsle,
        }
    }

    /// The file that the guest's init reads: `key=value` lines.
    pub fn guest_file(&self) -> String {
        self.guest_keys().iter().map(|(key, value)| format!("{key}={value}\n")).collect()
    }

    fn guest_keys(&self) -> Vec<(&'static str, String)> {
        let mut keys = vec![
            ("flavour", self.flavour.name().to_owned()),
            ("hostname", self.hostname.clone()),
            ("model", self.model.clone()),
            ("release", self.release.clone()),
            ("target", self.target.clone()),
            ("arch", self.arch.clone()),
            ("package-manager", self.package_manager.name().to_owned()),
            ("address", ADDRESS.to_owned()),
            ("cgroups", if self.cgroups { "yes" } else { "no" }.to_owned()),
        ];
        if let Some(number) = self.last_system_call {
            keys.push(("last-system-call", number.to_string()));
        }
        if let Some(disk) = &self.disk {
            keys.push(("disk", disk.path.clone()));
            keys.push(("disk-node", disk.node.clone()));
            keys.push(("disk-delay", disk.delay.to_string()));
        }
        if !self.serial.is_empty() {
            let names: Vec<_> = self.serial.iter().map(|(name, device)| format!("{name}:{device}")).collect();
            keys.push(("serial", names.join(" ")));
        }
        if let Some(address) = &self.modbus {
            keys.push(("modbus", address.clone()));
        }
        if self.clock == Clock::Epoch {
            keys.push(("time", "1970".to_owned()));
        }
        keys
    }
}

/// The names of all profiles, in order.
///
/// # Errors
/// The directory of the user's own cannot be read.
pub fn names(home: &Home) -> Result<Vec<String>, Error> {
    let directory = home.profiles();
    let mut names: Vec<_> = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
    match fs::read_dir(&directory) {
        Ok(entries) => {
            for entry in entries {
                let path = entry.map_err(Error::io("read", &directory))?.path();
                if path.extension().is_some_and(|extension| extension == "toml")
                    && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
                {
                    names.push(name.to_owned());
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("read", &directory)(error)),
    }
    names.sort();
    names.dedup();
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn built_in_profiles_parse() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        assert_eq!(names(&home).unwrap(), ["archer-a6", "dir-505", "f7d7302", "fritzbox-7362sl", "rut955"]);
        for name in names(&home).unwrap() {
            let profile = Profile::load(&home, &name).unwrap();
            assert_eq!(profile.name, name);
            assert!(profile.guest_file().contains("\naddress=192.168.1.1\n"), "{name}");
        }
    }

    #[test]
    fn guest_file_follows_the_profile() {
        let home = Home::at(Path::new("/nonexistent"));
        let file = Profile::load(&home, "f7d7302").unwrap().guest_file();
        let lines = "last-system-call=4348\ndisk=/tmp/mnt/sda1\ndisk-node=sda1\ndisk-delay=12\ntime=1970\n";
        assert!(file.starts_with("flavour=dd-wrt\n") && file.ends_with(lines), "{file}");
        let file = Profile::load(&home, "rut955").unwrap().guest_file();
        assert!(file.contains("\nserial=rs232:ttyS2 rs485:ttyS1\nmodbus=127.0.0.1:502\n"), "{file}");
    }

    #[test]
    fn own_profile_overrides_built_in() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        fs::create_dir(home.profiles()).unwrap();
        let (_, text) = BUILT_IN[1];
        let write = |name: &str, text: &str| fs::write(home.profiles().join(name), text).unwrap();
        write("dir-505.toml", &text.replace("ram_mib = 64", "ram_mib = 32"));
        write("desk.toml", &format!("{text}\ncolour = \"red\"\n"));
        write("lines.toml", &text.replace("rev. A1", "rev.\\nA1"));
        assert_eq!(Profile::load(&home, "dir-505").unwrap().ram_mib, 32);
        let error = Profile::load(&home, "desk").unwrap_err();
        assert!(error.to_string().contains("desk.toml"), "{error}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("colour"), "{source}");
        assert!(matches!(Profile::load(&home, "lines"), Err(Error::Malformed { .. })));
        for name in ["no-such", "../dir-505", ""] {
            let error = Profile::load(&home, name).unwrap_err();
            assert!(error.to_string().contains("archer-a6, desk, dir-505, f7d7302"), "{error}");
        }
    }
}
