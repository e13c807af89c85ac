//! Every option that a page names is an option of `hop`: docs/commands.md, which another test compares with `hop --help`, has it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use regex_lite::Regex;

/// Options of `cargo xtask`, of the agent and of other programs, which pages name too.
const OTHERS: [&str; 12] = [
    "--add-arch",
    "--all",
    "--cached",
    "--check",
    "--exclude-standard",
    "--icf",
    "--launcher",
    "--others",
    "--patch-from",
    "--print-architecture",
    "--self-test",
    "--write",
];

#[test]
fn options_in_the_docs_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let commands = fs::read_to_string(root.join("docs/commands.md")).unwrap();
    let known: BTreeSet<_> = options(&commands).into_iter().chain(OTHERS.map(str::to_owned)).collect();
    let mut unknown = Vec::new();
    for page in pages(root) {
        let text = fs::read_to_string(root.join(&page)).unwrap();
        unknown.extend(options(&text).difference(&known).map(|option| format!("{page}: {option}")));
    }
    assert!(unknown.is_empty(), "these options do not exist: {unknown:#?}");
}

/// The README and all pages of docs, except the one that is generated.
fn pages(root: &Path) -> Vec<String> {
    let pages = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let pages = pages.map(|name| format!("docs/{}", name.to_string_lossy()));
    let mut pages: Vec<_> =
        pages.filter(|page| page.ends_with(".md") && !page.ends_with("/commands.md")).collect();
    pages.extend(["README.md".to_owned(), "docs/benchmarks/README.md".to_owned()]);
    assert!(pages.len() > 8, "{pages:?}");
    pages
}

/// The long options in a text: not a rule of dashes, not a part of a word.
fn options(text: &str) -> BTreeSet<String> {
    let option = Regex::new(r"(?:^|[\s`'(\[])(--[a-z][a-z-]*[a-z])").unwrap();
    option.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

#[test]
fn options_are_parsed_from_both_sources() {
    let text = "| --- | `--one`, '--two 5' --three=x (--four) a--five --- <!-- x -->";
    assert_eq!(options(text).into_iter().collect::<Vec<_>>(), ["--four", "--one", "--three", "--two"]);
}
