//! The module around a Go package, and which of its files a test of that package may want to open.
//!
//! A test runs in its package's directory and opens files from there. Which ones is known when it opens them; so a small module
//! goes to the router as a whole, and of a large one what is found by looking: the package's own directory, `testdata` beside
//! and above it, and what its source names.
//!
//! **Invariants:** files are taken as `go list` and .gitignore see them, and the same module gives the same files.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ignore::{DirEntry, WalkBuilder};

use super::Error;
use crate::transfer::inputs::Files;

/// A module goes as a whole if it has at most so many bytes, and so many files: a router unpacks them in a tenth of a second.
const WHOLE_BYTES: u64 = 2 << 20;
const WHOLE_FILES: usize = 1_000;

/// Files and bytes that are looked at for a package of a larger module. More does not go to a router with 128 MiB.
const MAX_BYTES: u64 = 64 << 20;
const MAX_FILES: usize = 16_384;

/// Directories of version control systems.
const VERSION_CONTROL: [&str; 4] = [".git", ".hg", ".svn", ".bzr"];

/// The directory that `go list` leaves to tests.
const TESTDATA: &str = "testdata";

/// A package, and where its module is.
#[derive(Debug)]
pub struct Package {
    /// The module's own directory; of the standard library, GOROOT.
    pub root: PathBuf,
    /// The package's directory below that.
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
        let root = goroot.filter(|_| is_of_go).unwrap_or(root);
        let below = directory.strip_prefix(root).unwrap_or(Path::new("")).to_owned();
        Self { root: root.to_owned(), below, is_of_go }
    }

    /// Files that its tests may open, by the paths below the module.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::TooManyFiles`].
    pub fn files(&self) -> Result<Files, Error> {
        let mut whole = Found::new(&self.root, WHOLE_BYTES, WHOLE_FILES);
        if !self.is_of_go && whole.take(&self.root, in_module).is_ok() {
            return Ok(whole.files);
        }
        let mut found = Found::new(&self.root, MAX_BYTES, MAX_FILES);
        match self.find(&mut found) {
            Ok(()) => Ok(found.files),
            Err(Stop::TooMuch) => Err(Error::TooManyFiles {
                directory: self.root.join(&self.below),
                largest: found.files.largest(),
            }),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    fn find(&self, found: &mut Found) -> Result<(), Stop> {
        let directory = self.root.join(&self.below);
        found.take(&directory, in_package)?;
        // Go's own name it; and there is much of it.
        for above in self.below.ancestors().filter(|_| !self.is_of_go) {
            let testdata = self.root.join(above).join(TESTDATA);
            if testdata.is_dir() {
                found.take(&testdata, in_module)?;
            }
        }
        let declaration = self.root.join("go.mod");
        if declaration.is_file() {
            found.add(&declaration)?;
        }
        for named in self.named(&directory) {
            found.take(&named, in_package)?;
        }
        Ok(())
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
                if is_elsewhere && !meant.starts_with(directory) && meant.exists() {
                    named.push(meant);
                }
            }
        }
        named.sort();
        named.dedup();
        named
    }
}

/// The module that a go.mod declares (go.dev/ref/mod).
fn declared(root: &Path) -> Option<String> {
    let declaration = fs::read_to_string(root.join("go.mod")).ok()?;
    let path = declaration.lines().find_map(|line| line.trim().strip_prefix("module "))?;
    Some(path.split("//").next()?.trim().trim_matches('"').to_owned())
}

/// Whether a directory is one of the module's own: no other module, unless that is test data.
fn in_module(entry: &DirEntry) -> bool {
    let is_data = entry.path().components().any(|part| part.as_os_str() == TESTDATA);
    is_data || !entry.path().join("go.mod").is_file()
}

/// Whether a directory belongs to the package: it is no package itself, or is test data.
fn in_package(entry: &DirEntry) -> bool {
    let is_data = entry.path().components().any(|part| part.as_os_str() == TESTDATA);
    let is_go = |name: &OsStr| Path::new(name).extension() == Some(OsStr::new("go"));
    let has_go = || {
        let entries = fs::read_dir(entry.path()).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| is_go(&entry.file_name()))
    };
    in_module(entry) && (is_data || !has_go())
}

/// Why no more files are taken.
enum Stop {
    TooMuch,
    Failed(Error),
}

/// Files that were found in a module.
struct Found {
    root: PathBuf,
    files: Files,
    bytes: u64,
    count: usize,
}

impl Found {
    fn new(root: &Path, bytes: u64, count: usize) -> Self {
        Self { root: root.to_owned(), files: Files::default(), bytes, count }
    }

    /// Adds the files of a directory, and of those directories below it that belong to it; or a single file.
    fn take(&mut self, path: &Path, belongs: fn(&DirEntry) -> bool) -> Result<(), Stop> {
        let others = Arc::new(Mutex::new(Vec::new()));
        let seen = others.clone();
        let walk = WalkBuilder::new(path)
            // Files whose names begin with a dot count, too.
            .hidden(false)
            // A .gitignore counts where the module was copied from a repository, too.
            .require_git(false)
            .filter_entry(move |entry| {
                let is_directory = entry.file_type().is_some_and(|kind| kind.is_dir());
                if entry.depth() == 0 || !is_directory {
                    return true;
                }
                if VERSION_CONTROL.iter().any(|name| entry.file_name() == *name) {
                    return false;
                }
                let belongs = belongs(entry);
                if !belongs {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(entry.path().to_owned());
                }
                belongs
            })
            .build();
        for entry in walk {
            // A file that hop cannot read, a test cannot open either.
            let Ok(entry) = entry else { continue };
            match entry.file_type() {
                Some(kind) if kind.is_file() || kind.is_symlink() => self.add(entry.path())?,
                Some(kind) if kind.is_dir() => self.files.add_directory(self.below(entry.path())),
                _ => {}
            }
        }
        // Adds the others empty: a test that lists the parent directory finds their names.
        for other in others.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            self.files.add_directory(self.below(other));
        }
        Ok(())
    }

    fn add(&mut self, path: &Path) -> Result<(), Stop> {
        let size = fs::metadata(path).map_or(0, |metadata| metadata.len());
        let below = path.strip_prefix(&self.root).unwrap_or(path);
        // Even a file beyond the limit, so that the error can name it.
        self.files.add(below, path).map_err(|error| Stop::Failed(error.into()))?;
        self.bytes = self.bytes.checked_sub(size).ok_or(Stop::TooMuch)?;
        self.count = self.count.checked_sub(1).ok_or(Stop::TooMuch)?;
        Ok(())
    }

    fn below<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }
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
    use super::*;

    /// A module of these files; those that end with '!' are larger than a module that goes as a whole.
    fn module(files: &[&str]) -> tempfile::TempDir {
        let module = tempfile::tempdir().unwrap();
        for name in files {
            let path = module.path().join(name.trim_end_matches('!'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = fs::File::create(&path).unwrap();
            file.set_len(if name.ends_with('!') { WHOLE_BYTES + 1 } else { 10 }).unwrap();
        }
        module
    }

    /// The files that go to the router for a package.
    fn files(module: &tempfile::TempDir, package: &str) -> Vec<String> {
        let files = Package::of(&module.path().join(package)).files().unwrap();
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
    fn ignored_files_are_not_uploaded() {
        let module = module(&["go.mod", "a/testdata/kept", "a/testdata/out.log", "bin/tool"]);
        fs::write(module.path().join(".gitignore"), "*.log\n/bin/\n").unwrap();
        assert_eq!(files(&module, "a"), [".gitignore", "a/testdata/kept", "go.mod"]);
    }

    #[test]
    fn too_many_test_files_are_refused() {
        let module = module(&["go.mod", "a/a_test.go", "a/testdata/small", "a/testdata/huge"]);
        let huge = fs::File::options().write(true).open(module.path().join("a/testdata/huge")).unwrap();
        huge.set_len(MAX_BYTES + 1).unwrap();
        let error = Package::of(&module.path().join("a")).files().unwrap_err();
        assert!(error.to_string().contains("the largest: a/testdata/huge (64.0 MiB)"), "{error}");
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
        assert!(package.files().unwrap().has(Path::new("src/x/y")), "a name, and nothing in it");
    }
}
