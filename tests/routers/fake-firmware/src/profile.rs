//! The profile of this router, from the initramfs: `key=value` lines.
//!
//! **Invariants:** unknown keys are ignored, and missing or invalid values become the default: a router that does not boot cannot report
//! an error.

use std::net::SocketAddr;
use std::time::Duration;

/// The firmware that this router imitates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Flavour {
    /// Plain OpenWrt: everything is writable, by an overlay.
    #[default]
    OpenWrt,
    /// Teltonika's, since 7.14: only /etc and /usr/local are writable.
    RutOs,
    /// DD-WRT: nothing is writable, and the configuration is in nvram.
    DdWrt,
}

/// A stick or card, and when it appears.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// Where it is mounted.
    pub place: String,
    /// Its name in /dev.
    pub node: String,
    /// The delay after the end of the boot scripts.
    pub delay: Duration,
}

/// One virtual router.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Profile {
    pub flavour: Flavour,
    pub hostname: String,
    pub model: String,
    /// Version of the firmware.
    pub release: String,
    /// DISTRIB_TARGET, such as `ath79/generic`.
    pub target: String,
    /// DISTRIB_ARCH, such as `mips_24kc`.
    pub arch: String,
    /// `opkg`, `apk` or `none`.
    pub package_manager: String,
    pub address: String,
    /// The number of the last system call of the real device's kernel.
    pub last_system_call: Option<u32>,
    pub disk: Option<Disk>,
    /// Links in /dev: their names and targets.
    pub serial: Vec<(String, String)>,
    /// Where the Modbus-TCP server listens.
    pub modbus: Option<SocketAddr>,
    pub cgroups: bool,
    /// The clock starts at the epoch.
    pub time_1970: bool,
}

impl Profile {
    /// Reads the lines of a profile.
    pub fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let lines = text.lines().filter_map(|line| line.trim().split_once('='));
            lines.filter(|(name, _)| *name == key).map(|(_, value)| value.to_owned()).next_back()
        };
        let or = |key, default: &str| value(key).unwrap_or_else(|| default.to_owned());
        Self {
            flavour: match value("flavour").as_deref() {
                Some("rutos") => Flavour::RutOs,
                Some("dd-wrt") => Flavour::DdWrt,
                _ => Flavour::OpenWrt,
            },
            hostname: or("hostname", "router"),
            model: or("model", "MIPS Malta"),
            release: or("release", "22.03.5"),
            target: or("target", "malta/be"),
            arch: or("arch", "mips_24kc"),
            package_manager: or("package-manager", "none"),
            address: or("address", "192.168.1.1"),
            last_system_call: value("last-system-call").and_then(|number| number.parse().ok()),
            disk: value("disk").map(|place| Disk {
                place,
                node: or("disk-node", "sda1"),
                delay: Duration::from_secs(or("disk-delay", "0").parse().unwrap_or(0)),
            }),
            serial: or("serial", "")
                .split_whitespace()
                .filter_map(|link| link.split_once(':'))
                .map(|(name, target)| (name.to_owned(), target.to_owned()))
                .collect(),
            modbus: value("modbus").and_then(|address| address.parse().ok()),
            cgroups: value("cgroups").as_deref() == Some("yes"),
            time_1970: value("time").as_deref() == Some("1970"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_ignored() {
        let profile = Profile::parse(
            "flavour=rutos\nhostname=rut955\nmodel=Teltonika RUT955\nlast-system-call=4348\nnews=1\n\
             disk=/usr/local/mnt/sda1\ndisk-node=mmcblk0p1\ndisk-delay=12\nserial=rs485:ttyS1 rs232:ttyS2\n\
             modbus=127.0.0.1:502\ncgroups=no\ntime=1970\n",
        );
        assert_eq!(profile.flavour, Flavour::RutOs);
        assert_eq!(profile.model, "Teltonika RUT955");
        assert_eq!(profile.last_system_call, Some(4348));
        let disk = profile.disk.expect("a disk");
        assert_eq!((disk.node.as_str(), disk.delay.as_secs()), ("mmcblk0p1", 12));
        assert_eq!(profile.serial[1], ("rs232".to_owned(), "ttyS2".to_owned()));
        assert_eq!(profile.modbus.map(|address| address.port()), Some(502));
        assert!(!profile.cgroups && profile.time_1970);
    }

    #[test]
    fn empty_profiles_have_defaults() {
        let profile = Profile::parse("");
        assert_eq!(profile.flavour, Flavour::OpenWrt);
        assert_eq!(profile.address, "192.168.1.1");
        assert_eq!(profile.disk, None);
    }
}
