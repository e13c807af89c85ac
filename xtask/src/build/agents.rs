//! The two agents: building them, checking them, and caching them by a hash of their sources.
//!
//! **Invariants:** an agent in `target/dist` is static, soft-float MIPS32r2 of its byte order; a file there is whole or absent.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::build::cache::touch;
use crate::build::toolchain::Toolchain;
use crate::command::run;
use crate::paths;
use hop_formats::elf::{self, FloatAbi};
use hop_formats::segments;

/// An agent for one kind of router.
pub struct Agent {
    /// QEMU's name for the architecture, and the suffix of the file's name.
    pub name: &'static str,
    /// Rust's name for the target.
    pub target: &'static str,
    /// The byte order: EI_DATA of its ELF header, 1 little and 2 big.
    data: u8,
}

/// The agents that `hop` embeds.
pub const AGENTS: [Agent; 2] = [
    Agent { name: "mips", target: "mips-unknown-linux-musl", data: 2 },
    Agent { name: "mipsel", target: "mipsel-unknown-linux-musl", data: 1 },
];

/// The sources of an agent and its [`VECTORS`], apart from the toolchain.
const SOURCES: [&str; 7] =
    ["Cargo.toml", "Cargo.lock", "agent", "formats", "proto/Cargo.toml", "proto/src", "tests/vectors"];

/// The package that tests the agents' cipher, built with the agents' flags.
const VECTORS: &str = "hop-vectors";

impl Agent {
    /// The agent in `target/dist`.
    pub fn path(&self) -> PathBuf {
        paths::dist().join(format!("hopd-{}", self.name))
    }

    /// Builds the agent, or takes it from the cache, and checks it.
    pub fn build(&self, toolchain: &Toolchain) -> Result<()> {
        let symbols = self.cached_with_symbols(toolchain)?;
        let content = fs::read(&symbols).with_context(|| format!("cannot read {}", symbols.display()))?;
        let stripped = symbols.with_file_name(format!("hopd-{}", self.name));
        let content =
            segments::alone(&content).with_context(|| format!("{} has no symbols", symbols.display()))?;
        write(&content, &stripped)?;
        self.check(&stripped)?;
        copy(&stripped, &self.path())?;
        let vectors = self.cached(toolchain, VECTORS, &format!("{VECTORS}-{}", self.name))?;
        copy(&vectors, &paths::dist().join(format!("{VECTORS}-{}", self.name)))
    }

    /// Builds the agent with its symbols, which the distributed one lacks, and returns its path.
    pub fn build_with_symbols(&self, toolchain: &Toolchain) -> Result<PathBuf> {
        let place = paths::dist().join(format!("hopd-{}-with-symbols", self.name));
        copy(&self.cached_with_symbols(toolchain)?, &place)?;
        Ok(place)
    }

    /// Path of the linker's output in the cache; builds it if it is absent.
    fn cached_with_symbols(&self, toolchain: &Toolchain) -> Result<PathBuf> {
        self.cached(toolchain, "hopd", &format!("hopd-{}-with-symbols", self.name))
    }

    /// Path of a package's program in the cache, by this name; builds it if it is absent.
    fn cached(&self, toolchain: &Toolchain, package: &str, name: &str) -> Result<PathBuf> {
        let directory = paths::cache()?.join(format!("agents/{:016x}", key(toolchain)?));
        let cached = directory.join(name);
        if cached.exists() {
            eprintln!("{package} for {} is cached", self.name);
            touch(&directory);
        } else {
            eprintln!(
                "building {package} for {} with its standard library: two minutes on two cores",
                self.name
            );
            copy(&self.compile_package(toolchain, package)?, &cached)?;
        }
        Ok(cached)
    }

    /// Builds the agent in the toolchain's checkout, without the cache, and returns its path, with symbols.
    pub fn compile(&self, toolchain: &Toolchain) -> Result<PathBuf> {
        self.compile_package(toolchain, "hopd")
    }

    /// Each package by itself, so that the features of one do not reach another.
    fn compile_package(&self, toolchain: &Toolchain, package: &str) -> Result<PathBuf> {
        let mut build = toolchain.agent_build(self.target)?;
        run(build.args(["--quiet", "--profile", "device", "--package", package]))?;
        Ok(toolchain.target_directory().join(self.target).join("device").join(package))
    }

    /// Fails unless the agent can run on a router: with one of these wrong, the router reports "not found" or SIGILL.
    pub fn check(&self, path: &Path) -> Result<()> {
        let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let agent = elf::read(&content).with_context(|| path.display().to_string())?;
        let is = |what: &str, right: bool| -> Result<()> {
            ensure!(right, "{} is not {what}: {agent:?}", path.display());
            Ok(())
        };
        is("for 32-bit MIPS", agent.target.machine == 8 && agent.target.class == 1)?;
        is("of the right endianness", agent.target.data == self.data)?;
        is("free of an interpreter", agent.interpreter.is_none())?;
        is("static", !agent.is_dynamic)?;
        is("soft-float", agent.float == FloatAbi::Soft)?;
        is("MIPS32r2", agent.isa == Some((32, 2)))
    }
}

/// The cache key of a build: a hash of its sources and its toolchain. 64 bits are enough for the trees of one developer.
fn key(toolchain: &Toolchain) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    toolchain.version()?.hash(&mut hasher);
    // That file has the flags of the build.
    include_str!("toolchain.rs").hash(&mut hasher);
    for source in SOURCES {
        hash(&paths::root().join(source), &mut hasher)?;
    }
    Ok(hasher.finish())
}

/// Hashes the name and content of a file of the repository, or of all files in a directory.
pub fn hash(path: &Path, hasher: &mut DefaultHasher) -> Result<()> {
    let unreadable = || format!("cannot read {}", path.display());
    if path.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
            .with_context(unreadable)?;
        entries.sort();
        return entries.iter().try_for_each(|entry| hash(entry, hasher));
    }
    path.strip_prefix(paths::root()).unwrap_or(path).hash(hasher);
    fs::read(path).with_context(unreadable)?.hash(hasher);
    Ok(())
}

/// Copies an executable. The destination is whole or absent, also when two builds run at once. Equal content is not written
/// again: cargo would rebuild `hop` with the agents each time.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    write(&fs::read(from).with_context(|| format!("cannot read {}", from.display()))?, to)
}

/// Writes an executable as `copy` does, from memory.
fn write(content: &[u8], to: &Path) -> Result<()> {
    if fs::read(to).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let temporary = to.with_extension(format!("{}.new", std::process::id()));
    fs::create_dir_all(to.parent().unwrap_or(to))
        .and_then(|()| fs::write(&temporary, content))
        .and_then(|()| fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&temporary, to))
        .with_context(|| format!("cannot write {}", to.display()))
}
