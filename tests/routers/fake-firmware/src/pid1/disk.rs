//! A USB stick or SD card, which appears some time after the boot.

use std::io;

use rustix::mount::{MountFlags, mount};

use crate::console::{log, report};
use crate::pid1::mounts;
use crate::profile::Disk;

/// The disk as QEMU shows it.
const DEVICE: &str = "/dev/vda";

/// Creates the disk's device node and mounts it.
pub fn attach(disk: &Disk) {
    let node = format!("/dev/{}", disk.node);
    let attached = mounts::copy_node(DEVICE, &node).and_then(|()| {
        std::fs::create_dir_all(&disk.place)?;
        mount(node.as_str(), disk.place.as_str(), "ext2", MountFlags::NOATIME, None).map_err(io::Error::from)
    });
    if report(&disk.place, attached).is_some() {
        log("disk mounted");
    }
}
