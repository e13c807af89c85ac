//! Packs the agents into `hop`, so that a user copies one file.
//!
//! `HOP_AGENTS` names the directory with `hopd-mips` and `hopd-mipsel`, as `cargo xtask build` sets it. Without it the
//! build is for development, and `hop virtual up` says what is missing.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// zstd's strongest level below its memory-hungry ones: 0.6 s an agent.
const LEVEL: i32 = 19;

fn main() {
    println!("cargo::rerun-if-env-changed=HOP_AGENTS");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let agents = env::var_os("HOP_AGENTS").map(PathBuf::from);
    for name in ["hopd-mips", "hopd-mipsel"] {
        let packed = agents.as_ref().map_or_else(Vec::new, |directory| pack(&directory.join(name)));
        fs::write(out.join(format!("{name}.zst")), packed).expect("OUT_DIR can be written");
    }
}

fn pack(path: &Path) -> Vec<u8> {
    println!("cargo::rerun-if-changed={}", path.display());
    let agent = fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    zstd::encode_all(agent.as_slice(), LEVEL).expect("memory can be compressed")
}
