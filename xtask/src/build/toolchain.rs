//! The cross toolchain of the agents: a compiler that has its library source, and zig as C compiler and linker.
//!
//! The MIPS targets are tier 3: there is no compiled standard library, so it is built along, which takes a nightly feature
//! (`RUSTC_BOOTSTRAP=1` unlocks it in a stable compiler) and the library's source. Two compilers may have that: a rustup
//! toolchain with the component rust-src, and Debian's rustc-web with rust-web-src.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, output, run, succeeds};
use crate::packages;
use crate::paths::{self, which};

/// The script that looks like a C compiler; CPU and ZIG stand for what is put in. What is built with it depends on it.
/// rustc and cc-rs name the target in Rust's words, which zig refuses: that argument is dropped and zig's own put in.
pub const C_COMPILER: &str = "\
for argument do
    shift
    case $argument in --target=*) ;; *) set -- \"$@\" \"$argument\" ;; esac
done
exec ZIG cc -target CPU-linux-musleabi \"$@\"
";

/// Flags of rustc for MIPS. These targets link dynamically by default, and rustc's own startup files are not there. A
/// panic aborts, so tables for unwinding are of no use, and they are 130 kB.
const MIPS_FLAGS: [&str; 3] =
    ["-Ctarget-feature=+crt-static", "-Clink-self-contained=no", "-Cforce-unwind-tables=no"];

/// Flags of rustc for the agent alone. Figures are bytes of hopd-mips and of it under xz, each measured alone at 1,372,384 and
/// 455,272; a flag that spares less than a hundredth of both is not here.
const AGENT_FLAGS: [&str; 6] = [
    // The agent is linked statically, and nothing loads it elsewhere: a call takes two instructions instead of five.
    "-Crelocation-model=static",
    // A call that is a function's last deed is a jump: 10,700 and none. LLVM leaves that off for MIPS because of code that is
    // linked dynamically.
    "-Cllvm-args=-mips-tail-calls=1",
    // What a loop needs again is made again, and not kept on the stack: 13,100 and 7,900.
    "-Cllvm-args=-disable-machine-licm",
    // And so is what a block needs again: 3,900 more, and 5,700 less.
    "-Cllvm-args=-disable-machine-cse",
    SCHEDULE,
    // There is no dynamic linker that could make it read-only later.
    "-Clink-arg=-Wl,-z,norelro",
];

/// MIPS has one accumulator for a sum of products. LLVM's default order of instructions has many sums under way at once and moves
/// each of them in and out for every product. In the order of the source, X25519 and Ed25519 take less than half: 0.015 s
/// less for each handshake, and 16 kB less code.
const SCHEDULE: &str = "-Cllvm-args=-pre-RA-sched=source";

/// Flags of the C compiler for the agent, for the same reasons. `-Oz` because neither ring's C nor LZ4 is faster by -O3, which is
/// 24 kB more. zstd has one decoder of each kind, and no texts for its errors (lib/README.md of zstd, "Modular build"). LZ4 has
/// a table of 4 KiB, which is cleared for each piece of output: by that of 16 KiB it takes a tenth more of the CPU, and makes
/// half a hundredth less.
const AGENT_C_FLAGS: &str = "-Oz -fno-pic -fno-asynchronous-unwind-tables -fno-unwind-tables \
    -mllvm -pre-RA-sched=source -DHUF_FORCE_DECOMPRESS_X1 -DZSTD_FORCE_DECOMPRESS_SEQUENCES_SHORT -DZSTD_NO_INLINE \
    -DZSTD_STRIP_ERROR_STRINGS -DLZ4_MEMORY_USAGE=12";

/// What no agent needs, in the linker's words: `.pdr` tells debuggers of the stack of each function, and is 160 kB that
/// `strip` leaves; the tables for unwinding come with the C library.
const DISCARD: &str =
    "SECTIONS { /DISCARD/ : { *(.pdr) *(.comment) *(.eh_frame) *(.eh_frame_hdr) } } INSERT AFTER .text;\n";

/// Where Debian's packages put their compiler.
const DEBIAN: (&str, &str) = ("/usr/bin/cargo", "/usr/bin/rustc");

/// A cargo and a rustc that belong together and have the library's source, for one checkout.
pub struct Toolchain {
    /// The top of the checkout that is built.
    root: PathBuf,
    /// The user's home and cargo's, if they are not those of the environment.
    homes: Option<Homes>,
    cargo: PathBuf,
    rustc: PathBuf,
    /// A command line; its last words are `-m ziglang` if zig came from PyPI.
    zig: Vec<PathBuf>,
}

/// Where a build finds and keeps what belongs to a user.
#[derive(Clone, Debug)]
pub struct Homes {
    /// HOME, below which zig has its cache.
    pub user: PathBuf,
    /// CARGO_HOME.
    pub cargo: PathBuf,
}

impl Homes {
    /// Those of the environment.
    pub fn of_environment() -> Result<Self> {
        let user = env::var_os("HOME").map(PathBuf::from);
        let cargo = env::var_os("CARGO_HOME").map(PathBuf::from);
        let cargo = cargo.or_else(|| Some(user.as_ref()?.join(".cargo")));
        let cargo = cargo.context("neither CARGO_HOME nor HOME is set")?;
        Ok(Self { user: user.context("HOME is not set")?, cargo })
    }
}

impl Toolchain {
    /// Finds a toolchain, or installs one: by rustup if it can, else by apt.
    pub fn set_up() -> Result<Self> {
        let (cargo, rustc) = match Self::find_compiler() {
            Some(found) => found,
            None => Self::install_compiler()?,
        };
        Ok(Self { root: paths::root().to_owned(), homes: None, cargo, rustc, zig: packages::zig::install()? })
    }

    /// The same toolchain for another checkout, of another user.
    pub fn elsewhere(self, root: PathBuf, homes: Homes) -> Self {
        Self { root, homes: Some(homes), ..self }
    }

    /// The directory into which cargo builds for routers: one of its own, because two compilers in one would rebuild each
    /// other's work.
    pub fn target_directory(&self) -> PathBuf {
        self.root.join("target/device")
    }

    fn find_compiler() -> Option<(PathBuf, PathBuf)> {
        let active = (env::var_os("CARGO").map(PathBuf::from)?, active_rustc()?);
        let debian = (PathBuf::from(DEBIAN.0), PathBuf::from(DEBIAN.1));
        [active, debian].into_iter().find(|(cargo, rustc)| cargo.exists() && has_library_source(rustc))
    }

    fn install_compiler() -> Result<(PathBuf, PathBuf)> {
        if which("rustup").is_some() {
            eprintln!("adding the rustup component rust-src: the agents' standard library is built from it");
            if succeeds(Command::new("rustup").args(["component", "add", "rust-src"])) {
                return Self::find_compiler()
                    .context("rustup added rust-src, but the active compiler has it not");
            }
            eprintln!("rustup cannot fetch it here");
        }
        packages::debian::apt(
            &["rustc-web", "cargo-web", "rust-web-src"],
            "a compiler that has the source of its standard library, from which the agents' is built",
        )?;
        Self::find_compiler().context("rustc-web is installed, but has no library source where it should be")
    }

    /// What the output of this toolchain depends on, as text.
    pub fn version(&self) -> Result<String> {
        let zig = output(self.zig().arg("version"))?;
        Ok(format!("{}\nzig {zig}", output(Command::new(&self.rustc).arg("-vV"))?))
    }

    fn zig(&self) -> Command {
        let mut command = Command::new(&self.zig[0]);
        command.args(&self.zig[1..]);
        command
    }

    /// A `cargo build` for a Rust target such as `mips-unknown-linux-musl`, with its standard library built along.
    pub fn cargo_build(&self, target: &str) -> Result<Command> {
        let (cc, ar) = self.c_compiler(target)?;
        let lower = target.replace('-', "_");
        let upper = lower.to_uppercase();
        // This makes the directories of the registries, which the flags name.
        run(self.cargo().args(["fetch", "--quiet", "--locked"]))?;
        let mut command = self.cargo();
        command
            .args(["build", "--locked", "--target", target])
            .args(["-Zbuild-std=std,panic_abort", "-Zbuild-std-features=optimize_for_size"])
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTC", &self.rustc)
            .env("CARGO_TARGET_DIR", self.target_directory())
            .env(format!("CC_{lower}"), &cc)
            .env(format!("AR_{lower}"), &ar)
            .env(format!("CARGO_TARGET_{upper}_LINKER"), &cc);
        set_flags(&mut command, MIPS_FLAGS.map(str::to_owned).into_iter().chain(self.hidden_paths()?));
        Ok(command)
    }

    /// cargo in the checkout, for its user.
    fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(&self.root).env_remove("RUSTUP_TOOLCHAIN");
        if let Some(homes) = &self.homes {
            command.env("HOME", &homes.user).env("CARGO_HOME", &homes.cargo);
        }
        command
    }

    fn hidden_paths(&self) -> Result<Vec<String>> {
        let homes = self.homes.clone().map_or_else(Homes::of_environment, Ok)?;
        hidden_paths(&self.root, &homes, &self.rustc)
    }

    /// A `cargo build` for the agent, which is to be small.
    pub fn agent_build(&self, target: &str) -> Result<Command> {
        let mut command = self.cargo_build(target)?;
        let discard = self.root.join("target/toolchain/discard.ld");
        fs::write(&discard, DISCARD).with_context(|| format!("cannot write {}", discard.display()))?;
        let flags = MIPS_FLAGS.iter().chain(&AGENT_FLAGS).map(|flag| (*flag).to_owned());
        let flags = flags.chain([format!("-Clink-arg=-T{}", discard.display())]);
        set_flags(&mut command, flags.chain(self.hidden_paths()?));
        command.env(format!("CFLAGS_{}", target.replace('-', "_")), AGENT_C_FLAGS);
        Ok(command)
    }

    /// Scripts that look like a C compiler and an archiver, for a Rust target or for the CPU that its name begins with.
    pub fn c_compiler(&self, target: &str) -> Result<(PathBuf, PathBuf)> {
        let directory = self.root.join("target/toolchain");
        let architecture = target.split('-').next().unwrap_or(target);
        let zig: Vec<_> = self.zig.iter().map(|word| format!("'{}'", word.display())).collect();
        let zig = zig.join(" ");
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let cc = directory.join(format!("cc-{architecture}"));
        write_script(&cc, &C_COMPILER.replace("CPU", architecture).replace("ZIG", &zig))?;
        let ar = directory.join("ar");
        write_script(&ar, &format!("exec {zig} ar \"$@\"\n"))?;
        Ok((cc, ar))
    }
}

/// Writes a script of the shell that can be run.
pub fn write_script(path: &Path, body: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{body}"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", path.display()))
}

/// A `cargo build` for this machine, of what users get. cargo keeps what it builds with other flags beside it, so neither
/// this nor a developer's own `cargo build` makes the other start again.
pub fn host_cargo_build() -> Result<Command> {
    let rustc = active_rustc().context("there is no rustc in PATH")?;
    let mut command = cargo();
    command.args(["build", "--locked"]);
    set_flags(&mut command, hidden_paths(paths::root(), &Homes::of_environment()?, &rustc)?);
    Ok(command)
}

/// Flags that keep the paths of this machine out of what is built: a panic is in `tokio-1.54.0/src/…`, in
/// `library/core/src/…` or in `agent/src/…`.
fn hidden_paths(root: &Path, homes: &Homes, rustc: &Path) -> Result<Vec<String>> {
    let registries = homes.cargo.join("registry/src");
    let sysroot = output(Command::new(rustc).args(["--print", "sysroot"]))?;
    let library = Path::new(&sysroot).join("lib/rustlib/src/rust");
    let mut prefixes = vec![root.to_owned(), library, registries.clone()];
    // The last flag that fits is taken.
    if let Ok(entries) = fs::read_dir(&registries) {
        let mut entries: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        entries.sort();
        prefixes.extend(entries);
    }
    Ok(prefixes.iter().map(|prefix| format!("--remap-path-prefix={}=", prefix.display())).collect())
}

/// Gives rustc these flags and none of the user's, which may be for the user's machine only.
fn set_flags(command: &mut Command, flags: impl IntoIterator<Item = String>) {
    let flags: Vec<String> = flags.into_iter().collect();
    // Unlike RUSTFLAGS, this can hold a path with a space in it.
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")).env_remove("RUSTFLAGS");
}

/// The rustc beside the cargo that runs this. rustup's own `rustc` would look at RUSTUP_TOOLCHAIN, which is ours.
fn active_rustc() -> Option<PathBuf> {
    let sysroot =
        output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(paths::root())).ok()?;
    Some(Path::new(&sysroot).join("bin/rustc"))
}

fn has_library_source(rustc: &Path) -> bool {
    let Ok(sysroot) = output(Command::new(rustc).args(["--print", "sysroot"])) else { return false };
    Path::new(&sysroot).join("lib/rustlib/src/rust/library/std/Cargo.toml").exists()
}

/// Go, which Hop calls to build programs. It is not installed: a Go developer has one.
pub fn check_go() -> Result<()> {
    const WANTED: &str = "the demo and the tests build Go programs, with Go 1.25, or 1.26.5 and later";
    if which("go").is_none() {
        bail!("there is no `go` in PATH: {WANTED}");
    }
    let version = output(Command::new("go").args(["env", "GOVERSION"]).current_dir(paths::root()))?;
    if !is_good_go(&version) {
        bail!("this is {version}: {WANTED}");
    }
    Ok(())
}

/// True from 1.25 on, but for 1.26 before 1.26.5, whose programs crash on MIPS. A version of another form is believed.
fn is_good_go(version: &str) -> bool {
    let numbers = version.strip_prefix("go1.").unwrap_or_default();
    let mut numbers = numbers.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(26)), Some(Ok(patch))) => patch >= 5,
        (Some(Ok(minor)), _) => minor >= 25 && minor != 26,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_that_the_tests_need() {
        for good in ["go1.25.0", "go1.25rc1", "go1.26.5", "go1.26.10-X:some", "go1.27", "devel go1.28-abc"] {
            assert!(is_good_go(good), "{good}");
        }
        for bad in ["go1.19.8", "go1.24.9", "go1.26", "go1.26.0", "go1.26.4"] {
            assert!(!is_good_go(bad), "{bad}");
        }
    }
}
