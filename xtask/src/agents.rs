//! The two agents: built, checked, and kept in the cache by what they were built from.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::cache::touch;
use crate::command::run;
use crate::elf::{self, FloatAbi};
use crate::paths;
use crate::segments;
use crate::toolchain::Toolchain;

/// An agent for one kind of router.
pub struct Agent {
    /// Go's and our name for the machine, and the end of the file's name.
    pub name: &'static str,
    /// Rust's name for it.
    pub target: &'static str,
    /// EI_DATA.
    data: u8,
}

/// All agents that a `hop` carries.
pub const AGENTS: [Agent; 2] = [
    Agent { name: "mips", target: "mips-unknown-linux-musl", data: 2 },
    Agent { name: "mipsel", target: "mipsel-unknown-linux-musl", data: 1 },
];

/// What an agent and its [`VECTORS`] are built from, beside the toolchain.
const SOURCES: [&str; 6] =
    ["Cargo.toml", "Cargo.lock", "agent", "proto/Cargo.toml", "proto/src", "tests/vectors"];

/// The package that tries the agents' cipher, built with the agents' flags.
const VECTORS: &str = "hop-vectors";

impl Agent {
    /// Where a build leaves it.
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

    /// Builds the same agent with the names of its functions, which are not in the one that users get; gives its place.
    pub fn build_with_symbols(&self, toolchain: &Toolchain) -> Result<PathBuf> {
        let place = paths::dist().join(format!("hopd-{}-with-symbols", self.name));
        copy(&self.cached_with_symbols(toolchain)?, &place)?;
        Ok(place)
    }

    /// The agent as the linker leaves it, in the cache.
    fn cached_with_symbols(&self, toolchain: &Toolchain) -> Result<PathBuf> {
        self.cached(toolchain, "hopd", &format!("hopd-{}-with-symbols", self.name))
    }

    /// The program of a package, by this name in the cache.
    fn cached(&self, toolchain: &Toolchain, package: &str, name: &str) -> Result<PathBuf> {
        let directory = paths::cache()?.join(format!("agents/{:016x}", key(toolchain)?));
        let cached = directory.join(name);
        if cached.exists() {
            eprintln!("{package} for {} is in the cache", self.name);
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

    /// Builds the agent in the toolchain's checkout, whatever is in the cache; gives its place, with symbols.
    pub fn compile(&self, toolchain: &Toolchain) -> Result<PathBuf> {
        self.compile_package(toolchain, "hopd")
    }

    /// Each package by itself: what one wants of a crate is not to be in another one.
    fn compile_package(&self, toolchain: &Toolchain, package: &str) -> Result<PathBuf> {
        let mut build = toolchain.agent_build(self.target)?;
        run(build.args(["--quiet", "--profile", "device", "--package", package]))?;
        Ok(toolchain.target_directory().join(self.target).join("device").join(package))
    }

    /// What makes it run on a router: any one of these wrong, and it is "not found" or SIGILL there.
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

/// Names a build by its sources and its toolchain. A collision would need two trees of one developer to agree in 64 bits.
fn key(toolchain: &Toolchain) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    toolchain.version()?.hash(&mut hasher);
    // The build's flags are in there.
    include_str!("toolchain.rs").hash(&mut hasher);
    for source in SOURCES {
        hash(&paths::root().join(source), &mut hasher)?;
    }
    Ok(hasher.finish())
}

/// Adds the names and contents of a file of the repository, or of all files in a directory of it.
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

/// Copies so that the destination is whole or absent, also when two builds run at once. The same content is not copied
/// again: cargo would take the agents for new ones, and pack them into `hop` each time.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    write(&fs::read(from).with_context(|| format!("cannot read {}", from.display()))?, to)
}

/// The same for an executable that is in memory.
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
