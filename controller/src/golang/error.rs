//! Errors of Go and of the programs that it builds.

use std::io;
use std::path::{Path, PathBuf};

use hop_formats::size::Size;

use crate::config;
use crate::path_error::PathError;
use crate::program;
use crate::transfer;
use crate::transfer::inputs::named;

/// A failure to build a program, or to run it as Go wants it run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say what the fields are")]
pub enum Error {
    #[error(transparent)]
    Io(#[from] PathError),
    #[error("{} cannot be read", .path.display())]
    Malformed { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Program(#[from] program::Error),
    #[error(transparent)]
    Transfer(#[from] transfer::Error),
    #[error("there is no `go` in PATH")]
    NoGo(#[source] io::Error),
    #[error("{version} builds programs that crash on these routers")]
    BrokenGo { version: String },
    #[error("programs built by {version} need Linux {needs}; {router} has {kernel}")]
    OldKernel { version: String, needs: &'static str, router: String, kernel: String },
    #[error("-{flag}: {why}")]
    CannotBuild { flag: &'static str, why: &'static str },
    #[error("the program was not built: it uses cgo, and no C compiler for the router was given: {packages}")]
    NeedsC { packages: String },
    #[error("the program was not built: {why}")]
    NotBuilt { why: String },
    #[error("{package} is not a main package, so there is nothing to run")]
    NotMain { package: String },
    #[error("pattern {pattern} matches multiple packages: {packages}")]
    SeveralPackages { pattern: String, packages: String },
    #[error("cannot watch the source files")]
    Watch(#[source] notify::Error),
    #[error("no program matches the pattern {pattern}")]
    NoPackages { pattern: String },
    #[error("programs built by {version} do not run on {router}, which has {kernel}: a test program {how}")]
    Probe { version: String, router: String, kernel: String, how: String, file: PathBuf },
    #[error("--artifact {pattern}: {why}")]
    InvalidPattern { pattern: String, why: &'static str },
    #[error("the tests of {} need more files than fit into a router's memory; the largest: {}", .directory.display(), named(.largest))]
    TooManyFiles { directory: PathBuf, largest: Vec<(PathBuf, u64)> },
    #[error("a worker of Go's fuzzer takes 100 MiB, and {router} has {} of memory", Size(*.memory))]
    NoFuzzing { router: String, memory: u64 },
}

impl Error {
    /// Puts a path and a verb to an error of the kernel: `.map_err(Error::io("read", &path))`.
    pub fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io(PathError { action, path: path.to_owned(), source })
    }
}
