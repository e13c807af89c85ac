//! `cargo xtask dist`: packages of `hop` and of the agent, in `target/dist`.
//!
//! **Invariants:** a package depends on the binaries, the texts of this checkout and its time only: packed twice, it is the same to
//! the last byte. The time is `SOURCE_DATE_EPOCH`, or that of the last commit.

mod archive;
mod controller;
mod cross;
mod licences;
mod openwrt;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

pub use self::archive::{empty_directory, files};
use crate::build::dist;
use crate::checks;
use crate::command::output;
use crate::packages::debian;
use crate::paths;

/// The version of all that is packed.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A machine on which `hop` runs, by the names that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Machine {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

impl Machine {
    /// Debian's name.
    fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The kernel's name, with which those of Rust and zig begin.
    fn kernel(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// Rust's name for the target.
    fn target(self) -> String {
        format!("{}-unknown-linux-gnu", self.kernel())
    }

    /// True for the machine that this runs on.
    fn is_host(self) -> bool {
        env::consts::ARCH == self.kernel()
    }
}

/// What the packages are made of.
struct Input {
    /// `hop` for each machine.
    controllers: Vec<(Machine, PathBuf)>,
    /// A directory with the man pages and the completion scripts, made by `hop` itself.
    generated: PathBuf,
    licences: String,
    epoch: u64,
}

/// Builds the agents and `hop` for these machines, all if none is named, and packs them; with `check`, looks at each package as who
/// installs it would, and packs all of it a second time, which must change nothing.
pub fn run(machines: &[Machine], check: bool) -> Result<()> {
    let tools = [("dpkg-deb", "dpkg"), ("tar", "tar"), ("gzip", "gzip")];
    debian::require(&tools, "the packages are made with them")?;
    dist::build()?;
    let input = Input::build(if machines.is_empty() { &[Machine::Amd64, Machine::Arm64] } else { machines })?;
    let made = pack(&input, &paths::dist())?;
    if check {
        let again = paths::root().join("target/dist-again");
        checks::dist::check_equal(&made, &pack(&input, &again)?)?;
        checks::dist::check(&paths::dist(), VERSION, machines_with_packages(&input))?;
    }
    for path in &made {
        let size = path.metadata().with_context(|| format!("cannot look at {}", path.display()))?.len();
        let shown = path.strip_prefix(paths::root()).unwrap_or(path);
        println!("{size:>10} bytes  {}", shown.display());
    }
    Ok(())
}

fn machines_with_packages(input: &Input) -> Vec<&'static str> {
    input.controllers.iter().map(|(machine, _)| machine.debian()).collect()
}

impl Input {
    fn build(machines: &[Machine]) -> Result<Self> {
        let built = |machine: &Machine| {
            // What was tested is what is packed.
            let path = if machine.is_host() { paths::dist().join("hop") } else { cross::build(*machine)? };
            Ok((*machine, path))
        };
        let controllers = machines.iter().map(built).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            controllers,
            generated: generate()?,
            licences: licences::collect(machines)?,
            epoch: epoch()?,
        })
    }
}

/// Makes all packages in a directory, and returns their paths.
fn pack(input: &Input, to: &Path) -> Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    for (machine, hop) in &input.controllers {
        made.extend(controller::pack(input, *machine, hop, to)?);
    }
    made.extend(openwrt::pack(input, to)?);
    Ok(made)
}

/// Lets `hop` write its man pages and completion scripts, and returns their directory.
fn generate() -> Result<PathBuf> {
    let directory = paths::root().join("target/generated");
    let man = directory.join("man1");
    empty_directory(&man)?;
    let hop = paths::dist().join("hop");
    output(Command::new(&hop).arg("man-pages").arg(&man))?;
    for shell in ["bash", "zsh", "fish"] {
        let script = output(Command::new(&hop).args(["completions", shell]))?;
        let path = directory.join(shell);
        fs::write(&path, script + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(directory)
}

/// The time that the files of all packages get, in seconds since 1970.
fn epoch() -> Result<u64> {
    let text = match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => output(Command::new("git").current_dir(paths::root()).args(["log", "-1", "--format=%ct"]))
            .context("without SOURCE_DATE_EPOCH, packages get the time of the last commit")?,
    };
    text.trim().parse().with_context(|| format!("SOURCE_DATE_EPOCH: {text:?} is no number of seconds"))
}
