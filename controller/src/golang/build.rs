//! Go: which one there is, and how it builds a program for a router.
//!
//! **Invariants:** Go's own words reach the user unchanged, and the user's own build flags come last, so they win.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use super::Error;
use crate::console::printable::printable;
use crate::console::progress::Progress;
use crate::console::stdio;
use hop_formats::elf::Target;

/// Flags that a program for a router is built with, unless the user has them in GOFLAGS: no paths of this machine in it,
/// and no symbols, which are a third of it, unless they are wanted.
const DEFAULTS: [(&str, &str); 3] =
    [("trimpath", "-trimpath"), (LDFLAGS, "-ldflags=-s -w"), (BUILDVCS, "-buildvcs=false")];
const LDFLAGS: &str = "ldflags";
const BUILDVCS: &str = "buildvcs";

/// What is behind the default `-ldflags` if the program has parts in C: no library of this machine is on the router.
const STATIC: &str = " -linkmode=external -extldflags=-static";

/// Flags that these routers cannot support, with the reason.
const REFUSED: [(&str, &str); 7] = [
    ("race", "the race detector does not exist for 32-bit MIPS (go.dev/doc/articles/race_detector)"),
    ("msan", "the memory sanitizer does not exist for 32-bit MIPS"),
    ("asan", "the address sanitizer does not exist for 32-bit MIPS"),
    ("buildmode=plugin", "Go has no plugins for 32-bit MIPS, and a program for a router is one static file"),
    ("buildmode=shared", "a program for a router is one static file"),
    ("buildmode=c-shared", "a library is no program, and Go makes none for 32-bit MIPS"),
    ("buildmode=c-archive", "a library is no program, and Go makes none for 32-bit MIPS"),
];

/// A build with `go build`.
#[derive(Clone, Copy, Debug)]
pub struct Build<'a> {
    /// The user's own flags for `go build`.
    pub flags: &'a [OsString],
    /// A package, or `.go` files.
    pub packages: &'a [OsString],
    /// GOARCH.
    pub goarch: &'a str,
    /// With debugging information.
    pub symbols: bool,
    /// With the state of the checkout, as `go build` stamps it; `go run` does not.
    pub vcs_stamp: bool,
    /// The C compiler for the router, if the program may have parts in C.
    pub cc: Option<&'a OsStr>,
}

/// GOARCH for a router's programs, if Go has it.
pub fn goarch(target: Target) -> Option<&'static str> {
    use object::elf::{EM_AARCH64, EM_MIPS, EM_X86_64};
    match (object::elf::Machine(target.machine), target.class, target.data) {
        (EM_MIPS, 1, 2) => Some("mips"),
        (EM_MIPS, 1, 1) => Some("mipsle"),
        (EM_X86_64, 2, 1) => Some("amd64"),
        (EM_AARCH64, 2, 1) => Some("arm64"),
        _ => None,
    }
}

impl Build<'_> {
    /// Builds into `output`, or where `go build` puts it. Go's standard error goes to ours, past `progress`.
    ///
    /// # Errors
    /// There is no Go, it is one that must not be used, or it did not build.
    pub async fn run(&self, output: Option<&Path>, progress: &Progress) -> Result<(), Error> {
        let (version, goflags) = self.asked().await?;
        if self.goarch.starts_with("mips") && is_broken(&version) {
            return Err(Error::BrokenGo { version });
        }
        if self.goarch.starts_with("mips") {
            self.check_flags()?;
        }
        // `go build` takes no versions, so it has no place of its own for such a program either.
        let own = PathBuf::from(self.name());
        let output = output.or(self.is_versioned().then_some(&own));
        let mut go = self.go();
        go.arg(if self.is_versioned() { "run" } else { "build" });
        // Go takes the last flag of a kind and the command line after GOFLAGS, where the user's own may be.
        for (name, default) in DEFAULTS {
            let is_wanted = match name {
                LDFLAGS => !self.symbols,
                BUILDVCS => !self.vcs_stamp,
                _ => true,
            };
            if is_wanted && !goflags.iter().any(|flag| flag_name(flag) == name) {
                let with_c = self.cc.filter(|_| name == LDFLAGS).map_or("", |_| STATIC);
                go.arg(format!("{default}{with_c}"));
            }
        }
        // `go run` leaves symbols out by itself.
        if self.symbols && self.is_versioned() && !goflags.iter().any(|flag| flag_name(flag) == LDFLAGS) {
            go.arg(format!("-ldflags=-s=false -w=false{}", self.cc.map_or("", |_| STATIC)));
        }
        go.args(self.flags);
        match output {
            // `go run` lets cp "execute" the program: it copies it here.
            Some(output) if self.is_versioned() => {
                let output = std::path::absolute(output).map_err(Error::io("find", output))?;
                go.args(["-exec", "cp", "--"]).args(self.packages).arg(output);
            }
            Some(output) => {
                go.arg("-o").arg(output).arg("--").args(self.packages);
            }
            None => {
                go.arg("--").args(self.packages);
            }
        }
        progress.show("building");
        let status = run(&mut go, false, progress).await.map_err(cannot_run)?.status;
        match output {
            _ if !status.success() => {
                let with_c = if self.cc.is_none() { self.packages_with_c().await } else { Vec::new() };
                match with_c.is_empty() {
                    true => Err(Error::NotBuilt {
                        why: format!(
                            "go {} failed: {status}",
                            if self.is_versioned() { "run" } else { "build" }
                        ),
                    }),
                    false => Err(Error::NeedsC { packages: with_c.join(", ") }),
                }
            }
            // A pattern that matches nothing is a warning to Go.
            Some(output) if !output.exists() => {
                Err(Error::NotBuilt { why: "go build made no program".to_owned() })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn go(&self) -> Command {
        let mut go = Command::new("go");
        go.env("CGO_ENABLED", if self.cc.is_some() { "1" } else { "0" })
            .envs(self.cc.map(|cc| ("CC", cc)))
            .env("GOOS", "linux")
            .env("GOARCH", self.goarch)
            .env("GOMIPS", "softfloat")
            .stdin(Stdio::null());
        go
    }

    fn check_flags(&self) -> Result<(), Error> {
        let mut words = self.flags.iter().map(|word| word.to_string_lossy());
        while let Some(word) = words.next() {
            let mut flag = word.trim_start_matches('-').to_owned();
            if flag == "buildmode" {
                flag = format!("{flag}={}", words.next().unwrap_or_default());
            }
            if let Some((flag, why)) =
                REFUSED.iter().find(|(refused, _)| *refused == flag.trim_end_matches("=true"))
            {
                return Err(Error::CannotBuild { flag, why });
            }
        }
        Ok(())
    }

    /// What of the program, outside the standard library, has parts in C: for the error of a build without a C compiler.
    async fn packages_with_c(&self) -> Vec<String> {
        const FORMAT: &str = "{{if and .CgoFiles (not .Standard)}}{{.ImportPath}}{{end}}";
        let mut go = self.go();
        go.env("CGO_ENABLED", "1").args(["list", "-deps", "-e", "-f", FORMAT, "--"]).args(self.packages);
        let output = go.stderr(Stdio::null()).output().await;
        let output = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        output.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// True for a package with a version, such as `example.com/cmd/probe@latest`, which `go run` fetches.
    pub fn is_versioned(&self) -> bool {
        let package = self.packages.first().map(|package| package.to_string_lossy()).unwrap_or_default();
        package.contains('@') && !package.starts_with(['.', '/']) && !package.ends_with(".go")
    }

    /// The version, and the flags in GOFLAGS.
    async fn asked(&self) -> Result<(String, Vec<String>), Error> {
        let output = self.go().args(["env", "GOVERSION", "GOFLAGS"]).stderr(Stdio::inherit()).output().await;
        let output = output.map_err(cannot_run)?;
        if !output.status.success() {
            return Err(Error::NotBuilt { why: format!("go env failed: {}", output.status) });
        }
        let answers = String::from_utf8_lossy(&output.stdout).into_owned();
        let (version, goflags) = answers.split_once('\n').unwrap_or((&answers, ""));
        Ok((version.trim().to_owned(), quoted_words(goflags)))
    }

    /// What `go build` would call the program: the last element of the package's path that is not a version, or the
    /// first file without `.go`.
    pub fn name(&self) -> OsString {
        let first = Path::new(self.packages.first().map_or(OsStr::new("program"), OsString::as_os_str));
        if first.extension().is_some_and(|extension| extension == "go") {
            return first.file_stem().unwrap_or_default().to_owned();
        }
        let without_version =
            first.to_str().filter(|_| self.is_versioned()).and_then(|path| path.split('@').next());
        let first = without_version.map_or(first, Path::new);
        // `.` and `..` have no name of their own; an import path is no directory and is taken as it stands.
        let path = first.canonicalize().unwrap_or_else(|_| first.to_owned());
        let is_version = |name: &&OsStr| {
            name.to_str().and_then(|name| name.strip_prefix('v')).is_some_and(|n| n.parse::<u32>().is_ok())
        };
        let mut names = path.iter().rev();
        let last = names.next().unwrap_or_default();
        names.next().filter(|_| is_version(&last)).unwrap_or(last).to_owned()
    }
}

/// The words of a variable such as GOFLAGS, as Go reads them (cmd/internal/quoted): separated by blanks, and a word that begins
/// with a quote ends with the next one. What has no end is left to Go, which refuses it.
fn quoted_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_ascii_start();
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '\'' | '"' => rest[1..].split_once(first).unwrap_or((&rest[1..], "")),
            _ => rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_ascii_start();
    }
    words
}

/// The name in `-name`, `--name` or `-name=value`.
pub(super) fn flag_name(flag: &str) -> &str {
    let name = flag.strip_prefix("--").or(flag.strip_prefix('-')).unwrap_or(flag);
    name.split_once('=').map_or(name, |(name, _)| name)
}

/// golang.org/issue/77730 (crash at start on kernels before 5.1) and 81603 (32-bit heap corruption), mended in 1.26.5.
fn is_broken(version: &str) -> bool {
    // "go1.26.4", or "go1.26.4-X:nofoo", or "devel go1.27-abcdef".
    let Some(version) = version.strip_prefix("go1.26") else { return false };
    let version = version.split(['-', ' ', '+']).next().unwrap_or_default();
    match version.strip_prefix('.') {
        Some(patch) => patch.parse::<u32>().is_ok_and(|patch| patch < 5),
        // 1.26 itself, and its release candidates.
        None => true,
    }
}

/// The version that this directory selects: go.mod may name another toolchain than PATH.
///
/// # Errors
/// There is no Go, or it fails.
pub async fn version(target: Target) -> Result<String, Error> {
    let goarch = goarch(target).unwrap_or_default();
    let build = Build { flags: &[], packages: &[], goarch, symbols: false, vcs_stamp: false, cc: None };
    Ok(build.asked().await?.0)
}

/// Checks that what this version of Go builds runs on a router, whose kernel says that it is `kernel`.
///
/// # Errors
/// [`Error::BrokenGo`], [`Error::OldKernel`].
pub fn check(version: &str, target: Target, router: &str, kernel: &str) -> Result<(), Error> {
    if goarch(target).is_some_and(|goarch| goarch.starts_with("mips")) && is_broken(version) {
        return Err(Error::BrokenGo { version: version.to_owned() });
    }
    let numbers = |text: &str| -> Option<(u32, u32)> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    };
    // go.dev/doc/go1.24#linux. What does not say what it is cannot be refused.
    let is_new = version.strip_prefix("go").and_then(numbers).is_some_and(|version| version >= (1, 24));
    if is_new && numbers(kernel).is_some_and(|kernel| kernel < (3, 2)) {
        let (version, router, kernel) =
            (version.to_owned(), router.to_owned(), printable(kernel).into_owned());
        return Err(Error::OldKernel { version, needs: "3.2", router, kernel });
    }
    Ok(())
}

pub(super) fn cannot_run(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::NoGo(error),
        _ => Error::io("run", "go".as_ref())(error),
    }
}

/// Runs Go and relays its output. Even its standard output goes to our standard error, because ours belongs to the program;
/// or it is returned, if `collects`.
pub(super) async fn run(go: &mut Command, collects: bool, progress: &Progress) -> std::io::Result<Output> {
    let mut go = Interruptible(go.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
    let (stdout, stderr) = (go.0.stdout.take(), go.0.stderr.take());
    let printed = async {
        let mut collected = Vec::new();
        match stdout {
            // Go that fails to print has an exit status that says so.
            Some(mut stdout) if collects => drop(stdout.read_to_end(&mut collected).await),
            stdout => relay(stdout, progress).await,
        }
        collected
    };
    let (stdout, (), status) = tokio::join!(printed, relay(stderr, progress), go.0.wait());
    Ok(Output { status: status?, stdout, stderr: Vec::new() })
}

/// A Go process that gets SIGINT, not SIGKILL, when hop stops waiting for it: it then kills its compilers and removes
/// its temporary files.
struct Interruptible(Child);

impl Drop for Interruptible {
    fn drop(&mut self) {
        // It has no id once it was waited for.
        if let Some(pid) = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            // Fails if it has just exited.
            let _ = kill_process(pid, Signal::INT);
        }
    }
}

/// Copies to our standard error. The build goes on even if nobody reads that.
async fn relay(from: Option<impl tokio::io::AsyncRead + Unpin>, progress: &Progress) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 8192];
    // An error is the end: the other side of this pipe is gone.
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        progress.clear();
        let piece = buffer[..count].to_vec();
        // On another thread, so that hop handles Ctrl-C while nobody reads.
        let _ = tokio::task::spawn_blocking(move || stdio::stderr().write_all(&piece)).await;
    }
}

/// A place for a build's output, removed when dropped.
///
/// # Errors
/// The temporary directory cannot be written.
pub fn temporary_output() -> Result<(tempfile::TempDir, PathBuf), Error> {
    let parent = std::env::temp_dir();
    let directory = tempfile::Builder::new()
        .prefix("hop-")
        .tempdir_in(&parent)
        .map_err(Error::io("create a directory in", &parent))?;
    let output = directory.path().join("program");
    Ok((directory, output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_go_versions_are_known() {
        for version in
            ["go1.26", "go1.26.0", "go1.26.4", "go1.26rc1", "go1.26.4-X:greenteagc", "go1.26.3 X:foo"]
        {
            assert!(is_broken(version), "{version}");
        }
        for version in ["go1.25.9", "go1.26.5", "go1.26.10", "go1.27", "devel go1.27-0123abc", "", "go1.2"] {
            assert!(!is_broken(version), "{version}");
        }
    }

    #[test]
    fn unsupported_go_flags_are_refused() {
        let check = |line: &str| {
            let flags: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            Build { flags: &flags, packages: &[], goarch: "mips", symbols: false, vcs_stamp: false, cc: None }
                .check_flags()
        };
        for line in
            ["-race", "--race", "-race=true", "-tags x -msan", "-buildmode=plugin", "-buildmode c-shared"]
        {
            assert!(matches!(check(line), Err(Error::CannotBuild { .. })), "{line}");
        }
        for line in ["", "-trimpath", "-race=false", "-buildmode=exe", "-buildmode pie"] {
            assert!(check(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn old_kernel_is_refused_before_build() {
        let router = Target { class: 1, data: 2, machine: 8 };
        let check = |version: &str, kernel: &str| check(version, router, "desk", kernel);
        let refused = [("go1.24", "2.6.34.15"), ("go1.27.3", "Linux 3.1.10"), ("go1.26.4", "6.6.52")];
        for (version, kernel) in refused {
            assert!(check(version, kernel).is_err(), "{version} {kernel}");
        }
        let fine =
            [("go1.23.4", "2.6.34"), ("go1.26.8", "3.10.108-d10"), ("go1.25.1", ""), ("devel", "2.6.3")];
        for (version, kernel) in fine {
            assert!(check(version, kernel).is_ok(), "{version} {kernel}");
        }
    }

    #[test]
    fn goflags_are_read_as_go_reads_them() {
        let read = |text: &str| quoted_words(text).join("|");
        assert_eq!(read(" -mod=vendor\t-trimpath "), "-mod=vendor|-trimpath");
        assert_eq!(read(r#"'-ldflags=-X main.a=1 -w' "-tags=a b""#), "-ldflags=-X main.a=1 -w|-tags=a b");
        assert_eq!(read("-ldflags='-w"), "-ldflags='-w", "a quote inside is a byte like any other");
        assert_eq!((read(""), read("'")), (String::new(), String::new()));
        let names = ["-ldflags=-s", "--trimpath", "-ldflagsx", "-x"].map(flag_name);
        assert_eq!(names, ["ldflags", "trimpath", "ldflagsx", "x"]);
    }

    #[test]
    fn program_is_named_like_go() {
        let name = |package: &str| {
            let packages = [package.into()];
            Build {
                flags: &[],
                packages: &packages,
                goarch: "mips",
                symbols: false,
                vcs_stamp: false,
                cc: None,
            }
            .name()
        };
        assert_eq!(name("main.go"), "main");
        // Tests run in the directory of their crate.
        assert_eq!(name("."), "controller");
        assert_eq!(name("./src/../../docs"), "docs");
        assert_eq!(name("example.com/cmd/probe"), "probe");
        assert_eq!(name("example.com/probe/v2"), "probe");
        assert_eq!(name("example.com/probe/v2@v2.1.0"), "probe");
        assert_eq!(name("golang.org/x/example/hello@latest"), "hello");
    }
}
