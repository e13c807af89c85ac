//! The module around a Go package, and which of its files a test of that package may want to open.
//!
//! A test runs in its package's directory and opens files from there. Which ones is known when it opens them; so a small module
//! goes to the router as a whole, and of a large one what is found by looking: the package's own directory, `testdata` beside
//! and above it, and what its source names.
//!
//! **Invariants:** the same module gives the same files.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::Error;
use super::module_files::{Bound, Found, Stop, is_known_to_git};
use crate::transfer::inputs::Files;

/// A module goes as a whole if it has at most so many bytes, and so many files: a router unpacks them in a tenth of a second.
const WHOLE: Bound = Bound { bytes: 2 << 20, files: 1_000, counts_on: false };

/// Files and bytes that are looked at for a package of a larger module. More does not go to a router with 128 MiB.
const MOST: Bound = Bound { bytes: 64 << 20, files: 16_384, counts_on: true };

/// The directory that `go list` leaves to tests.
const TESTDATA: &str = "testdata";

/// A package, and where its module is.
#[derive(Debug)]
pub struct Package {
    /// The module's own directory, or that of the workspace around it (go.work); of the standard library, GOROOT.
    pub root: PathBuf,
    /// The module's own directory.
    module: PathBuf,
    /// The package's directory below the root.
    pub below: PathBuf,
    /// It belongs to Go itself.
    pub is_of_go: bool,
}

impl Package {
    /// The package in `directory`, which is absolute.
    pub fn of(directory: &Path) -> Self {
        let declares = |root: &&Path| fs::read_to_string(root.join("go.mod")).is_ok();
        // Modules from before go.mod are in directories with a version, in the module cache.
        let is_versioned =
            |root: &&Path| root.file_name().is_some_and(|name| name.as_bytes().contains(&b'@'));
        let root = directory.ancestors().find(declares).or_else(|| directory.ancestors().find(is_versioned));
        let root = root.unwrap_or(directory);
        let is_of_go = matches!(declared(root).as_deref(), Some("std" | "cmd"));
        let goroot = root.ancestors().find(|goroot| goroot.join("VERSION").is_file());
        let module = goroot.filter(|_| is_of_go).unwrap_or(root).to_owned();
        let workspace = workspace(&module).filter(|_| !is_of_go);
        let root = workspace.unwrap_or_else(|| module.clone());
        let root = &*root;
        let below = directory.strip_prefix(root).unwrap_or(Path::new("")).to_owned();
        Self { root: root.to_owned(), module, below, is_of_go }
    }

    /// Files that its tests may open, by the paths below the root; and those that cannot be read.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::TooManyFiles`].
    pub fn files(&self) -> Result<(Files, Vec<PathBuf>), Error> {
        let uses_git = !self.is_of_go && is_known_to_git(&self.module);
        let mut whole = Found::new(&self.root, uses_git, WHOLE);
        if !self.is_of_go && self.find_all(&mut whole).is_ok() {
            return Ok((whole.files, whole.unreadable));
        }
        let mut found = Found::new(&self.root, uses_git, MOST);
        match self.find(&mut found) {
            Ok(()) if !found.is_too_much() => Ok((found.files, found.unreadable)),
            Ok(()) | Err(Stop::TooMuch) => Err(Error::TooManyFiles {
                directory: self.root.join(&self.below),
                files: found.count,
                bytes: found.bytes,
                most_files: MOST.files,
                most_bytes: MOST.bytes,
                largest: found.files.largest(),
            }),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    /// The whole module, and what the package's source names in other modules of the workspace.
    fn find_all(&self, found: &mut Found) -> Result<(), Stop> {
        found.take(&self.module, in_module)?;
        let named = self.named(&self.root.join(&self.below));
        let mut others = named.iter().filter(|named| !named.starts_with(&self.module));
        others.try_for_each(|other| found.take(other, in_package))
    }

    fn find(&self, found: &mut Found) -> Result<(), Stop> {
        let directory = self.root.join(&self.below);
        found.take(&directory, in_package)?;
        // Go's own name it; and there is much of it.
        for above in directory.ancestors().take_while(|above| above.starts_with(&self.module)) {
            let testdata = above.join(TESTDATA);
            if self.is_of_go {
                break;
            }
            if testdata.is_dir() {
                found.take(&testdata, in_module)?;
            }
        }
        let declaration = self.module.join("go.mod");
        if declaration.is_file() {
            found.take(&declaration, in_package)?;
        }
        for named in self.named(&directory) {
            found.take(&named, in_package)?;
        }
        Ok(())
    }

    /// True for a path in this module, or in another one of the workspace.
    fn is_in_a_module(&self, path: &Path) -> bool {
        let mut above = path.ancestors().take_while(|above| above.starts_with(&self.root));
        path.starts_with(&self.module) || above.any(|above| above.join("go.mod").is_file())
    }

    /// What the package's source names elsewhere in the module: `"../x"`, `filepath.Join("..", "x")`; and for Go itself, which
    /// looks below GOROOT, `"/lib/x"` and `filepath.Join(root, "src", "x")`.
    fn named(&self, directory: &Path) -> Vec<PathBuf> {
        let mut named = Vec::new();
        for file in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = file.path();
            if path.extension() != Some(OsStr::new("go")) {
                continue;
            }
            for path in paths(&fs::read(&path).unwrap_or_default()) {
                let meant = match path.strip_prefix("/") {
                    _ if path.starts_with("..") => directory.join(&path),
                    _ if !self.is_of_go => continue,
                    // A file: "/lib" and "/bin" are the system's.
                    Ok(below) if self.root.join(below).is_file() => self.root.join(below),
                    Ok(_) => continue,
                    Err(_) => self.root.join(&path),
                };
                let Some(meant) = resolved(&meant) else { continue };
                // What is around the package is the module itself, and would be all of it.
                let is_elsewhere = meant.starts_with(&self.root) && !directory.starts_with(&meant);
                if is_elsewhere
                    && self.is_in_a_module(&meant)
                    && !meant.starts_with(directory)
                    && meant.exists()
                {
                    named.push(meant);
                }
            }
        }
        named.sort();
        named.dedup();
        named
    }
}

/// The directory of the go.work around a module, as Go finds it (go.dev/ref/mod#workspaces).
fn workspace(module: &Path) -> Option<PathBuf> {
    let file = match std::env::var_os("GOWORK").filter(|value| !value.is_empty()) {
        Some(off) if off == "off" => return None,
        Some(file) => PathBuf::from(file),
        None => module.ancestors().map(|above| above.join("go.work")).find(|file| file.is_file())?,
    };
    let directory = file.parent()?;
    module.starts_with(directory).then(|| directory.to_owned())
}

/// The module that a go.mod declares (go.dev/ref/mod).
fn declared(root: &Path) -> Option<String> {
    let declaration = fs::read_to_string(root.join("go.mod")).ok()?;
    let path = declaration.lines().find_map(|line| line.trim().strip_prefix("module "))?;
    Some(path.split("//").next()?.trim().trim_matches('"').to_owned())
}

/// Whether a directory is one of the module's own: no other module, unless that is test data.
fn in_module(directory: &Path) -> bool {
    is_data(directory) || !directory.join("go.mod").is_file()
}

fn is_data(directory: &Path) -> bool {
    directory.components().any(|part| part.as_os_str() == TESTDATA)
}

/// Whether a directory belongs to the package: it is no package itself, or is test data.
fn in_package(directory: &Path) -> bool {
    let is_go = |name: &OsStr| Path::new(name).extension() == Some(OsStr::new("go"));
    let has_go = || {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| is_go(&entry.file_name()))
    };
    in_module(directory) && (is_data(directory) || !has_go())
}

/// A path without `.` and `..`, as its text stands; `None` if that leads above the root.
fn resolved(path: &Path) -> Option<PathBuf> {
    let mut resolved = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                if !resolved.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            other => resolved.push(other),
        }
    }
    Some(resolved)
}

/// Strings in a Go file that may be paths to elsewhere: those that lead up, absolute ones, and words in a list.
fn paths(source: &[u8]) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    // The words of a list so far: `Join("..", "x")`.
    let mut list: Option<PathBuf> = None;
    let mut rest = source;
    while let Some((first, after)) = rest.split_first() {
        let mut in_list = false;
        rest = match first {
            b'"' | b'`' => {
                let (word, after) = literal(*first, after);
                let word = Path::new(OsStr::from_bytes(word));
                let (path, is_list) = match list.take() {
                    Some(list) if !word.is_absolute() => (list.join(word), true),
                    _ => (word.to_owned(), false),
                };
                if is_list || path.starts_with("..") || path.is_absolute() {
                    paths.push(path.clone());
                }
                (list, in_list) = (Some(path), true);
                after
            }
            b'\'' => literal(b'\'', after).1,
            b'/' if after.starts_with(b"/") => skip(after, b"\n"),
            b'/' if after.starts_with(b"*") => skip(after, b"*/"),
            b',' | b' ' | b'\t' | b'\n' => {
                in_list = true;
                after
            }
            _ => after,
        };
        if !in_list {
            list = None;
        }
    }
    paths
}

/// A literal up to its closing quote, as it is written, and what follows.
fn literal(quote: u8, source: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    while at < source.len() && source[at] != quote {
        at += if source[at] == b'\\' && quote != b'`' { 2 } else { 1 };
    }
    let end = at.min(source.len());
    (&source[..end], source.get(end + 1..).unwrap_or_default())
}

fn skip<'a>(source: &'a [u8], end: &[u8]) -> &'a [u8] {
    let at = source.windows(end.len()).position(|window| window == end);
    at.map_or(&[], |at| &source[at + end.len()..])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::{Command, Stdio};

    use super::*;

    fn git(directory: &Path, words: &[&str]) {
        let mut git = Command::new("git");
        git.arg("-C").arg(directory).args(words).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(git.status().unwrap().success());
    }

    /// A module of these files; those that end with '!' are larger than a module that goes as a whole.
    fn module(files: &[&str]) -> tempfile::TempDir {
        let module = tempfile::tempdir().unwrap();
        for name in files {
            let path = module.path().join(name.trim_end_matches('!'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = fs::File::create(&path).unwrap();
            file.set_len(if name.ends_with('!') { WHOLE.bytes + 1 } else { 10 }).unwrap();
        }
        module
    }

    /// The files that go to the router for a package.
    fn files(module: &tempfile::TempDir, package: &str) -> Vec<String> {
        let (files, _) = Package::of(&module.path().join(package)).files().unwrap();
        files.paths().map(|path| path.display().to_string()).collect()
    }

    const MODULE: [&str; 12] = [
        "go.mod",
        "main.go",
        "testdata/all",
        "a/a_test.go",
        "a/testdata/own",
        "a/templates/page",
        "a/b/b.go",
        "a/b/testdata/below",
        "other/other.go",
        "other/data",
        ".git/config",
        "nested/go.mod",
    ];

    #[test]
    fn small_module_is_uploaded_whole() {
        let module = module(&MODULE);
        let all = files(&module, "a");
        assert!(all.contains(&"other/data".to_owned()) && all.contains(&"a/b/testdata/below".to_owned()));
        assert!(!all.iter().any(|path| path.contains("git") || path.contains("nested")), "{all:?}");
        assert_eq!(Package::of(&module.path().join("a")).below, Path::new("a"));
    }

    #[test]
    fn large_module_is_uploaded_in_part() {
        let module = module(&[&MODULE[..], &["large!"]].concat());
        let own = ["a/a_test.go", "a/templates/page", "a/testdata/own", "go.mod", "testdata/all"];
        assert_eq!(files(&module, "a"), own);
        fs::write(module.path().join("a/a_test.go"), "x := filepath.Join(\"..\", \"other\")").unwrap();
        let with_other = files(&module, "a");
        assert!(with_other.contains(&"other/data".to_owned()), "{with_other:?}");
        assert!(!with_other.contains(&"large".to_owned()));
    }

    #[test]
    fn files_are_those_that_git_sees() {
        let module =
            module(&["go.mod", "a/testdata/kept", "a/testdata/out.log", "bin/tool", "gone", ".rgignore"]);
        fs::write(module.path().join(".gitignore"), "*.log\n/bin/\n").unwrap();
        fs::write(module.path().join(".rgignore"), "kept\n").unwrap();
        let all = [
            ".gitignore",
            ".rgignore",
            "a/testdata/kept",
            "a/testdata/out.log",
            "bin/tool",
            "gone",
            "go.mod",
        ];
        let mut expected = all.to_vec();
        expected.sort();
        assert_eq!(files(&module, "a"), expected, "without a repository, all");
        git(module.path(), &["init"]);
        assert_eq!(files(&module, "a"), [".gitignore", ".rgignore", "a/testdata/kept", "go.mod", "gone"]);
        git(module.path(), &["add", "--force", "bin/tool", "gone"]);
        fs::remove_file(module.path().join("gone")).unwrap();
        let tracked = [".gitignore", ".rgignore", "a/testdata/kept", "bin/tool", "go.mod"];
        assert_eq!(files(&module, "a"), tracked, "what is tracked counts, whatever .gitignore says");
    }

    #[test]
    fn repository_around_a_module_hides_nothing() {
        let home = module(&["src/go.mod", "src/a/a_test.go", "src/a/b.log", ".gitignore"]);
        git(home.path(), &["init"]);
        for ignored in ["*\n", "*\n!*/\n"] {
            fs::write(home.path().join(".gitignore"), ignored).unwrap();
            let (files, _) = Package::of(&home.path().join("src/a")).files().unwrap();
            assert_eq!(files.paths().count(), 3, "{ignored:?}");
        }
    }

    #[test]
    fn links_to_directories_are_followed() {
        let module = module(&["go.mod", "shared/x", "shared/deep/y", "a/a_test.go"]);
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("z"), "z").unwrap();
        symlink("../shared", module.path().join("a/testdata")).unwrap();
        symlink("..", module.path().join("shared/deep/around")).unwrap();
        symlink("../a", module.path().join("shared/other")).unwrap();
        symlink(elsewhere.path(), module.path().join("a/elsewhere")).unwrap();
        for has_git in [false, true] {
            if has_git {
                git(module.path(), &["init"]);
            }
            let found = files(&module, "a");
            for file in ["a/testdata/x", "a/testdata/deep/y", "a/testdata/deep/around", "a/elsewhere/z"] {
                assert!(found.contains(&file.to_owned()), "{file} in {found:?}");
            }
            assert!(found.len() < 40, "{found:?}");
        }
    }

    #[test]
    fn unreadable_files_are_skipped() {
        let module = module(&["go.mod", "a/a_test.go", "a/secret"]);
        fs::set_permissions(module.path().join("a/secret"), fs::Permissions::from_mode(0o000)).unwrap();
        let (files, unreadable) = Package::of(&module.path().join("a")).files().unwrap();
        // Root reads everything.
        let is_root = fs::read(module.path().join("a/secret")).is_ok();
        assert_eq!(
            (unreadable.len(), files.has(Path::new("a/secret"))),
            if is_root { (0, true) } else { (1, false) }
        );
    }

    #[test]
    fn sibling_modules_of_workspace_are_named() {
        let work = module(&[
            "go.work",
            "one/go.mod",
            "one/a/a_test.go",
            "two/go.mod",
            "two/testdata/x",
            "two/two.go",
            "three/y",
        ]);
        let source = r#"open("../../two/testdata/x"); open("../../three/y")"#;
        fs::write(work.path().join("one/a/a_test.go"), source).unwrap();
        assert_eq!(files(&work, "one/a"), ["one/a/a_test.go", "one/go.mod", "two/testdata/x"]);
        let package = Package::of(&work.path().join("one/a"));
        assert_eq!((&*package.root, &*package.below), (work.path(), Path::new("one/a")));
    }

    #[test]
    fn too_many_test_files_are_refused() {
        let module = module(&["go.mod", "a/a_test.go", "a/testdata/small", "a/testdata/huge"]);
        let huge = fs::File::options().write(true).open(module.path().join("a/testdata/huge")).unwrap();
        huge.set_len(MOST.bytes + 1).unwrap();
        let error = Package::of(&module.path().join("a")).files().unwrap_err();
        let said = "4 files with 65 MiB, and at most 16384 files with 64 MiB go to a router; the largest: a/testdata/huge (64.0 MiB)";
        assert!(error.to_string().contains(said), "{error}");
    }

    #[test]
    fn paths_are_found_in_source() {
        let source = br#"
            // "../comment"
            /* "../also" */
            a := "../testdata/x"
            b := filepath.Join("..", "..", name, "lost")
            c := path.Join("..", "y",
                "z.txt")
            d := `../raw`; e := '"'; f := "no"; g := "\"../quoted\""; h := "/lib/time"
        "#;
        let found: Vec<_> = paths(source).iter().map(|path| path.display().to_string()).collect();
        let expected = ["../testdata/x", "..", "../..", "..", "../y", "../y/z.txt", "../raw", "/lib/time"];
        assert_eq!(found, expected);
        let listed: Vec<_> = paths(br#"Join(root, "src", "unicode"); x("a"); y("b", c, "d")"#);
        assert_eq!(listed, [Path::new("src/unicode")]);
    }

    #[test]
    fn standard_library_is_below_goroot() {
        let goroot =
            module(&["VERSION", "src/time/time.go", "src/x/x.go", "src/x/y/y.go", "lib/time/zoneinfo.zip"]);
        fs::write(goroot.path().join("src/go.mod"), "module std\n\ngo 1.26\n").unwrap();
        fs::write(
            goroot.path().join("src/time/time.go"),
            "x := []string{\"/lib/time/zoneinfo.zip\"} + \"/lib\" + join(\"src\", \"x\")",
        )
        .unwrap();
        let package = Package::of(&goroot.path().join("src/time"));
        assert!(package.is_of_go);
        assert_eq!((&*package.root, &*package.below), (goroot.path(), Path::new("src/time")));
        assert_eq!(files(&goroot, "src/time"), ["lib/time/zoneinfo.zip", "src/time/time.go", "src/x/x.go"]);
        assert!(package.files().unwrap().0.has(Path::new("src/x/y")), "a name, and nothing in it");
    }
}
