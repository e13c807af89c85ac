//! The source files of a program: those of its package, and of the packages that it imports, as far as they are here to be edited.
//!
//! **Invariants:** what a build itself reads or writes is no change; nothing of the standard library or of the module cache is
//! watched; and of a directory only the files that are built in, because others may be what the program's run leaves there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Error;
use super::build::{Build, cannot_run, run};
use crate::console::progress::Progress;

/// Endings of the files that `go build` takes from a package's directory (`go help packages`, go/build).
const EXTENSIONS: [&str; 14] =
    ["go", "c", "cc", "cpp", "cxx", "m", "h", "hh", "hpp", "hxx", "s", "S", "sx", "syso"];

/// The fields of `go list -json` that are read.
const FIELDS: &str = "-json=Dir,ImportPath,Standard,Module,EmbedFiles";

/// A program's source files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Directories of packages, in which files may also appear.
    packages: BTreeSet<PathBuf>,
    /// Files that decide what is built, wherever they are: go.mod, go.work, embedded files.
    files: BTreeSet<PathBuf>,
    /// Directories below a package's own, of which files are embedded.
    embedded: BTreeSet<PathBuf>,
    /// Directories that an import names and that are not there yet.
    missing: BTreeSet<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Package {
    dir: PathBuf,
    import_path: String,
    standard: bool,
    module: Option<Module>,
    embed_files: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Module {
    path: String,
    main: bool,
    dir: PathBuf,
    go_mod: PathBuf,
    replace: Option<Box<Module>>,
    version: String,
}

impl Module {
    /// True if it is edited here: the main one, one of a workspace, or one that a directory replaces.
    fn is_local(&self) -> bool {
        self.main || self.replace.as_ref().is_some_and(|replace| replace.version.is_empty())
    }
}

impl Build<'_> {
    /// The source files of the program, as far as `go list` sees them now: errors in them are left to the build.
    ///
    /// # Errors
    /// There is no Go, or it cannot say.
    pub async fn sources(&self) -> Result<Sources, Error> {
        let mut go = self.go();
        go.args(["list", "-deps", "-e", FIELDS]).args(self.selecting_flags()).arg("--").args(self.packages);
        // What is wrong with the source, the build says too.
        go.stderr(std::process::Stdio::null());
        let listed = run(&mut go, true, &Progress::none()).await.map_err(cannot_run)?;
        if !listed.status.success() {
            return Err(Error::NotBuilt { why: format!("go list failed: {}", listed.status) });
        }
        let mut go = self.go();
        go.args(["env", "GOWORK"]);
        let workspace = run(&mut go, true, &Progress::none()).await.map_err(cannot_run)?;
        let workspace = String::from_utf8_lossy(&workspace.stdout).trim().to_owned();
        Sources::parse(&listed.stdout, &workspace)
    }
}

impl Sources {
    fn parse(listed: &[u8], workspace: &str) -> Result<Self, Error> {
        let packages = serde_json::Deserializer::from_slice(listed).into_iter::<Package>();
        let packages: Vec<Package> = packages.collect::<Result<_, _>>().map_err(|error| Error::NotBuilt {
            why: format!("go list says what hop cannot read: {error}"),
        })?;
        let mut sources = Self::default();
        // Empty without a workspace, and "off" if that is switched off.
        sources.files.extend(workspace.starts_with('/').then(|| workspace.into()));
        let modules: Vec<&Module> = packages
            .iter()
            .filter_map(|package| package.module.as_ref())
            .filter(|it| it.is_local())
            .collect();
        for module in &modules {
            sources.files.extend([module.go_mod.clone(), module.go_mod.with_file_name("go.sum")]);
        }
        for package in &packages {
            // Files on the command line are in no module.
            let is_local = !package.standard && package.module.as_ref().is_none_or(Module::is_local);
            if !is_local {
                continue;
            }
            if package.dir.as_os_str().is_empty() {
                sources.missing.extend(modules.iter().find_map(|module| module.directory_of(package)));
                continue;
            }
            for file in &package.embed_files {
                let file = package.dir.join(file);
                sources.embedded.extend(
                    file.ancestors().skip(1).take_while(|above| *above != package.dir).map(Path::to_owned),
                );
                sources.files.insert(file);
            }
            sources.packages.insert(package.dir.clone());
        }
        Ok(sources)
    }

    /// The directories in which a change can happen.
    pub fn directories(&self) -> BTreeSet<PathBuf> {
        let of_files = self.files.iter().filter_map(|file| file.parent());
        let of_missing = self
            .missing
            .iter()
            .filter_map(|missing| missing.ancestors().skip(1).find(|above| above.is_dir()));
        let own = self.packages.iter().chain(&self.embedded).map(PathBuf::as_path);
        let all = own.chain(of_files).chain(of_missing);
        all.filter(|directory| directory.is_dir()).map(Path::to_owned).collect()
    }

    /// True if the program may be another one when this file is.
    pub fn has(&self, path: &Path) -> bool {
        if self.files.contains(path) || self.missing.iter().any(|missing| missing.starts_with(path)) {
            return true;
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return false;
        };
        // Go takes neither from a package, and embeds neither from a directory.
        if name.starts_with(['.', '_']) {
            return false;
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let is_source = EXTENSIONS.contains(&extension) && !name.ends_with("_test.go");
        self.packages.contains(parent) && is_source || self.embedded.contains(parent) && !name.ends_with('~')
    }
}

impl Module {
    /// Where a package of this module would be.
    fn directory_of(&self, package: &Package) -> Option<PathBuf> {
        let below = package.import_path.strip_prefix(&self.path)?.strip_prefix('/')?;
        Some(self.dir.join(below))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_local_sources_are_watched() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for name in ["app/cmd", "app/data/deep", "lib", "cache"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        let main = format!(
            r#"{{"Path": "example.com/app", "Main": true, "Dir": "{0}/app", "GoMod": "{0}/app/go.mod"}}"#,
            root.display()
        );
        let replaced = format!(
            r#"{{"Path": "example.com/lib", "Version": "v1.0.0", "GoMod": "{0}/lib/go.mod", "Replace": {{"Path": "../lib"}}}}"#,
            root.display()
        );
        let listed = format!(
            r#"{{"Dir": "/usr/local/go/src/fmt", "ImportPath": "fmt", "Standard": true}}
            {{"Dir": "{0}/cache", "ImportPath": "example.com/dep", "Module": {{"Path": "example.com/dep", "Version": "v1.2.3"}}}}
            {{"Dir": "{0}/lib", "ImportPath": "example.com/lib", "Module": {replaced}}}
            {{"ImportPath": "example.com/app/new/deep", "Incomplete": true}}
            {{"Dir": "{0}/app/cmd", "ImportPath": "example.com/app/cmd", "Module": {main}}}
            {{"Dir": "{0}/app", "ImportPath": "example.com/app", "Module": {main}, "EmbedFiles": ["page.html", "data/deep/a"]}}"#,
            root.display()
        );
        let sources = Sources::parse(listed.as_bytes(), "").unwrap();
        let names = ["app", "app/cmd", "app/data", "app/data/deep", "lib"];
        assert_eq!(sources.directories(), names.map(|name| root.join(name)).into());
        let watched = |name: &str| sources.has(&root.join(name));
        for name in [
            "app/main.go",
            "app/cmd/other.go",
            "app/x.S",
            "app/go.mod",
            "app/go.sum",
            "app/page.html",
            "app/data/deep/b",
            "lib/lib.go",
            "lib/go.mod",
            "app/new",
            "app/new/deep",
        ] {
            assert!(watched(name), "{name}");
        }
        for name in [
            "app/main_test.go",
            "app/.main.go.swp",
            "app/main.go~",
            "app/4913",
            "app/out.txt",
            "app/.#main.go",
            "cache/dep.go",
            "app/data/deep/b~",
            "app/other",
            "main.go",
        ] {
            assert!(!watched(name), "{name}");
        }
    }
}
