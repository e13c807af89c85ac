//! The program of `hop run`, as Go has built it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use hop_formats::elf;

use super::Error;
use crate::console::progress::Progress;
use crate::golang;
use crate::golang::build::{self, Build};
use crate::program::{self, NotRunnable, Program};

/// Builds the program, and reads it.
///
/// # Errors
/// It does not build, or is none for `target`, which `router` is.
pub async fn build_program(
    build: &Build<'_>,
    router: &str,
    target: elf::Target,
    progress: &Progress,
) -> Result<Program, Error> {
    let matched = build.matched(progress).await?.map(|package| [package]);
    let build = Build { packages: matched.as_ref().map_or(build.packages, |only| only), ..*build };
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
