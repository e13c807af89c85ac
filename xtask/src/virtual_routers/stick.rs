//! Builds the USB stick, or SD card, of a virtual router: a file system without a partition table.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cached_build::CachedBuild;
use crate::command::run;
use crate::packages;
use crate::paths::which;

/// The size in bytes. The image is sparse.
const SIZE: u64 = 64 << 20;

/// A fixed UUID, so that two builds are equal.
const UUID: &str = "40f5d3c7-5f0a-4d0c-9d7b-0a3e4c1b2f70";

/// Builds an image with an empty ext2.
pub fn build() -> Result<PathBuf> {
    let place = CachedBuild::new("stick", include_str!("stick.rs")).get(&["stick.img"], |place| {
        if program().is_none() {
            packages::debian::apt(&["e2fsprogs"], "mke2fs makes the virtual routers' stick")?;
        }
        let image = place.join("stick.img");
        let file = File::create(&image).with_context(|| format!("cannot create {}", image.display()))?;
        file.set_len(SIZE).with_context(|| format!("cannot write {}", image.display()))?;
        run(Command::new(program().context("there is no mke2fs")?)
            .args(["-q", "-F", "-t", "ext2", "-L", "HOP-STICK", "-U", UUID])
            .args(["-E", &format!("hash_seed={UUID},root_owner=0:0")])
            .env("E2FSPROGS_FAKE_TIME", "1")
            .arg(&image))
    })?;
    Ok(place.join("stick.img"))
}

/// mke2fs, which is not in every user's PATH.
fn program() -> Option<PathBuf> {
    which("mke2fs").or_else(|| Some(Path::new("/usr/sbin/mke2fs").to_owned()).filter(|path| path.exists()))
}
