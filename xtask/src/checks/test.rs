//! `cargo xtask test`: sets up, builds, and runs the tests.
//!
//! What a run without `--all` leaves out is marked as ignored in `tests/tests/end_to_end/plan.rs`.

use anyhow::Result;

use crate::build::{dist, toolchain};
use crate::command::{self, cargo};
use crate::{packages, virtual_routers};

/// Suites of `tests/tests/end_to_end`, which have a word of their own: all of their tests are run, and no others.
const SUITES: [&str; 7] =
    ["behaviour", "enrolment", "faults", "hostile", "soak", "third_party", "virtual_router"];

/// The word for what `--all` runs beyond a run without it.
const REST: &str = "rest";

/// The suite that needs no router.
const HOST: &str = "host";

/// Runs the tests; with `all`, those too that take long. The first of `words` may be a suite, and then the further ones are parts of
/// the names of its tests; other words go to `cargo test`.
pub fn test(all: bool, words: &[String]) -> Result<()> {
    toolchain::check_go()?;
    packages::qemu_user()?;
    dist::build()?;
    virtual_routers::build()?;
    command::run(cargo().args(["test", "--locked", "--all-features"]).args(selection(all, words)))
}

/// The arguments of `cargo test` that depend on the command line.
fn selection(all: bool, words: &[String]) -> Vec<String> {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let end_to_end = ["--package", "hop-tests", "--test", "end_to_end", "--"];
    match words.split_first() {
        Some((word, names)) if SUITES.contains(&word.as_str()) => {
            // The suites take one filter, of which each word is to be in a name.
            let filter = std::iter::once(format!("{word}::")).chain(names.iter().cloned());
            let filter = filter.collect::<Vec<_>>().join(" ");
            owned(&[&end_to_end[..], &["--include-ignored", &filter]].concat())
        }
        Some((word, names)) if word == HOST => {
            [owned(&["--package", "hop-tests", "--test", "host", "--"]), names.to_vec()].concat()
        }
        Some((word, [])) if word == REST => owned(&[&end_to_end[..], &["--ignored"]].concat()),
        _ => {
            let is_separated = words.iter().any(|word| word == "--");
            let last = match (all, is_separated) {
                (false, _) => &[][..],
                (true, false) => &["--", "--include-ignored"],
                (true, true) => &["--include-ignored"],
            };
            [owned(&["--workspace"]), words.to_vec(), owned(last)].concat()
        }
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
    fn arguments_select_suites_or_reach_cargo() {
        let selected = |all: bool, line: &str| {
            let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            selection(all, &words).join(" ")
        };
        let end_to_end = "--package hop-tests --test end_to_end --";
        assert_eq!(selected(false, "soak"), format!("{end_to_end} --include-ignored soak::"));
        let cells = format!("{end_to_end} --include-ignored faults:: dir-505 upload");
        assert_eq!(selected(false, "faults dir-505 upload"), cells);
        assert_eq!(selected(false, "host documents"), "--package hop-tests --test host -- documents");
        assert_eq!(selected(false, "rest"), format!("{end_to_end} --ignored"));
        assert_eq!(selected(false, ""), "--workspace");
        assert_eq!(selected(true, ""), "--workspace -- --include-ignored");
        assert_eq!(selected(false, "exit_code"), "--workspace exit_code");
        assert_eq!(
            selected(true, "exit_code -- --quiet"),
            "--workspace exit_code -- --quiet --include-ignored"
        );
    }
}
