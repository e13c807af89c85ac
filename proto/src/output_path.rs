//! Paths and patterns by which a controller requests output files, and the files that they match.
//!
//! **Invariants:** a path that passes [`is_valid`] names nothing outside the directory to which it is relative; the
//! agent and the controller agree on the files that it matches; and only a name that begins with a dot itself matches a
//! hidden file, because shells, Git and editors execute the content of some hidden files.

use crate::limits::MAX_OUTPUT_PATH_BYTES;

/// The path that stands for the whole directory.
pub const ALL: &[u8] = b".";

/// True for one or more names with a '/' between two of them, or for `.` alone.
pub fn is_valid(path: &[u8]) -> bool {
    let is_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&0);
    path.len() <= MAX_OUTPUT_PATH_BYTES && (path == ALL || path.split(|byte| *byte == b'/').all(is_name))
}

/// Normalizes a path that a user typed: `./results//` becomes `results`. `None` if the path is not relative, or leaves
/// its directory.
pub fn normal(written: &[u8]) -> Option<Vec<u8>> {
    let says_something = |name: &&[u8]| !matches!(*name, b"" | b".");
    let names: Vec<&[u8]> = written.split(|byte| *byte == b'/').filter(says_something).collect();
    let path = if names.is_empty() { ALL.to_vec() } else { names.join(&b'/') };
    (!written.is_empty() && !written.starts_with(b"/") && is_valid(&path)).then_some(path)
}

/// The names in a valid path; none in the one that stands for everything.
pub fn names(path: &[u8]) -> Vec<&[u8]> {
    if path == ALL { Vec::new() } else { path.split(|byte| *byte == b'/').collect() }
}

/// True if a name is a pattern, which can match several names.
pub fn is_pattern(name: &[u8]) -> bool {
    name.iter().any(|byte| matches!(byte, b'*' | b'?'))
}

/// True if a name begins with a dot. The agent sends such a file only if the controller requests it by a name with that
/// dot.
pub fn is_hidden(name: &[u8]) -> bool {
    name.starts_with(b".")
}

/// True for the name of a Git repository, which holds programs that Git executes (githooks(5)). Ignores case, as some
/// file systems do.
pub fn is_repository(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b".git")
}

/// True if `pattern` matches `name`: `*` matches any bytes and `?` one byte, but neither matches a dot at the
/// beginning, as in a shell; every other byte matches itself.
pub fn stands_for(pattern: &[u8], name: &[u8]) -> bool {
    if is_repository(name) || is_hidden(name) && !is_hidden(pattern) {
        return false;
    }
    let (mut at, mut from) = (0, 0);
    // The position of the last `*`, and of the end of its match in the name.
    let mut star: Option<(usize, usize)> = None;
    while from < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[from] => {
                at += 1;
                from += 1;
            }
            _ => match &mut star {
                Some((star, taken)) => {
                    *taken += 1;
                    (at, from) = (*star + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// True if the valid path `asked` matches `path`, or a directory above it in which `path` is not hidden.
pub fn covers(asked: &[u8], path: &[u8]) -> bool {
    let (asked, path) = (names(asked), names(path));
    asked.len() <= path.len()
        && asked.iter().zip(&path).all(|(asked, name)| stands_for(asked, name))
        && !path[asked.len()..].iter().any(|name| is_hidden(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_paths_are_normalized_or_refused() {
        for (written, plain) in
            [("results//", "results"), ("./a/./b", "a/b"), (".", "."), ("./", "."), ("*/?.out", "*/?.out")]
        {
            assert_eq!(normal(written.as_bytes()).as_deref(), Some(plain.as_bytes()), "{written}");
        }
        let long = "x".repeat(MAX_OUTPUT_PATH_BYTES + 1);
        for written in ["", "/", "/etc/shadow", "..", "a/../b", "a/..", "a\0b", &long] {
            assert_eq!(normal(written.as_bytes()), None, "{written}");
        }
    }

    #[test]
    fn only_normalized_paths_are_valid() {
        for (path, valid) in [("a", true), ("a/b", true), (".", true), ("..", false), ("a/./b", false)] {
            assert_eq!(is_valid(path.as_bytes()), valid, "{path}");
        }
        for path in ["", "/", "/a", "a/", "a//b", "../a", "a/.."] {
            assert!(!is_valid(path.as_bytes()), "{path}");
        }
        assert!(is_valid(b"\xff\n\xfe"));
    }

    #[test]
    fn patterns_match_like_shell_patterns() {
        for (pattern, name, does) in [
            ("*", "anything", true),
            ("*.out", "cover.out", true),
            ("*.out", "cover.out.gz", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXc", false),
            ("??", "ab", true),
            ("??", "abc", false),
            ("a**", "a", true),
            ("", "a", false),
            ("[a]", "a", false),
            ("*", ".envrc", false),
            ("?envrc", ".envrc", false),
            (".*", ".envrc", true),
            (".envrc", ".envrc", true),
            (".*", ".git", false),
            (".GIT", ".Git", false),
        ] {
            assert_eq!(stands_for(pattern.as_bytes(), name.as_bytes()), does, "{pattern} {name}");
        }
    }

    #[test]
    fn directory_covers_files_below_it() {
        for (asked, path, does) in [
            ("results", "results/a/b", true),
            ("results", "results", true),
            ("results", "result", false),
            ("*/a", "x/a/b", true),
            ("*/a", "a", false),
            (".", "a/b", true),
            (".", ".envrc", false),
            ("a", "a/.git/hooks/pre-commit", false),
            ("*", ".git/hooks/pre-commit", false),
            (".git", ".git/hooks/pre-commit", false),
            (".cache", ".cache/a", true),
            (".cache", ".cache/.a", false),
        ] {
            assert_eq!(covers(asked.as_bytes(), path.as_bytes()), does, "{asked} {path}");
        }
    }
}
