//! The documents say what the program does: its help, the README, the pages below docs.

use std::fs;
use std::path::{Path, PathBuf};

use hop_tests::{dist, root};
use serde_json::Value;

use crate::desk::Desk;

#[test]
fn commands_page_matches_help() {
    let desk = Desk::new();
    let mut text = "# Commands\n\nThe help of every command, as the program prints it.\n".to_owned();
    for command in commands(&hop::cli::command()) {
        let words: Vec<_> = command.iter().map(String::as_str).chain(["--help"]).collect();
        // Help is wrapped to the terminal; without one, to a fixed width.
        let ran = desk.run(&words);
        assert_eq!((ran.stderr(), ran.code), ("", 0));
        let title =
            std::iter::once("hop").chain(command.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
        text.push_str(&format!("\n## `{title}`\n\n```text\n{}```\n", ran.stdout()));
    }
    let path = root().join("docs/commands.md");
    if std::env::var_os("HOP_DOCS").is_some_and(|mode| mode == "write") {
        fs::write(&path, &text).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "docs/commands.md is not what hop says: run `cargo xtask docs` and commit the result"
    );
}

/// Each command that a user may call, as the words behind `hop`; hop itself is the first, with none.
fn commands(command: &clap::Command) -> Vec<Vec<String>> {
    let below = command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help");
    let below = below.flat_map(|below| {
        let name = below.get_name().to_owned();
        commands(below).into_iter().map(move |words| [vec![name.clone()], words].concat())
    });
    std::iter::once(Vec::new()).chain(below).collect()
}

/// The commands of README.md's console block, each with what is printed below it; `[..]` stands for anything.
fn readme_commands() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = text.split_once("```console\n").unwrap();
    let (block, _) = rest.split_once("```").unwrap();
    let mut commands: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => commands.push((command.to_owned(), String::new())),
            None => commands.last_mut().unwrap().1.push_str(&format!("{line}\n")),
        }
    }
    commands
}

#[test]
fn readme_console_matches_output() {
    let desk = Desk::new();
    let hop = dist("hop");
    let path = format!("{}:{}", hop.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let commands = readme_commands();
    assert!(commands.len() > 5);
    for (command, expected) in commands {
        let output = std::process::Command::new("sh")
            .args(["-c", &format!("{{ {command}; }} 2>&1")])
            .current_dir(root())
            .env("PATH", &path)
            .env("HOP_HOME", desk.home.path())
            .env_remove("HOP_ROUTER")
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let matches = match expected.split_once("[..]") {
            Some((start, end)) => said.starts_with(start) && said.ends_with(end),
            None => said == expected,
        };
        assert!(matches, "$ {command}\n{said}README.md has:\n{expected}");
    }
}

#[test]
fn readme_links_exist() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let links = text.split("](").skip(1).map(|rest| rest.split_once(')').unwrap().0);
    for link in links.filter(|link| !link.starts_with("http")) {
        assert!(root().join(link).exists(), "{link}");
    }
}

#[test]
fn specified_reasons_are_the_codes() {
    let text = fs::read_to_string(root().join("docs/specification.md")).unwrap();
    let (_, rest) = text.split_once("Reasons: ").unwrap();
    let (list, _) = rest.split_once(".\n").unwrap();
    let mut listed: Vec<_> = list.split(',').map(|word| word.trim().trim_matches('`').to_owned()).collect();
    let code = ["failure/mod.rs", "failure/enrolment.rs", "status_file.rs"]
        .map(|name| fs::read_to_string(root().join("controller/src/commands").join(name)).unwrap())
        .map(|text| text.split("#[cfg(test)]").next().unwrap().to_owned());
    // A reason is one word in lower case; hints have more words.
    let is_reason =
        |text: &&str| !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let mut known: Vec<_> = code[..2]
        .iter()
        .flat_map(|text| text.split('"').skip(1).step_by(2))
        .filter(is_reason)
        .map(str::to_owned)
        .collect();
    known.extend(
        code[2]
            .split("status.reason = Some(\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().to_owned()),
    );
    for list in [&mut listed, &mut known] {
        list.sort();
        list.dedup();
    }
    assert_eq!(listed, known);
}

#[test]
fn info_prints_specified_keys() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["virtual", "up"]).code, 0);
    let info: Value = serde_json::from_slice(&desk.run(&["info", "--json"]).stdout).unwrap();
    let mut printed: Vec<_> = info.as_object().unwrap().keys().cloned().collect();
    let text = fs::read_to_string(root().join("docs/specification.md")).unwrap();
    let (_, rest) = text.split_once("## `hop info --json`").unwrap();
    let (section, _) = rest.split_once("\n## ").unwrap();
    let first_cells =
        section.lines().filter(|line| line.starts_with("| `")).map(|line| line.split('|').nth(1).unwrap());
    let mut promised: Vec<_> = first_cells
        .flat_map(|cell| cell.split(','))
        .map(|key| key.trim().trim_matches('`').to_owned())
        .collect();
    printed.sort();
    promised.sort();
    assert_eq!(printed, promised);
}

/// The files in a directory and in those below it.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn named_checks_are_tests() {
    let sources: String =
        ["agent/src", "formats/src", "controller/src", "proto/src", "tests/tests", "xtask/src"]
            .iter()
            .flat_map(|directory| files_below(&root().join(directory)))
            .filter_map(|file| fs::read_to_string(file).ok())
            .collect();
    for page in ["specification.md", "security.md"] {
        let text = fs::read_to_string(root().join("docs").join(page)).unwrap();
        let words = text.split('`').skip(1).step_by(2);
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let names = words.filter(|word| word.matches('_').count() >= 3 && word.chars().all(is_name));
        let mut count = 0;
        for name in names {
            count += 1;
            // Suites that make their tests while they run have the names as texts.
            let is_test =
                [format!("fn {name}("), format!("\"{name}\"")].iter().any(|test| sources.contains(test));
            assert!(is_test, "{page}: {name}");
        }
        assert!(count > 10, "{page}");
    }
}
