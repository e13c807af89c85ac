//! `cargo xtask fuzz`: runs every target of `fuzz/` for some seconds.
//!
//! **Invariants:** the checked-in corpus is only read; new inputs go to the target directory, where the next run continues.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

use crate::cli::FuzzArgs;
use crate::command::{line, output, run};
use crate::{packages, paths};

/// The memory limit of a target in MiB, with libFuzzer's tables and its corpus. A target starts with 30.
const MAX_MEMORY_MIB: u32 = 512;

/// The time limit of one input, in seconds. The slowest one takes milliseconds.
const INPUT_TIMEOUT_SECONDS: u32 = 10;

/// Builds all targets, and runs the named ones, or all if none is named.
pub fn fuzz(arguments: &FuzzArgs) -> Result<()> {
    let all = targets()?;
    if let Some(unknown) = arguments.targets.iter().find(|target| !all.contains(target)) {
        bail!("there is no fuzz target {unknown}; there are {}", all.join(", "));
    }
    let directory = build()?;
    let chosen =
        all.iter().filter(|target| arguments.targets.is_empty() || arguments.targets.contains(target));
    let mut failed = 0;
    for target in chosen {
        failed += u32::from(!run_target(target, &directory, arguments.seconds)?);
    }
    ensure!(failed == 0, "{failed} of the fuzz targets failed");
    Ok(())
}

/// The names of all targets.
fn targets() -> Result<Vec<String>> {
    let directory = source().join("fuzz_targets");
    let files = fs::read_dir(&directory).and_then(|files| files.collect::<Result<Vec<_>, _>>());
    let files = files.with_context(|| format!("cannot read {}", directory.display()))?;
    let name = |file: &fs::DirEntry| Some(file.path().file_stem()?.to_str()?.to_owned());
    let mut names: Vec<_> = files.iter().filter_map(name).collect();
    names.sort();
    Ok(names)
}

fn source() -> PathBuf {
    paths::root().join("fuzz")
}

/// Builds, new inputs and failures.
fn output_directory() -> PathBuf {
    paths::root().join("target/fuzz")
}

/// Builds all targets, and returns their directory.
fn build() -> Result<PathBuf> {
    packages::debian::require(&[("c++", "g++")], "libFuzzer, which drives the fuzz targets, is in C++")?;
    let cargo_fuzz = packages::cargo_fuzz::install()?;
    let host = output(Command::new("rustc").args(["--print", "host-tuple"]).current_dir(paths::root()))?;
    eprintln!("building the fuzz targets");
    // No sanitizer: it would need a nightly compiler, and finds errors that the unsafe code of these crates cannot make.
    let mut command = Command::new(cargo_fuzz);
    command.current_dir(paths::root()).args(["build", "--sanitizer", "none", "--target", &host]);
    run(command.arg("--fuzz-dir").arg(source()).arg("--target-dir").arg(output_directory()))?;
    Ok(output_directory().join(host).join("release"))
}

/// Runs one target and prints its result in a line; false if it failed.
fn run_target(target: &str, directory: &Path, seconds: u32) -> Result<bool> {
    let [found, failures] = ["corpus", "failures"].map(|kind| output_directory().join(kind).join(target));
    for directory in [&found, &failures] {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    let mut command = Command::new(directory.join(target));
    command.args([format!("-rss_limit_mb={MAX_MEMORY_MIB}"), format!("-timeout={INPUT_TIMEOUT_SECONDS}")]);
    command.args(["-print_final_stats=1", &format!("-artifact_prefix={}/", failures.display())]);
    if seconds == 0 {
        command.arg("-runs=0");
    } else {
        // libFuzzer writes what it finds into the first directory.
        command.arg(format!("-max_total_time={seconds}")).arg(&found);
    }
    command.arg(source().join("corpus").join(target));
    let ended = command.output().with_context(|| format!("cannot run the fuzz target {target}"))?;
    let log = String::from_utf8_lossy(&ended.stderr);
    let statistics = Statistics::parse(&log);
    if ended.status.success() {
        println!(
            "{target:<12} {:>9} inputs, coverage {:>5}, {:>4} new in the corpus",
            statistics.inputs, statistics.coverage, statistics.new
        );
        return Ok(true);
    }
    println!("{target:<12} FAILED after {} inputs: {}", statistics.inputs, ended.status);
    let path = failures.with_extension("log");
    fs::write(&path, &ended.stderr).with_context(|| format!("cannot write {}", path.display()))?;
    reasons(&log).for_each(|reason| println!("    {reason}"));
    let shown = path.strip_prefix(paths::root()).unwrap_or(&path);
    println!("    log: {}", shown.display());
    if let Some(input) = log.lines().find_map(|line| line.split_once("Test unit written to ")) {
        let mut replay = Command::new(directory.join(target));
        println!("    replay: {}", line(replay.arg(input.1)));
    }
    Ok(false)
}

/// libFuzzer's statistics of a run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Statistics {
    inputs: u64,
    /// Edges of the control flow.
    coverage: u64,
    /// Inputs that reach new code.
    new: u64,
}

impl Statistics {
    fn parse(log: &str) -> Self {
        let number = |text: &str| text.split_whitespace().next().and_then(|word| u64::from_str(word).ok());
        let last = |mark: &str| {
            log.lines().rev().find_map(|line| number(line.split_once(mark)?.1)).unwrap_or_default()
        };
        Self {
            inputs: last("stat::number_of_executed_units:"),
            coverage: last(" cov: "),
            new: last("stat::new_units_added:"),
        }
    }
}

/// The lines that say why a target failed: a panic and its text, or libFuzzer's own error.
fn reasons(log: &str) -> impl Iterator<Item = &str> {
    let mut rest = 0;
    log.lines().filter(move |line| {
        if line.contains(" panicked at ") {
            rest = 4;
        } else if line.starts_with("stack backtrace:") || line.starts_with("note:") {
            rest = 0;
        }
        rest = u32::saturating_sub(rest, 1);
        rest > 0 || line.contains("ERROR: libFuzzer: ") && !line.contains("deadly signal")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn targets_and_corpora_match() {
        let directory = source().join("corpus");
        let mut corpora: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        corpora.sort();
        assert_eq!(targets().unwrap(), corpora);
    }

    #[test]
    fn statistics_and_reasons_are_parsed() {
        let log = "#2\tINITED cov: 7 ft: 8 corp: 1/1b\n#9\tNEW    cov: 12 ft: 9\nthread '<unnamed>' (1) panicked at a.rs:1:2:\n\
            assertion failed\nstack backtrace:\n   0: it\n==1== ERROR: libFuzzer: deadly signal\n\
            stat::number_of_executed_units: 9\nstat::new_units_added:          3\n";
        assert_eq!(Statistics::parse(log), Statistics { inputs: 9, coverage: 12, new: 3 });
        let reasons: Vec<_> = reasons(log).collect();
        assert_eq!(reasons, ["thread '<unnamed>' (1) panicked at a.rs:1:2:", "assertion failed"]);
    }
}
