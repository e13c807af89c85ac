//! Builds the kernels: Debian's source of Linux with our configuration, for QEMU's Malta board, without FPU.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::available_parallelism;

use anyhow::{Context, Result};

use super::cached_build::{CachedBuild, remove, scratch};
use super::{config, routers};
use crate::command::{output, run};
use crate::packages;

/// Debian's package of the source, and its file.
const PACKAGE: &str = "linux-source-6.1";
const TARBALL: &str = "/usr/src/linux-source-6.1.tar.xz";

/// DD-WRT's kernel, by whose release programs decide which system calls they use.
const OLD: Variant = Variant {
    release: "3.10.108-d10",
    // DD-WRT builds its kernels without core dumps. Few of the kernel's objects depend on that.
    settings: "# CONFIG_COREDUMP is not set\n# CONFIG_ELF_CORE is not set\n",
};

/// The file in the kernels' directory with the version of their source.
const VERSION: &str = "version";

/// Programs or files that the build needs, and their packages.
const TOOLS: [(&str, &str); 12] = [
    (TARBALL, PACKAGE),
    ("mips-linux-gnu-gcc", "gcc-mips-linux-gnu"),
    ("mipsel-linux-gnu-gcc", "gcc-mipsel-linux-gnu"),
    ("bc", "bc"),
    ("bison", "bison"),
    ("flex", "flex"),
    ("make", "make"),
    ("perl", "perl"),
    ("tar", "tar"),
    ("xz", "xz-utils"),
    ("gcc", "gcc"),
    ("/usr/include/stdio.h", "libc6-dev"),
];

/// Builds the kernels: big-endian, little-endian, and little-endian with an old release.
pub fn build() -> Result<Vec<PathBuf>> {
    let build = CachedBuild::new("kernels", include_str!("kernel.rs"))
        .input(include_str!("config.rs"))
        .input_file(&routers().join("kernel.config"))?;
    let kernels =
        ["kernel-mips".to_owned(), "kernel-mipsel".to_owned(), format!("kernel-mipsel-{}", OLD.release)];
    let [big, little, old] = kernels.each_ref().map(String::as_str);
    let place = build.get_if(is_current, &[big, little, old, VERSION], |place| {
        packages::debian::require(&TOOLS, "the kernels of virtual routers are built from Debian's source")?;
        let version = installed_version().with_context(|| format!("{PACKAGE} is not installed"))?;
        eprintln!("building the kernels, three minutes each on two cores, from {PACKAGE} {version}");
        let source = unpack()?;
        for endian in [&BIG, &LITTLE] {
            endian.build(&source, place)?;
        }
        remove(&source)?;
        fs::write(place.join(VERSION), version).context("cannot write the kernel's version")
    })?;
    Ok(kernels.iter().map(|name| place.join(name)).collect())
}

/// The version of the source package, if it is installed.
fn installed_version() -> Option<String> {
    let format = "--showformat=${db:Status-Status} ${Version}";
    let answer = output(Command::new("dpkg-query").args(["--show", format, PACKAGE])).ok()?;
    answer.strip_prefix("installed ").map(str::to_owned)
}

/// True if the kernels are from the installed version of the source, or if none is installed.
fn is_current(place: &Path) -> bool {
    let built = fs::read_to_string(place.join(VERSION)).ok();
    installed_version().is_none_or(|installed| built == Some(installed))
}

fn unpack() -> Result<PathBuf> {
    let source = scratch("linux")?;
    run(Command::new("tar")
        .args(["--extract", "--strip-components=1", "--file", TARBALL, "--directory"])
        .arg(&source))?;
    Ok(source)
}

struct Endian {
    architecture: &'static str,
    settings: &'static str,
    /// Kernels that differ little, built from the objects of this one.
    variants: &'static [Variant],
}

/// A kernel that reports another release, with settings that replace those of `kernel.config`.
struct Variant {
    release: &'static str,
    settings: &'static str,
}

const BIG: Endian = Endian { architecture: "mips", settings: "CONFIG_CPU_BIG_ENDIAN=y\n", variants: &[] };
const LITTLE: Endian =
    Endian { architecture: "mipsel", settings: "CONFIG_CPU_LITTLE_ENDIAN=y\n", variants: &[OLD] };

impl Endian {
    fn build(&self, source: &Path, place: &Path) -> Result<()> {
        let objects = scratch(&format!("linux-{}", self.architecture))?;
        let path = routers().join("kernel.config");
        let fragment =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let fragment = fragment + self.settings;
        self.configure(source, &objects, &fragment)?;
        run(self.make(source, &objects).arg("vmlinux"))?;
        self.strip(&objects, &place.join(format!("kernel-{}", self.architecture)))?;
        for Variant { release, settings } in self.variants {
            self.configure(source, &objects, &config::replace(&fragment, settings))?;
            run(self.make(source, &objects).arg(format!("KERNELRELEASE={release}")).arg("vmlinux"))?;
            self.strip(&objects, &place.join(format!("kernel-{}-{release}", self.architecture)))?;
        }
        remove(&objects)
    }

    /// Writes a configuration with the settings of the fragment and nothing else.
    fn configure(&self, source: &Path, objects: &Path, fragment: &str) -> Result<()> {
        let file = objects.join("fragment");
        fs::write(&file, fragment).context("cannot write the kernel's configuration")?;
        run(self.make(source, objects).arg("allnoconfig").env("KCONFIG_ALLCONFIG", &file))?;
        let configuration =
            fs::read_to_string(objects.join(".config")).context("the kernel has no configuration")?;
        config::check(fragment, &configuration).with_context(|| {
            format!("{} for {}", routers().join("kernel.config").display(), self.architecture)
        })
    }

    fn prefix(&self) -> String {
        format!("{}-linux-gnu-", self.architecture)
    }

    /// A call of make. Two builds from the same source are the same bytes.
    fn make(&self, source: &Path, objects: &Path) -> Command {
        let jobs = available_parallelism().map_or(1, |jobs| jobs.get());
        let mut command = Command::new("make");
        command
            .current_dir(source)
            .args(["--silent", &format!("--jobs={jobs}"), "ARCH=mips"])
            .arg(format!("CROSS_COMPILE={}", self.prefix()))
            .arg(format!("O={}", objects.display()))
            .env("KBUILD_BUILD_TIMESTAMP", "1970-01-01")
            .env("KBUILD_BUILD_VERSION", "1")
            .env("KBUILD_BUILD_USER", "hop")
            .env("KBUILD_BUILD_HOST", "hop")
            // If make called cargo, this make must not use the job server of that one.
            .env_remove("MAKEFLAGS");
        command
    }

    fn strip(&self, objects: &Path, kernel: &Path) -> Result<()> {
        run(Command::new(format!("{}strip", self.prefix()))
            .arg("-o")
            .arg(kernel)
            .arg(objects.join("vmlinux")))
    }
}
