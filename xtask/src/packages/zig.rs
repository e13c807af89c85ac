//! zig, from PATH or from PyPI.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::debian::apt;
use crate::command::{output, run, succeeds};
use crate::paths::{self, cache, which};

/// The version of zig that the agents are linked with. Its C library is part of the agent.
pub const VERSION: &str = "0.17.1";

/// The command line of zig: the one in PATH if it is the right version, else one from PyPI in the user's cache.
pub fn install() -> Result<Vec<PathBuf>> {
    if let Some(zig) = which("zig")
        && output(Command::new(&zig).arg("version")).is_ok_and(|version| version == VERSION)
    {
        return Ok(vec![zig]);
    }
    // Not `zig-…`, which an older Hop installed without digests.
    let environment = cache()?.join(format!("ziglang-{VERSION}"));
    let python = environment.join("bin/python3");
    let zig: Vec<PathBuf> = vec![python.clone(), "-m".into(), "ziglang".into()];
    let works = |python: &PathBuf| succeeds(Command::new(python).args(["-m", "ziglang", "version"]));
    if works(&python) {
        return Ok(zig);
    }
    eprintln!(
        "installing ziglang {VERSION} from PyPI into {}: it links the agents against musl for soft-float MIPS",
        environment.display()
    );
    // A broken environment, such as that of a removed Python, is replaced.
    if environment.exists() {
        fs::remove_dir_all(&environment)
            .with_context(|| format!("cannot remove {}", environment.display()))?;
    }
    if !succeeds(Command::new("python3").args(["-m", "venv"]).arg(&environment)) {
        apt(&["python3", "python3-venv"], "zig comes as a Python package")?;
        run(Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    }
    run(&mut pip_install(&python, &paths::root().join("xtask/ziglang.txt")))?;
    if !works(&python) {
        bail!("ziglang was installed into {} but does not run", environment.display());
    }
    Ok(zig)
}

/// Installs the packages of a requirements file, each only with one of its digests; no dependencies, and no source packages, whose
/// installation runs code.
fn pip_install(python: &Path, requirements: &Path) -> Command {
    let mut command = Command::new(python);
    command.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--require-hashes",
        "--no-deps",
        "--only-binary",
        ":all:",
    ]);
    command.arg("--requirement").arg(requirements);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zig_is_pinned_by_digests() {
        let pinned = include_str!("../../ziglang.txt");
        assert!(pinned.contains(&format!("\nziglang=={VERSION} \\\n")));
        assert_eq!(pinned.matches("--hash=sha256:").count(), 2);
    }
}
