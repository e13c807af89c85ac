//! Files that describe the firmware, written below /rom from the profile before that becomes read-only.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::console::report;
use crate::profile::{Flavour, Profile};

/// Writes the files in which two routers of a flavour differ.
pub fn write(profile: &Profile) {
    if profile.flavour == Flavour::DdWrt {
        return;
    }
    let distribution = if profile.flavour == Flavour::RutOs { "21.02.0" } else { profile.release.as_str() };
    file("etc/openwrt_release", &openwrt_release(profile, distribution));
    file("usr/lib/os-release", &os_release(profile, distribution));
    report("/etc/os-release", link("../usr/lib/os-release", "etc/os-release"));
    file("etc/config/system", &format!("config system\n\toption hostname '{}'\n", profile.hostname));
    file("etc/config/network", &network(profile));
    match profile.package_manager.as_str() {
        "opkg" => {
            file("etc/opkg.conf", opkg_conf(profile.flavour));
            let place = if profile.flavour == Flavour::RutOs { "usr/bin/opkg" } else { "bin/opkg" };
            report("opkg", link("/sbin/fake-firmware", place));
        }
        "apk" => {
            file("etc/apk/arch", &format!("{}\n", profile.arch));
            report("apk", link("/sbin/fake-firmware", "usr/bin/apk"));
        }
        _ => {}
    }
    if profile.flavour == Flavour::RutOs {
        file("etc/version", &format!("{}\n", profile.release));
        file("etc/config/modbus_server", &modbus(profile));
    }
}

fn file(path: &str, text: &str) {
    let path = Path::new("/rom").join(path);
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
    report(&path.display().to_string(), written);
    let mode = if path.starts_with("/rom/etc/config") { 0o600 } else { 0o644 };
    report("mode", fs::set_permissions(&path, fs::Permissions::from_mode(mode)));
}

fn link(target: &str, path: &str) -> std::io::Result<()> {
    let path = Path::new("/rom").join(path);
    if fs::symlink_metadata(&path).is_ok() {
        return Ok(());
    }
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    symlink(target, path)
}

fn openwrt_release(profile: &Profile, release: &str) -> String {
    format!(
        "DISTRIB_ID='OpenWrt'\nDISTRIB_RELEASE='{release}'\nDISTRIB_REVISION='r0-virtual'\nDISTRIB_TARGET='{}'\n\
         DISTRIB_ARCH='{}'\nDISTRIB_DESCRIPTION='OpenWrt {release} r0-virtual'\nDISTRIB_TAINTS=''\n",
        profile.target, profile.arch
    )
}

fn os_release(profile: &Profile, release: &str) -> String {
    let mut text = String::new();
    for (name, value) in [
        ("NAME", "OpenWrt"),
        ("VERSION", release),
        ("ID", "openwrt"),
        ("ID_LIKE", "lede openwrt"),
        ("PRETTY_NAME", &format!("OpenWrt {release}")),
        ("VERSION_ID", release),
        ("BUILD_ID", "r0-virtual"),
        ("OPENWRT_BOARD", &profile.target),
        ("OPENWRT_ARCH", &profile.arch),
        ("OPENWRT_TAINTS", ""),
        ("OPENWRT_DEVICE_PRODUCT", &profile.model),
        ("OPENWRT_RELEASE", &format!("OpenWrt {release} r0-virtual")),
    ] {
        let _ = writeln!(text, "{name}=\"{value}\"");
    }
    text
}

fn network(profile: &Profile) -> String {
    format!(
        "config interface 'loopback'\n\toption device 'lo'\n\toption proto 'static'\n\toption ipaddr '127.0.0.1'\n\
         \toption netmask '255.0.0.0'\n\nconfig interface 'lan'\n\toption device 'eth0'\n\toption proto 'static'\n\
         \toption ipaddr '{}'\n\toption netmask '255.255.255.0'\n",
        profile.address
    )
}

fn opkg_conf(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::RutOs => {
            "dest root /usr/local\ndest ro /\ndest ram /tmp\nlists_dir ext /var/opkg-lists\n\
             option overlay_root /usr/local\noption check_signature\n"
        }
        _ => {
            "dest root /\ndest ram /tmp\nlists_dir ext /var/opkg-lists\noption overlay_root /overlay\n\
             option check_signature\n"
        }
    }
}

/// The server is shipped disabled; the router that has one in use has set it up.
fn modbus(profile: &Profile) -> String {
    let mut text = "config modbus 'modbus'\n\toption keepconn '1'\n".to_owned();
    if let Some(address) = profile.modbus {
        let _ = write!(
            text,
            "\toption enabled '1'\n\toption address '{}'\n\toption port '{}'\n",
            address.ip(),
            address.port()
        );
    }
    text
}
