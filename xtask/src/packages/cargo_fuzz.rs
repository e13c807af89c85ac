//! cargo-fuzz, from crates.io.

use std::path::PathBuf;

use anyhow::Result;

use crate::command::{cargo, run};
use crate::paths::cache;

/// The version of cargo-fuzz that builds the fuzz targets.
const VERSION: &str = "0.13.1";

/// The path of cargo-fuzz in the user's cache, where it is installed if it is absent.
pub fn install() -> Result<PathBuf> {
    let directory = cache()?.join(format!("tools-cargo-fuzz-{VERSION}"));
    let program = directory.join("bin/cargo-fuzz");
    if !program.is_file() {
        eprintln!(
            "installing cargo-fuzz {VERSION} by cargo into {}: it builds the fuzz targets",
            directory.display()
        );
        let mut install = cargo();
        // Without it, cargo builds in a temporary directory that it removes.
        install.env_remove("CARGO_TARGET_DIR").args(["install", "--quiet", "--locked", "--root"]);
        run(install.arg(&directory).arg(format!("cargo-fuzz@{VERSION}")))?;
    }
    Ok(program)
}
