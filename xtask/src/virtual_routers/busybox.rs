//! Builds busybox with the applets of a flavour, static, from Debian's source package.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::available_parallelism;

use anyhow::{Context, Result, bail, ensure};

use super::cached_build::{CachedBuild, remove, scratch};
use super::sources::Sources;
use super::{System, config, routers};
use crate::build::toolchain::{C_COMPILER, Toolchain};
use crate::command::run;
use crate::packages::zig;

/// Symbols that a configuration has without its fragment: choices that Kconfig must make, and dependencies of an applet.
const IMPLIED: [&str; 8] = [
    "BASH_IS_NONE",
    "FEATURE_BUFFERS_USE_MALLOC",
    "FEATURE_BZIP2_DECOMPRESS",
    "HAVE_DOT_CONFIG",
    "INSTALL_APPLET_SYMLINKS",
    "NO_DEBUG_LIB",
    "PLATFORM_LINUX",
    "SHELL_ASH",
];

/// Options of busybox's build for GNU's compiler and linker that zig's do not know.
const UNKNOWN_TO_ZIG: &str = "-finline-limit=* | -falign-* | -Wl,--warn-common | -Wl,-Map,* | -Wl,--verbose";

/// busybox declares the pointer to an applet's state constant, and writes it through another pointer. zig's clang therefore reads
/// it before it is set, and the applet dies of SIGSEGV. This removes the `const`.
const WITHOUT_CONSTANT_GLOBALS: &str = "-DBB_GLOBAL_CONST=";

/// The declaration of that pointer for most applets: in busybox 1.35, which does not use the macro, and in 1.36, which does.
const CONSTANT_POINTER: [&str; 2] = [
    "extern struct globals *const ptr_to_globals;",
    "extern struct globals *BB_GLOBAL_CONST ptr_to_globals;",
];

/// Returns a directory with `busybox` and `links`, the paths of the applets, one a line.
pub fn build(system: System, toolchain: &Toolchain, sources: &mut Sources) -> Result<PathBuf> {
    let System { flavour, architecture } = system;
    let files = ["common", flavour].map(|name| routers().join(format!("busybox/{name}.config")));
    let mut build = CachedBuild::new(format!("busybox-{flavour}-{architecture}"), include_str!("busybox.rs"))
        .input(include_str!("config.rs"))
        .input(C_COMPILER)
        .input(zig::VERSION);
    let mut fragment = String::new();
    for file in &files {
        build = build.input_file(file)?;
        fragment += &fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    build.get(&["busybox", "links"], |place| {
        let (source, version) = sources.get("busybox")?;
        eprintln!("building busybox {version} for {flavour} on {architecture}: half a minute on two cores");
        release_globals(&source)?;
        let objects = scratch("busybox")?;
        let make = make(&source, &objects, toolchain, architecture)?;
        configure(&source, &objects, &fragment, &make)
            .with_context(|| format!("{} and {}", files[0].display(), files[1].display()))?;
        run(make().args(["busybox", "busybox.links"]).stdout(Stdio::null()).stderr(log(&objects)?))
            .with_context(|| format!("see {}", objects.join("log").display()))?;
        let copy = |from: &str, to: &str| fs::copy(objects.join(from), place.join(to));
        copy("busybox", "busybox")
            .and_then(|_| copy("busybox.links", "links"))
            .context("cannot keep busybox")?;
        system.check(&place.join("busybox"))?;
        remove(&objects)
    })
}

/// Makes the source declare the pointer to the globals by its macro.
fn release_globals(source: &Path) -> Result<()> {
    let path = source.join("include/libbb.h");
    let header = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let [constant, by_macro] = CONSTANT_POINTER;
    let header = header.replace(constant, by_macro);
    ensure!(header.contains(by_macro), "{} has another declaration of its globals", path.display());
    fs::write(&path, header).with_context(|| format!("cannot write {}", path.display()))
}

fn log(objects: &Path) -> Result<fs::File> {
    fs::File::create(objects.join("log")).context("cannot create a log")
}

/// Returns a function that makes a call of make for this source and these objects.
fn make(
    source: &Path,
    objects: &Path,
    toolchain: &Toolchain,
    architecture: &str,
) -> Result<impl Fn() -> Command> {
    let (cc, ar) = toolchain.c_compiler(architecture)?;
    let wrapper = objects.join("cc");
    let body = format!(
        "for argument do\n\
         \x20   shift\n\
         \x20   case $argument in {UNKNOWN_TO_ZIG}) ;; *) set -- \"$@\" \"$argument\" ;; esac\n\
         done\n\
         exec '{}' {WITHOUT_CONSTANT_GLOBALS} \"$@\"\n",
        cc.display()
    );
    crate::build::toolchain::write_script(&wrapper, &body)?;
    let (source, objects) = (source.to_owned(), objects.to_owned());
    Ok(move || {
        let jobs = available_parallelism().map_or(1, |jobs| jobs.get());
        let mut command = Command::new("make");
        command
            .current_dir(&source)
            .args(["--silent", &format!("--jobs={jobs}"), "HOSTCC=gcc", "SKIP_STRIP=y"])
            .arg(format!("O={}", objects.display()))
            .arg(format!("CC={}", wrapper.display()))
            // The build only links objects to an object, which the compiler does too.
            .arg(format!("LD={}", wrapper.display()))
            .arg(format!("AR={}", ar.display()))
            .env("KCONFIG_NOTIMESTAMP", "1")
            .env_remove("MAKEFLAGS");
        command
    })
}

/// Writes a configuration with exactly the settings of the fragment. busybox's allnoconfig ignores a fragment, and its oldconfig
/// takes the default for a missing symbol, which is mostly yes: so the configuration names every symbol.
fn configure(source: &Path, objects: &Path, fragment: &str, make: &impl Fn() -> Command) -> Result<()> {
    // This also writes the Config.in of each directory.
    run(make().arg("allyesconfig").stdout(Stdio::null()).stderr(Stdio::null()))?;
    let wanted: BTreeSet<&str> = config::settings(fragment).map(config::symbol).collect();
    let mut content: String = config::settings(fragment).map(|setting| format!("{setting}\n")).collect();
    for symbol in symbols(source)?.iter().filter(|symbol| !wanted.contains(symbol.as_str())) {
        content += &format!("# CONFIG_{symbol} is not set\n");
    }
    let path = objects.join(".config");
    fs::write(&path, content).context("cannot write a configuration")?;
    // For numbers and texts, an empty line takes the default. At the end of its input, oldconfig would loop.
    let answers = objects.join("answers");
    fs::write(&answers, "\n".repeat(10_000)).context("cannot write answers")?;
    let answers = fs::File::open(answers).context("cannot read answers")?;
    run(make().arg("oldconfig").stdin(answers).stdout(Stdio::null()).stderr(Stdio::null()))?;
    let configuration = fs::read_to_string(&path).context("cannot read a configuration")?;
    config::check(fragment, &configuration)?;
    let unexpected: Vec<&str> = config::settings(&configuration)
        .filter(|setting| setting.ends_with("=y"))
        .map(config::symbol)
        .filter(|symbol| !wanted.contains(symbol) && !IMPLIED.contains(symbol))
        .collect();
    if !unexpected.is_empty() {
        bail!("the configuration of busybox has more than its fragment: {}", unexpected.join(" "));
    }
    Ok(())
}

/// All symbols that busybox's sources define, in comments of C files and in Kconfig files.
fn symbols(directory: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries =
            fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let path = entry.context("cannot read busybox's sources")?.path();
            if path.is_dir() {
                pending.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| ["c", "in", "src"].iter().any(|wanted| extension == *wanted))
            {
                let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                let content = String::from_utf8_lossy(&content);
                found.extend(content.lines().filter_map(defined_symbol).map(str::to_owned));
            }
        }
    }
    ensure!(found.len() > 500, "busybox's sources define only {} symbols", found.len());
    Ok(found)
}

/// The symbol that a line defines.
fn defined_symbol(line: &str) -> Option<&str> {
    line.strip_prefix("//config:").unwrap_or(line).strip_prefix("config ").map(str::trim_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_come_from_comments_and_kconfig() {
        assert_eq!(defined_symbol("//config:config ASH"), Some("ASH"));
        assert_eq!(defined_symbol("config LFS"), Some("LFS"));
        assert_eq!(defined_symbol("//config:\tdefault y"), None);
        assert_eq!(defined_symbol("configure it"), None);
    }
}
