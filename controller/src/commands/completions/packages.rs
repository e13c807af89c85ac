//! The packages of Go that a directory has, as far as they are programs.
//!
//! **Invariants:** no more than [`MAX_DIRECTORIES`] directories are read, and [`MAX_SOURCE_BYTES`] of a file; links are not followed.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Directories that are read: the largest modules that people work on have as many.
const MAX_DIRECTORIES: usize = 2000;

/// Bytes of a source file within which its package clause is.
const MAX_SOURCE_BYTES: u64 = 16 * 1024;

/// The directories with a program below `directory` whose names begin with what was typed: `./cmd/probe`. To Go, a path that does
/// not begin with a dot or a slash is a package of the standard library or of a module, which hop does not look up.
pub fn find(directory: &Path, typed: &str) -> Vec<String> {
    if !(typed.is_empty() || typed.starts_with(['.', '/'])) {
        return Vec::new();
    }
    // What is typed up to the last slash is where the search begins.
    let parent = match typed.rfind('/') {
        Some(slash) => &typed[..=slash],
        None => "./",
    };
    let mut found = Vec::new();
    let mut unread = VecDeque::from([(directory.join(parent), parent.to_owned())]);
    let mut left = MAX_DIRECTORIES;
    while let Some((path, name)) = unread.pop_front() {
        let Some(next) = left.checked_sub(1) else { break };
        left = next;
        let (is_program, below) = read(&path);
        let shown = match name.trim_end_matches('/') {
            "" => "/",
            shown => shown,
        };
        if is_program && shown.starts_with(typed) {
            found.push(shown.to_owned());
        }
        for below_name in below {
            let name = format!("{name}{below_name}/");
            // A name that was typed in part leads nowhere else.
            if name.starts_with(typed) {
                unread.push_back((path.join(below_name), name));
            }
        }
    }
    found.sort();
    found
}

/// Whether a directory has a program, and which directories in it belong to its module.
fn read(path: &Path) -> (bool, Vec<String>) {
    let (mut is_program, mut below) = (false, Vec::new());
    let entries: Vec<_> = fs::read_dir(path).into_iter().flatten().flatten().collect();
    for entry in entries {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Ok(kind) = entry.file_type() else { continue };
        // Go ignores such files and directories (`go help packages`).
        if name.starts_with(['.', '_']) {
            continue;
        }
        if kind.is_dir() {
            // Another module is none of this one's packages.
            let is_foreign = || path.join(&name).join("go.mod").exists();
            if is_import_path(&name)
                && !matches!(&*name, "testdata" | "vendor" | "node_modules")
                && !is_foreign()
            {
                below.push(name);
            }
        } else if !is_program && kind.is_file() && name.ends_with(".go") && !name.ends_with("_test.go") {
            is_program = is_main(&entry.path());
        }
    }
    (is_program, below)
}

/// True for what Go allows in a part of an import path, of which no shell takes a character for its own.
fn is_import_path(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c))
}

/// True if a file belongs to a program, and is not one that only `go run FILE` builds.
fn is_main(path: &PathBuf) -> bool {
    let mut start = Vec::new();
    let Ok(file) = File::open(path) else { return false };
    if file.take(MAX_SOURCE_BYTES).read_to_end(&mut start).is_err() {
        return false;
    }
    let text = String::from_utf8_lossy(&start);
    for line in text.lines() {
        if line.starts_with("//go:build ignore") {
            return false;
        }
        if let Some(name) = line.strip_prefix("package ") {
            return name.split_whitespace().next() == Some("main");
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn module(files: &[(&str, &str)]) -> tempfile::TempDir {
        let module = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = module.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        module
    }

    #[test]
    fn programs_of_module_are_found() {
        let main = "// Package main is a program.\n\npackage main\n";
        let module = module(&[
            ("main.go", main),
            ("cmd/probe/main.go", main),
            ("cmd/probe/deep/er/main.go", main),
            ("cmd/serve/serve.go", main),
            ("cmd/tool/gen.go", "//go:build ignore\n\npackage main\n"),
            ("library/library.go", "package library\n"),
            ("library/x_test.go", main),
            ("other/go.mod", "module other\n"),
            ("other/main.go", main),
            ("testdata/main.go", main),
            (".hidden/main.go", main),
            ("a b/main.go", main),
        ]);
        let find = |typed: &str| find(module.path(), typed);
        let all = [".", "./cmd/probe", "./cmd/probe/deep/er", "./cmd/serve"];
        assert_eq!(find(""), all);
        assert_eq!(find("."), all);
        assert_eq!(find("./c"), all[1..]);
        assert_eq!(find("./cmd/pro"), all[1..3]);
        assert_eq!(find("./cmd/probe/"), all[2..3]);
        assert_eq!(find("cmd/pro"), Vec::<String>::new());
        assert_eq!(find("./nothing"), Vec::<String>::new());
        let absolute = module.path().join("cmd/s").to_str().unwrap().to_owned();
        assert_eq!(find(&absolute), [format!("{absolute}erve")]);
        let up = super::find(&module.path().join("cmd/serve"), "../pr");
        assert_eq!(up, ["../probe", "../probe/deep/er"]);
    }

    #[test]
    fn circles_of_links_end() {
        let module = module(&[("a/main.go", "package main\n")]);
        std::os::unix::fs::symlink(module.path(), module.path().join("a/loop")).unwrap();
        assert_eq!(find(module.path(), ""), ["./a"]);
    }
}
