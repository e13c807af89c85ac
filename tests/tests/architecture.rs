//! The architecture, read off the sources: which folder of a crate uses which, how many files stand beside the folders, and how
//! long a file is.
//!
//! **Invariants:** [`CRATES`] lists exactly the uses that there are, so it is the picture of the architecture; no folders use
//! each other in a circle; test code (`#[cfg(test)]`) is exempt.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use hop_tests::root;

/// A crate whose folders are held to a table.
struct Crate {
    /// Its sources, below the root of the repository.
    sources: &'static str,
    /// Each folder (or file beside the folders), from the bottom up, with the folders that it uses.
    folders: &'static [(&'static str, &'static [&'static str])],
    /// Paths of other crates that only some folders may use: "only the service layer knows protobuf".
    reserved: &'static [(&'static str, &'static [&'static str])],
    /// Most lines of a file, without its tests.
    max_lines: usize,
    /// Files that are longer than that.
    long: &'static [&'static str],
}

/// `lib.rs` and `main.rs` may use everything.
const CRATES: &[Crate] = &[
    Crate {
        sources: "controller/src",
        folders: &[
            ("path_error", &[]),
            ("console", &[]),
            ("config", &["path_error"]),
            ("client", &["path_error", "console", "config"]),
            ("transfer", &["path_error", "config", "client"]),
            ("inputs", &["path_error", "transfer"]),
            ("program", &["console", "transfer"]),
            ("session", &["path_error", "console", "config", "client", "transfer", "program"]),
            ("golang", &["path_error", "console", "config", "transfer", "inputs", "program", "session"]),
            ("enrolment", &["path_error", "console", "config", "client", "program"]),
            ("virtual_router", &["path_error", "config", "program"]),
            ("cli", &["console", "client", "program", "session"]),
            (
                "commands",
                &[
                    "path_error",
                    "console",
                    "config",
                    "client",
                    "transfer",
                    "inputs",
                    "program",
                    "session",
                    "golang",
                    "enrolment",
                    "virtual_router",
                    "cli",
                ],
            ),
        ],
        reserved: &[],
        max_lines: 400,
        long: &[],
    },
    Crate {
        sources: "agent/src",
        folders: &[
            ("c_library", &[]),
            ("logging", &[]),
            ("system", &[]),
            ("process", &["system"]),
            ("store", &["system"]),
            ("files", &["process", "store", "system"]),
            ("access", &["system"]),
            ("job", &["files", "process", "store", "system"]),
            ("service", &["access", "files", "job", "process", "store", "system"]),
            ("transport", &["access", "job", "service", "system"]),
            ("cli", &["access", "logging", "system", "transport"]),
            (
                "daemon",
                &["access", "cli", "files", "job", "logging", "process", "store", "system", "transport"],
            ),
        ],
        reserved: &[
            ("hop_proto::v1", &["service"]),
            // The kernel is for system, process and files. The others: store asks how much its file systems hold, access who a
            // file belongs to, job's sessions how much is in a pipe; daemon locks its files, and its supervisor waits
            // for signals without a runtime; the log replaces standard error.
            ("rustix", &["system", "process", "files", "store", "access", "job", "daemon", "logging"]),
            // Constants for what std opens (O_NOFOLLOW), error numbers; transport sets options of sockets and finds
            // interfaces, and the self-test reads a clock, for all of which rustix has no call that runs on MIPS.
            (
                "libc",
                &[
                    "c_library",
                    "logging",
                    "system",
                    "process",
                    "files",
                    "store",
                    "access",
                    "job",
                    "transport",
                    "cli",
                    "daemon",
                ],
            ),
        ],
        max_lines: 400,
        long: &["service/generated/hop.v1.rs"],
    },
];

/// Files that may stand beside the folders.
const MAX_FILES_BESIDE_FOLDERS: usize = 4;

#[test]
fn folders_use_only_listed_folders() {
    for krate in CRATES {
        let sources = read(&root().join(krate.sources));
        assert_eq!(violations(krate, &sources), Vec::<String>::new(), "{}", krate.sources);
    }
}

#[test]
fn few_files_sit_next_to_folders() {
    for krate in CRATES {
        let sources = read(&root().join(krate.sources));
        let beside: Vec<_> = sources.keys().filter(|path| path.components().count() == 1).collect();
        assert!(beside.len() <= MAX_FILES_BESIDE_FOLDERS, "{}: {beside:?}", krate.sources);
    }
}

#[test]
fn files_are_short_without_tests() {
    for krate in CRATES {
        for (path, source) in read(&root().join(krate.sources)) {
            let lines = product_lines(&source);
            let is_long = krate.long.iter().any(|long| Path::new(long) == path);
            assert_eq!(
                lines > krate.max_lines,
                is_long,
                "{}/{}: {lines} lines",
                krate.sources,
                path.display()
            );
        }
    }
}

/// The sources of a crate, by their paths below its directory.
fn read(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut sources = BTreeMap::new();
    let mut unread = vec![directory.to_owned()];
    while let Some(next) = unread.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                unread.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(directory).unwrap().to_owned();
                sources.insert(below, fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(!sources.is_empty(), "{}", directory.display());
    sources
}

/// What is wrong with the uses of a crate, a line each.
fn violations(krate: &Crate, sources: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let table: BTreeMap<&str, BTreeSet<&str>> =
        krate.folders.iter().map(|(folder, uses)| (*folder, uses.iter().copied().collect())).collect();
    let mut violations = Vec::new();
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut used_reserved = BTreeSet::new();
    for (path, source) in sources {
        let Some(folder) = folder(path) else { continue };
        let Some(allowed) = table.get(&*folder) else {
            violations.push(format!("{}: {folder} is not in the table", path.display()));
            continue;
        };
        for target in uses(path, source) {
            let target_folder = target[0].clone();
            if target[0] == folder {
                continue;
            }
            if target_folder.starts_with(|c: char| c.is_lowercase()) && table.contains_key(&*target_folder) {
                if !allowed.contains(&*target_folder) {
                    let what = target.join("::");
                    violations.push(format!("{}: {folder} may not use {what}", path.display()));
                }
                used.entry(folder.clone()).or_default().insert(target_folder);
            } else {
                violations.push(format!("{}: {} is in no folder", path.display(), target.join("::")));
            }
        }
        for (reserved, folders) in krate.reserved {
            let reserved_path: Vec<&str> = reserved.split("::").collect();
            let begins = |path: &Vec<String>| {
                path.get(..reserved_path.len()).is_some_and(|start| start == &reserved_path[..])
            };
            let is_used = foreign_uses(source, reserved_path[0]).iter().any(begins);
            if is_used {
                used_reserved.insert((reserved, folder.clone()));
            }
            if is_used && !folders.contains(&&*folder) {
                violations.push(format!("{}: {folder} may not use {reserved}", path.display()));
            }
        }
    }
    for (folder, allowed) in &table {
        let used = used.get(*folder);
        for unused in allowed.iter().filter(|other| !used.is_some_and(|used| used.contains(**other))) {
            violations.push(format!("{folder} does not use {unused}, as the table says"));
        }
    }
    for (reserved, folders) in krate.reserved {
        for unused in folders.iter().filter(|one| !used_reserved.contains(&(reserved, (**one).to_owned()))) {
            violations.push(format!("{unused} does not use {reserved}, as the table says"));
        }
    }
    violations.extend(circle(&used).map(|circle| format!("a circle: {}", circle.join(" → "))));
    violations
}

/// The folder that a file is in, or its own name beside the folders; nothing for the roots of a crate.
fn folder(path: &Path) -> Option<String> {
    let mut names = path.iter().map(|name| name.to_str().unwrap());
    let first = names.next().unwrap();
    match (first, names.next()) {
        ("lib.rs" | "main.rs", None) => None,
        (file, None) => Some(file.trim_end_matches(".rs").to_owned()),
        (folder, Some(_)) => Some(folder.to_owned()),
    }
}

/// Folders that use each other, the first one again at the end.
fn circle(used: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        folder: &str,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
        used: &BTreeMap<String, BTreeSet<String>>,
    ) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|one| one == folder) {
            let mut circle = way[start..].to_vec();
            circle.push(folder.to_owned());
            return Some(circle);
        }
        if done.contains(folder) {
            return None;
        }
        way.push(folder.to_owned());
        let found = used.get(folder).into_iter().flatten().find_map(|next| visit(next, way, done, used));
        way.pop();
        done.insert(folder.to_owned());
        found
    }
    let mut done = BTreeSet::new();
    used.keys().find_map(|folder| visit(folder, &mut Vec::new(), &mut done, used))
}

/// The modules of its own crate that a file uses outside its tests, as paths from the root of the crate.
fn uses(path: &Path, source: &str) -> BTreeSet<Vec<String>> {
    let mut module: Vec<String> = path.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    let file = module.pop().unwrap();
    if !matches!(&*file, "mod.rs" | "lib.rs" | "main.rs") {
        module.push(file.trim_end_matches(".rs").to_owned());
    }
    let tokens = product_tokens(source);
    let mut found = BTreeSet::new();
    // Modules within the file: the depth of braces at which each begins.
    let (mut depth, mut inline): (usize, Vec<usize>) = (0, Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        let after = |n: usize| tokens.get(at + n).map(|token| &*token.text);
        match &*tokens[at].text {
            "mod" if after(2) == Some("{") => {
                module.push(tokens[at + 1].text.clone());
                inline.push(depth);
                (at, depth) = (at + 2, depth + 1);
            }
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if inline.last() == Some(&depth) {
                    inline.pop();
                    module.pop();
                }
            }
            "crate" | "super" if after(1) == Some("::") && !is_path_before(&tokens, at) => {
                let mut base = if tokens[at].text == "crate" { Vec::new() } else { module.clone() };
                while tokens.get(at).is_some_and(|token| token.text == "super") {
                    base.pop();
                    at += 2;
                }
                if tokens.get(at).is_some_and(|token| token.text == "crate") {
                    at += 2;
                }
                at = tree(&tokens, at, &base, &mut found);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found.retain(|path| !path.is_empty());
    found
}

/// Whether a token continues a path: `self::super::x` begins at its `self`, and is of this file's folder or above.
fn is_path_before(tokens: &[Token], at: usize) -> bool {
    at > 0 && tokens[at - 1].text == "::" && !(at > 1 && tokens[at - 2].text == "self")
}

/// Reads a path, or several in braces, behind `base`; gives where the next token is.
fn tree(tokens: &[Token], mut at: usize, base: &[String], found: &mut BTreeSet<Vec<String>>) -> usize {
    let mut path = base.to_vec();
    while let Some(token) = tokens.get(at) {
        if token.text == "{" {
            at += 1;
            while tokens.get(at).is_some_and(|token| token.text != "}") {
                at = tree(tokens, at, &path, found);
                if tokens.get(at).is_some_and(|token| token.text == ",") {
                    at += 1;
                }
            }
            return at + 1;
        }
        if !token.is_name && token.text != "*" {
            break;
        }
        if token.text != "self" {
            path.push(token.text.clone());
        }
        at += 1;
        if tokens.get(at).is_some_and(|token| token.text == "as") {
            at += 2;
        }
        if tokens.get(at).is_none_or(|token| token.text != "::") {
            break;
        }
        at += 1;
    }
    found.insert(path);
    at
}

/// What a file uses of another crate outside its tests, as paths.
fn foreign_uses(source: &str, krate: &str) -> BTreeSet<Vec<String>> {
    let tokens = product_tokens(source);
    let mut found = BTreeSet::new();
    for at in 0..tokens.len() {
        if tokens[at].text == krate && !is_path_before(&tokens, at) {
            tree(&tokens, at, &[], &mut found);
        }
    }
    found
}

/// Lines of a file that are not in its tests, comments and empty lines included.
fn product_lines(source: &str) -> usize {
    let tokens = tokens(source);
    let lines = |(from, to): (usize, usize)| tokens[to].line + 1 - tokens[from].line;
    source.lines().count() - tests(&tokens).into_iter().map(lines).sum::<usize>()
}

#[derive(Debug)]
struct Token {
    text: String,
    is_name: bool,
    line: usize,
}

/// The tokens outside of tests.
fn product_tokens(source: &str) -> Vec<Token> {
    let mut tokens = tokens(source);
    for (from, to) in tests(&tokens).into_iter().rev() {
        tokens.drain(from..=to);
    }
    tokens
}

/// The first and the last token of each `#[cfg(test)]` with what it is in front of.
fn tests(tokens: &[Token]) -> Vec<(usize, usize)> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut tests = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !MARK.iter().zip(&tokens[at..]).all(|(text, token)| token.text == *text) || tokens.len() < at + 8 {
            at += 1;
            continue;
        }
        let (mut end, mut depth) = (at + MARK.len(), 0_usize);
        while end + 1 < tokens.len() {
            match &*tokens[end].text {
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && matches!(&*tokens[end].text, "}" | ";") {
                break;
            }
            end += 1;
        }
        tests.push((at, end));
        at = end + 1;
    }
    tests
}

/// Names, `::` and single characters; no comments, and no text in quotes.
fn tokens(source: &str) -> Vec<Token> {
    let bytes = source.as_bytes();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    while at < bytes.len() {
        let start = at;
        let rest = &bytes[at..];
        match bytes[at] {
            b'/' if rest.starts_with(b"//") => {
                at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            }
            b'/' if rest.starts_with(b"/*") => {
                let end = rest.windows(2).position(|pair| pair == b"*/").map_or(rest.len(), |end| end + 2);
                at += end;
            }
            b'"' => at += quoted(rest),
            b'r' if raw(rest).is_some() => at += raw(rest).unwrap(),
            b'b' if rest.starts_with(b"b\"") => at += 1 + quoted(&rest[1..]),
            b'b' if rest.starts_with(b"br") && raw(&rest[1..]).is_some() => {
                at += 1 + raw(&rest[1..]).unwrap()
            }
            // A character, and not a lifetime.
            b'\'' if rest.get(1) == Some(&b'\\') => {
                at += 3 + rest[3..].iter().position(|byte| *byte == b'\'').unwrap_or(0) + 1;
            }
            b'\'' if source[at + 1..].chars().nth(1) == Some('\'') => {
                at += 2 + source[at + 1..].chars().next().map_or(0, char::len_utf8);
            }
            byte if is_name(byte) => {
                while at < bytes.len() && is_name(bytes[at]) {
                    at += 1;
                }
                let text = source[start..at].to_owned();
                tokens.push(Token { text, is_name: true, line });
            }
            b':' if rest.starts_with(b"::") => {
                at += 2;
                tokens.push(Token { text: "::".into(), is_name: false, line });
            }
            byte if byte.is_ascii_whitespace() => at += 1,
            byte => {
                at += 1;
                tokens.push(Token { text: char::from(byte).into(), is_name: false, line });
            }
        }
        line += bytes[start..at].iter().filter(|byte| **byte == b'\n').count();
    }
    tokens
}

/// Bytes of a text in quotes, the quotes included.
fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// Bytes of a raw text, if this is one: `r#"…"#`.
fn raw(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let end = [b"\"".to_vec(), vec![b'#'; hashes]].concat();
    let content = 2 + hashes;
    let length = rest[content..].windows(end.len()).position(|window| window == end)?;
    Some(content + length + end.len())
}

mod checker {
    use super::*;

    const MADE_UP: Crate = Crate {
        sources: "",
        folders: &[("low", &[]), ("middle", &["low"]), ("high", &["low", "middle"])],
        reserved: &[("hop_proto::v1", &["high"])],
        max_lines: 0,
        long: &[],
    };

    fn check(sources: &[(&str, &str)]) -> Vec<String> {
        let sources = sources.iter().map(|(path, source)| (PathBuf::from(path), (*source).to_owned()));
        violations(&MADE_UP, &sources.collect())
    }

    const GOOD: [(&str, &str); 5] = [
        ("lib.rs", "pub mod low; pub mod middle; pub mod high;"),
        ("low/mod.rs", "//! crate::high\nmod a; const TEXT: &str = \"crate::high\"; use self::a::A;"),
        (
            "low/a.rs",
            "use super::TEXT; #[cfg(test)] mod tests { use crate::high; } fn f<'a>(c: &'a char) { *c == '\"' }",
        ),
        ("middle/mod.rs", "use crate::low::{a::A, TEXT as T}; mod inner { use super::T; }"),
        ("high/mod.rs", "use crate::{low, middle}; use hop_proto::v1::Job;"),
    ];

    #[test]
    fn allowed_uses_pass_the_checker() {
        assert_eq!(check(&GOOD), Vec::<String>::new());
    }

    #[test]
    fn forbidden_uses_are_found_in_any_syntax() {
        for (path, source) in [
            ("low/b.rs", "use crate::high::X;"),
            ("low/b.rs", "use crate::{low::a, high::{X, Y}};"),
            ("low/b.rs", "fn f() { crate::high::f() }"),
            ("low/b.rs", "use super::super::high::X;"),
            ("low/b/c.rs", "use super::super::super::high::X;"),
            ("low/b.rs", "mod inner { fn f() { super::super::super::high::f() } }"),
            ("low/b.rs", "macro_rules! m { () => { $crate::high::f() } }"),
            ("low/b.rs", "#[cfg(test)] mod tests { } use crate::high::X;"),
            ("low/b.rs", "const C: char = '\\''; use crate::high::X; const D: char = '\"';"),
        ] {
            let found = check(&[&GOOD[..], &[(path, source)]].concat());
            assert!(found.iter().any(|line| line.contains("low may not use high")), "{source}: {found:?}");
            assert!(found.iter().any(|line| line.starts_with("a circle: ")), "{source}: {found:?}");
        }
    }

    #[test]
    fn table_mistakes_are_reported() {
        let found = |more: &[(&str, &str)]| check(&[&GOOD[..], more].concat());
        assert!(found(&[("new/mod.rs", "")])[0].contains("new is not in the table"));
        assert!(found(&[("low/b.rs", "use crate::f;")])[0].contains("f is in no folder"));
        for source in
            ["use hop_proto::v1::X;", "use hop_proto::{limits, v1};", "fn f(job: hop_proto::v1::Job) {}"]
        {
            let found = found(&[("low/b.rs", source)]);
            assert_eq!(found, ["low/b.rs: low may not use hop_proto::v1"], "{source}");
        }
        let unused = check(&GOOD[..3]);
        assert!(unused.iter().any(|line| line == "middle does not use low, as the table says"), "{unused:?}");
        assert!(
            unused.iter().any(|line| line == "high does not use hop_proto::v1, as the table says"),
            "{unused:?}"
        );
    }

    #[test]
    fn test_lines_are_not_counted() {
        let source = "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn g() {}\n}\nfn h() {}\n";
        assert_eq!(product_lines(source), 3);
    }
}
