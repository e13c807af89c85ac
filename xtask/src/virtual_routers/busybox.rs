//! busybox with the applets of a flavour, static, from Debian's source package.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::available_parallelism;

use anyhow::{Context, Result, bail, ensure};

use super::part::{Part, remove, scratch};
use super::sources::Sources;
use super::{System, config, routers};
use crate::build::toolchain::{C_COMPILER, Toolchain};
use crate::command::run;
use crate::packages::ZIG;

/// What a configuration has without being asked for: choices of which one must be made, and what an applet brings along.
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

/// What busybox's build says to GNU's compiler and linker, and zig's does not know.
const UNKNOWN_TO_ZIG: &str = "-finline-limit=* | -falign-* | -Wl,--warn-common | -Wl,-Map,* | -Wl,--verbose";

/// Where applets keep their state is a pointer that busybox declares constant and writes to by a trick, which zig's clang sees
/// through: it reads the pointer before it is set, and the applet dies of SIGSEGV. Without the `const` there is no trick.
const WITHOUT_CONSTANT_GLOBALS: &str = "-DBB_GLOBAL_CONST=";

/// The declaration of one such pointer, most applets', which busybox 1.35 does not yet write by that macro; and as 1.36 does.
const CONSTANT_POINTER: [&str; 2] = [
    "extern struct globals *const ptr_to_globals;",
    "extern struct globals *BB_GLOBAL_CONST ptr_to_globals;",
];

/// A directory with `busybox` and `links`: the paths under which a system finds its applets, one a line.
pub fn build(system: System, toolchain: &Toolchain, sources: &mut Sources) -> Result<PathBuf> {
    let System { flavour, architecture } = system;
    let files = ["common", flavour].map(|name| routers().join(format!("busybox/{name}.config")));
    let mut part = Part::new(format!("busybox-{flavour}-{architecture}"), include_str!("busybox.rs"))
        .of(include_str!("config.rs"))
        .of(C_COMPILER)
        .of(ZIG);
    let mut fragment = String::new();
    for file in &files {
        part = part.of_file(file)?;
        fragment += &fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    part.get(&["busybox", "links"], |place| {
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

/// Lets the source declare the pointer to the globals by its macro.
fn release_globals(source: &Path) -> Result<()> {
    let path = source.join("include/libbb.h");
    let header = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let [constant, by_macro] = CONSTANT_POINTER;
    let header = header.replace(constant, by_macro);
    ensure!(header.contains(by_macro), "{} declares its globals in another way", path.display());
    fs::write(&path, header).with_context(|| format!("cannot write {}", path.display()))
}

fn log(objects: &Path) -> Result<fs::File> {
    fs::File::create(objects.join("log")).context("cannot create a log")
}

/// How make is called for this source and these objects.
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
            // The compiler links objects to an object too; busybox's build asks for nothing else.
            .arg(format!("LD={}", wrapper.display()))
            .arg(format!("AR={}", ar.display()))
            .env("KCONFIG_NOTIMESTAMP", "1")
            .env_remove("MAKEFLAGS");
        command
    })
}

/// Writes a configuration with the settings of the fragment and nothing else. busybox's own allnoconfig forgets a fragment,
/// and its oldconfig answers what it is not told with the default, which is mostly yes: so it is told of every symbol.
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
    // What is left are numbers and texts: an empty line takes the default. At the end of its input it would ask for ever.
    let answers = objects.join("answers");
    fs::write(&answers, "\n".repeat(10_000)).context("cannot write answers")?;
    let answers = fs::File::open(answers).context("cannot read answers")?;
    run(make().arg("oldconfig").stdin(answers).stdout(Stdio::null()).stderr(Stdio::null()))?;
    let configuration = fs::read_to_string(&path).context("cannot read a configuration")?;
    config::check(fragment, &configuration)?;
    let uncalled: Vec<&str> = config::settings(&configuration)
        .filter(|setting| setting.ends_with("=y"))
        .map(config::symbol)
        .filter(|symbol| !wanted.contains(symbol) && !IMPLIED.contains(symbol))
        .collect();
    if !uncalled.is_empty() {
        bail!("busybox has what nobody asked for: {}", uncalled.join(" "));
    }
    Ok(())
}

/// All symbols that busybox's sources define, in comments of C files and in Kconfig's files.
fn symbols(directory: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut unread = vec![directory.to_owned()];
    while let Some(directory) = unread.pop() {
        let entries =
            fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let path = entry.context("cannot read busybox's sources")?.path();
            if path.is_dir() {
                unread.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| ["c", "in", "src"].iter().any(|wanted| extension == *wanted))
            {
                let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                let content = String::from_utf8_lossy(&content);
                found.extend(content.lines().filter_map(defined).map(str::to_owned));
            }
        }
    }
    ensure!(found.len() > 500, "busybox's sources define only {} symbols", found.len());
    Ok(found)
}

/// The symbol that a line defines.
fn defined(line: &str) -> Option<&str> {
    line.strip_prefix("//config:").unwrap_or(line).strip_prefix("config ").map(str::trim_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_is_defined_in_a_comment_or_in_a_configuration() {
        assert_eq!(defined("//config:config ASH"), Some("ASH"));
        assert_eq!(defined("config LFS"), Some("LFS"));
        assert_eq!(defined("//config:\tdefault y"), None);
        assert_eq!(defined("configure it"), None);
    }
}
