//! `hop build`, and what `hop run` builds.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use hop_formats::elf;

use super::Error;
use crate::cli;
use crate::config;
use crate::config::home::Home;
use crate::console::exit_code::ExitCode;
use crate::console::progress::Progress;
use crate::golang;
use crate::golang::build::{self, Build};
use crate::program::{self, NotRunnable, Program};

/// Builds a package for a router, without asking the router.
pub async fn build(home: &Home, options: cli::Build) -> Result<ExitCode, Error> {
    super::change_directory(&options.go)?;
    let goarch = match options.arch {
        Some(arch) => arch.goarch().to_owned(),
        None => goarch_of_router(home, options.router.as_deref())?,
    };
    let build = Build {
        flags: &options.go.flags,
        packages: &options.packages,
        goarch: &goarch,
        symbols: false,
        vcs_stamp: true,
        cc: options.go.cc.as_deref(),
    };
    let progress = Progress::default();
    let built = build.run(options.output.as_deref(), &progress).await;
    progress.clear();
    built?;
    Ok(ExitCode::Program(0))
}

fn goarch_of_router(home: &Home, named: Option<&str>) -> Result<String, Error> {
    match super::selected_router(home, named) {
        Ok(router) => Ok(router.entry.goarch),
        Err(Error::Config(config::Error::NoRouter)) => Ok("mips".to_owned()),
        Err(error) => Err(error),
    }
}

/// Builds a package into a program for a router.
pub async fn build_program(
    build: &Build<'_>,
    router: &str,
    target: elf::Target,
    progress: &Progress,
) -> Result<Program, Error> {
    // With -o the user keeps the program; without, it is gone when it has been read.
    let loaded = match kept_output(build.flags) {
        Some(_) if build.is_versioned() => {
            let why = "`go run` fetches a package with a version, and takes no -o: use `hop build -o FILE`";
            return Err(Error::Usage(why.to_owned()));
        }
        Some(output) => {
            build.run(None, progress).await?;
            // As `go build -o` reads it: a directory gets the program under its own name.
            let output = if output.is_dir() { output.join(build.name()) } else { output };
            Program::load(&output, &build.name(), router, target)
        }
        None => {
            let (_directory, output) = build::temporary_output()?;
            build.run(Some(&output), progress).await?;
            Program::load(&output, &build.name(), router, target)
        }
    };
    match loaded {
        // For a package without main, Go writes an archive.
        Err(program::Error::NotRunnable { why: NotRunnable::NotAProgram(elf::Error::Archive), .. }) => {
            let package = build.packages.first().map(|package| package.to_string_lossy().into_owned());
            Err(golang::Error::NotMain { package: package.unwrap_or_default() }.into())
        }
        loaded => Ok(loaded?),
    }
}

/// The value of the last `-o` among the user's own flags.
fn kept_output(flags: &[OsString]) -> Option<PathBuf> {
    let mut kept = None;
    let mut words = flags.iter();
    while let Some(word) = words.next() {
        match word.as_bytes() {
            b"-o" | b"--o" => kept = words.next().map(PathBuf::from),
            bytes => {
                if let Some(path) = bytes.strip_prefix(b"-o=").or(bytes.strip_prefix(b"--o=")) {
                    kept = Some(PathBuf::from(OsString::from_vec(path.to_vec())));
                }
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split('|').map(OsString::from).collect()
    }

    #[test]
    fn last_output_flag_wins() {
        assert_eq!(kept_output(&words("-tags|x|-o|one|--o=two")), Some("two".into()));
        assert_eq!(kept_output(&words("-tags|x")), None);
    }
}
