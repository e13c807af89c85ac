//! `cargo xtask words`: no word comes back that was replaced by a better one.
//!
//! **Invariants:** every tracked Rust, proto, Markdown, shell and TOML file is read; a file is exempt from one word only, by
//! the list, and only as long as it has that word.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use regex_lite::{Regex, RegexBuilder};

use crate::command::output;
use crate::paths;

/// The list, which explains its own format.
const LIST: &str = "xtask/words.txt";

/// What a space of an entry matches: blanks, or the end of a line with what begins the next one in a comment or a string.
const SPACE: &str = r"(?:[ \t]*\\?\n[ \t]*(?:(?://[/!]?|#|>|\*)[ \t]*)?|[ \t]+)";

/// A word that must not come back.
struct Entry {
    is_code: bool,
    pattern: Regex,
    instead: String,
    /// Files that may have it.
    exempt: Vec<String>,
}

/// A place where an entry matches.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// From 1.
    line: usize,
    word: String,
    instead: String,
}

/// Reads every file, prints each finding and what to say instead, and fails if there is one.
pub fn check() -> Result<()> {
    let list = fs::read_to_string(paths::root().join(LIST)).with_context(|| format!("cannot read {LIST}"))?;
    let entries = parse(&list)?;
    let (mut count, mut used) = (0, BTreeSet::new());
    for (name, content) in files(paths::root())? {
        for (index, entry) in entries.iter().enumerate() {
            let findings = entry.find(&name, &content);
            if entry.exempt.contains(&name) && !findings.is_empty() {
                used.insert((index, name.clone()));
                continue;
            }
            for Finding { line, word, instead } in &findings {
                println!("{name}:{line}: {word}: say {instead}");
            }
            count += findings.len();
        }
    }
    for (index, entry) in entries.iter().enumerate() {
        for name in entry.exempt.iter().filter(|name| !used.contains(&(index, (*name).clone()))) {
            println!("{LIST}: {name} does not need its exemption from {}", entry.pattern);
            count += 1;
        }
    }
    ensure!(count == 0, "{count} words must not come back; {LIST} is the list");
    Ok(())
}

fn parse(list: &str) -> Result<Vec<Entry>> {
    let lines = list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| Entry::parse(line).with_context(|| format!("{LIST} has the line {line}"))).collect()
}

impl Entry {
    /// `where | what | say instead | exemptions`. Alternatives in `what` have no blanks around their bar.
    fn parse(line: &str) -> Result<Self> {
        let columns: Vec<&str> = line.split(" | ").map(str::trim).collect();
        let (place, what, instead, exemptions) = match columns[..] {
            [place, what, instead] => (place, what, instead, ""),
            [place, what, instead, exemptions] => (place, what, instead, exemptions),
            _ => bail!("an entry has three columns, or four"),
        };
        let is_code = match place {
            "code" => true,
            "text" => false,
            _ => bail!("the first column is code or text"),
        };
        let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || "_\\(".contains(c));
        let before = if is_word(what.chars().next()) { r"\b" } else { "" };
        let after = if what.chars().last().is_some_and(|c| !"$.".contains(c)) { r"\b" } else { "" };
        let pattern = format!("{before}(?:{}){after}", what.replace(' ', SPACE));
        let pattern = RegexBuilder::new(&pattern).case_insensitive(!is_code).multi_line(true).build()?;
        let exempt = exemptions.split(';').map(str::trim).filter(|exemption| !exemption.is_empty());
        let exempt = exempt.map(|exemption| {
            let (file, reason) = exemption.split_once(" (").context("an exemption is `file (reason)`")?;
            ensure!(reason.len() > 1, "an exemption has a reason");
            Ok(file.to_owned())
        });
        Ok(Self { is_code, pattern, instead: instead.to_owned(), exempt: exempt.collect::<Result<_>>()? })
    }

    fn find(&self, name: &str, content: &str) -> Vec<Finding> {
        if self.is_code && !(name.ends_with(".rs") || name.ends_with(".proto")) {
            return Vec::new();
        }
        let finding = |found: regex_lite::Match<'_>| Finding {
            line: content[..found.start()].matches('\n').count() + 1,
            word: found.as_str().split_whitespace().collect::<Vec<_>>().join(" "),
            instead: self.instead.clone(),
        };
        self.pattern.find_iter(content).map(finding).collect()
    }
}

/// Names and contents of the tracked files that are read.
fn files(root: &Path) -> Result<Vec<(String, String)>> {
    let names = output(Command::new("git").current_dir(root).args(["ls-files", "-z"]))?;
    let mut files = Vec::new();
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        let path = root.join(name);
        let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
        let by_name =
            extension.is_some_and(|extension| ["rs", "proto", "md", "sh", "toml"].contains(&extension));
        // A file that was removed is tracked until that is committed; a link is read where it leads.
        if !path.is_file() || path.is_symlink() || !by_name && extension.is_some_and(|e| e != "init") {
            continue;
        }
        let content = fs::read(&path).with_context(|| format!("cannot read {name}"))?;
        if by_name || content.starts_with(b"#!/bin/sh") {
            let content = String::from_utf8(content).with_context(|| format!("{name} is not UTF-8"))?;
            files.push((name.to_owned(), content));
        }
    }
    ensure!(!files.is_empty(), "git tracks no file in {}", root.display());
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn find(entry: &str, name: &str, content: &str) -> Vec<(usize, String)> {
        let findings = Entry::parse(entry).unwrap().find(name, content);
        findings.into_iter().map(|finding| (finding.line, finding.word)).collect()
    }

    #[test]
    fn whole_identifiers_match_in_code() {
        let content = "struct Gizmo;\nlet gizmo: GizmoKind = other::Gizmo;\n";
        let found = [(1, "Gizmo".to_owned()), (2, "Gizmo".to_owned())];
        assert_eq!(find("code | Gizmo | Part", "a.rs", content), found);
        assert_eq!(find("code | Gizmo | Part", "a.proto", content), found);
        assert_eq!(find("code | Gizmo | Part", "a.md", content), []);
        assert_eq!(find(r"code | BIG_\w+ | MAX_", "a.rs", "const BIG_SIZE: u32 = BIG;").len(), 1);
    }

    #[test]
    fn phrases_match_across_lines() {
        for content in [
            "It is to and fro.",
            "/// It is TO AND\n/// fro.",
            "# It is to\n#   and\n# fro.",
            "//! It is to and\n    //! fro.",
            "\"It is to \\\n    and fro\"",
        ] {
            assert_eq!(find("text | to and fro | back", "a.toml", content).len(), 1, "{content}");
        }
        assert_eq!(find("text | to and fro | back", "a.md", "into and fro; to, and fro"), []);
    }

    #[test]
    fn options_and_line_ends_match() {
        assert_eq!(
            find("text | --slow | --fast", "a.md", "`hop --slow`, --slower"),
            [(1, "--slow".to_owned())]
        );
        assert_eq!(find(r"text | the end\.$ | over", "a.rs", "// The end.\n// The end. Not.").len(), 1);
    }

    #[test]
    fn exemptions_need_file_and_reason() {
        let entry = Entry::parse("text | gizmo | part | docs/a.md (a quote); b.rs (its name)").unwrap();
        assert_eq!(entry.exempt, ["docs/a.md", "b.rs"]);
        for wrong in ["text | gizmo", "prose | gizmo | part", "text | gizmo | part | a.md", "text | ( | part"]
        {
            assert!(Entry::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_tracked_file_kind_is_read() {
        let files = files(paths::root()).unwrap();
        for name in ["xtask/src/main.rs", "README.md", "Cargo.toml", ".ci/run", "proto/hop/v1/agent.proto"] {
            assert!(files.iter().any(|(file, _)| file == name), "{name}");
        }
        assert!(files.iter().any(|(file, _)| file.ends_with(".sh")));
    }

    #[test]
    fn word_list_parses() {
        let list = fs::read_to_string(paths::root().join(LIST)).unwrap();
        assert!(parse(&list).unwrap().len() > 50);
    }
}
