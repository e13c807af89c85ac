//! The file systems of each flavour, and the change from the initramfs to the system below /rom.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_move, mount_remount, unmount};

use crate::console::report;
use crate::profile::{Flavour, Profile};

/// Where the new root is mounted.
const ROOT: &str = "/root-to-be";
/// The writable flash, before and after the change of root.
const FLASH: &str = "/overlay";

/// Mounts the kernel's file systems, which are moved to the new root.
pub fn of_the_kernel(profile: &Profile) {
    attach("proc", "/proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, "");
    attach("sysfs", "/sys", "sysfs", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, "");
    attach("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID, "mode=0755,size=512K");
    make("/dev/pts");
    attach("devpts", "/dev/pts", "devpts", MountFlags::NOSUID | MountFlags::NOEXEC, "mode=0600");
    if profile.cgroups {
        attach(
            "cgroup2",
            "/sys/fs/cgroup",
            "cgroup2",
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
            "",
        );
    }
}

/// Makes the system below /rom the root, as the flavour does. Errors are logged, and the boot continues.
pub fn change_root(flavour: Flavour) {
    make(ROOT);
    match flavour {
        Flavour::OpenWrt => {
            mount_flash(FLASH);
            overlay("/rom", ROOT, FLASH, "upper", "work");
            report("bind /rom", mount_bind("/rom", format!("{ROOT}/rom")));
            read_only(&format!("{ROOT}/rom"));
            report("move /overlay", mount_move(FLASH, format!("{ROOT}/overlay")));
        }
        Flavour::RutOs => {
            bind_read_only_root();
            report("bind /rom", mount_bind("/rom", format!("{ROOT}/rom")));
            read_only(&format!("{ROOT}/rom"));
        }
        Flavour::DdWrt => bind_read_only_root(),
    }
    for place in ["proc", "sys", "dev"] {
        report(place, mount_move(format!("/{place}"), format!("{ROOT}/{place}")));
    }
    let changed = std::env::set_current_dir(ROOT)
        .and_then(|()| Ok(mount_move(".", "/")?))
        .and_then(|()| Ok(rustix::process::chroot(".")?))
        .and_then(|()| std::env::set_current_dir("/"));
    report("change of root", changed);
    if flavour == Flavour::RutOs {
        mount_flash(FLASH);
        overlay("/rom/etc", "/etc", FLASH, "etc", "etc-work");
        overlay("/rom/usr/local", "/usr/local", FLASH, "root", "root-work");
    }
    temporary(flavour);
}

fn bind_read_only_root() {
    report("bind the root", mount_bind("/rom", ROOT));
    read_only(ROOT);
}

/// Mounts /tmp: half of the RAM, or, in DD-WRT, without a limit.
fn temporary(flavour: Flavour) {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    match flavour {
        Flavour::DdWrt => {
            attach("ramfs", "/tmp", "ramfs", MountFlags::empty(), "");
            report("/tmp", fs::set_permissions("/tmp", fs::Permissions::from_mode(0o777)));
        }
        Flavour::OpenWrt | Flavour::RutOs => attach("tmpfs", "/tmp", "tmpfs", flags, "mode=1777"),
    }
}

/// Mounts the flash partition `rootfs_data`. If that fails, the router runs from RAM, as OpenWrt does.
pub fn mount_flash(place: &str) {
    make(place);
    let Some(number) = partition("rootfs_data") else {
        attach("tmpfs", place, "tmpfs", MountFlags::empty(), "");
        return;
    };
    let source = format!("/dev/mtdblock{number}");
    if report(&source, mount(source.as_str(), place, "jffs2", MountFlags::NOATIME, None)).is_none() {
        attach("tmpfs", place, "tmpfs", MountFlags::empty(), "");
    }
}

/// The number of the flash partition with a name.
pub fn partition(name: &str) -> Option<u32> {
    let table = fs::read_to_string("/proc/mtd").ok()?;
    let line = table.lines().find(|line| line.ends_with(&format!("\"{name}\"")))?;
    line.strip_prefix("mtd")?.split(':').next()?.parse().ok()
}

fn overlay(lower: &str, place: &str, flash: &str, upper: &str, work: &str) {
    make(&format!("{flash}/{upper}"));
    make(&format!("{flash}/{work}"));
    let options = format!("lowerdir={lower},upperdir={flash}/{upper},workdir={flash}/{work}");
    attach("overlayfs:/overlay", place, "overlay", MountFlags::NOATIME, &options);
}

fn read_only(place: &str) {
    report(place, mount_remount(place, MountFlags::BIND | MountFlags::RDONLY, ""));
}

/// Mounts, and logs an error.
pub fn attach(source: &str, place: &str, kind: &str, flags: MountFlags, options: &str) {
    let options = CString::new(options).unwrap_or_default();
    report(&format!("mount {place}"), mount(source, place, kind, flags, Some(options.as_c_str())));
}

/// Creates a directory and those above it.
pub fn make(place: &str) {
    report(place, fs::create_dir_all(place));
}

/// Creates links such as /dev/rs485 to serial ports.
pub fn serial_links(links: &[(String, String)]) {
    for (name, target) in links {
        report(name, symlink(target, Path::new("/dev").join(name)));
    }
}

/// Creates a device node with the number of another.
pub fn copy_node(of: &str, node: &str) -> io::Result<()> {
    let device = rustix::fs::stat(of)?.st_rdev;
    match rustix::fs::mknodat(CWD, node, rustix::fs::FileType::BlockDevice, 0o600.into(), device) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes every file system clean for the next boot.
pub fn release() {
    let table = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for line in table.lines().rev() {
        let mut words = line.split(' ');
        let (Some(_), Some(place), Some(kind)) = (words.next(), words.next(), words.next()) else { continue };
        if matches!(kind, "ext2" | "jffs2" | "overlay") && unmount(place, UnmountFlags::empty()).is_err() {
            let _ = mount_remount(place, MountFlags::RDONLY, "");
        }
    }
}
