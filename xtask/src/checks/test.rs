//! `cargo xtask test`: sets up, builds, and runs every test, or the suites that have a name here.

use anyhow::Result;

use crate::build::{dist, toolchain};
use crate::command::{self, cargo};
use crate::{packages, virtual_routers};

/// The suites that have a word of their own: their test binaries, and what is behind `--`. All run on whole virtual routers.
const SUITES: [(&str, &str, &[&str]); 3] = [
    ("faults", "faults_*", &[]),
    ("soak", "soak_*", &[]),
    // Those too that need a Go module proxy.
    ("suites", "suites_*", &["--", "--include-ignored"]),
];

/// Runs all tests; `words` go to `cargo test`. If the first of them is a suite, only its tests are run.
pub fn test(_all: bool, words: &[String]) -> Result<()> {
    toolchain::check_go()?;
    packages::qemu_user()?;
    dist::build()?;
    virtual_routers::build()?;
    command::run(cargo().args(["test", "--locked", "--workspace", "--all-features"]).args(filter(words)))
}

/// What `cargo test` is told beside what it always is.
fn filter(words: &[String]) -> Vec<String> {
    match words.split_first() {
        Some((word, rest)) => match SUITES.iter().find(|(suite, ..)| suite == word) {
            Some((_, binaries, last)) => {
                let first = ["--package", "hop-tests", "--test", binaries].map(str::to_owned);
                let last: Vec<_> = last.iter().map(|word| (*word).to_owned()).collect();
                [&first, rest, &last].concat()
            }
            None => words.to_vec(),
        },
        None => Vec::new(),
    }
}

/// Runs the test that compares a generated file, and lets it write the file first.
pub fn write(variable: &str, filter: &[&str]) -> Result<()> {
    command::run(cargo().args(["test", "--quiet"]).args(filter).env(variable, "write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_its_own_binaries_and_other_words_are_those_of_cargo_test() {
        let filtered = |line: &str| {
            let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            filter(&words).join(" ")
        };
        assert_eq!(filtered("soak"), "--package hop-tests --test soak_*");
        assert_eq!(filtered("faults cable_cut"), "--package hop-tests --test faults_* cable_cut");
        assert_eq!(filtered("suites"), "--package hop-tests --test suites_* -- --include-ignored");
        for other in ["", "exit_code", "-p hop-tests --test dir_505 soak"] {
            assert_eq!(filtered(other), other);
        }
    }
}
