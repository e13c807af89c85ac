//! What `go list` knows of a build's packages: which program a pattern matches.

use std::ffi::{OsStr, OsString};

use super::Error;
use super::build::{Build, cannot_run, flag_name, run};
use crate::console::progress::Progress;

/// Patterns of Go without `...` in them (`go help packages`) that match more than one package.
const RESERVED: [&str; 5] = ["all", "std", "cmd", "tool", "work"];

/// The flags of `go build` that decide which files belong to a package: `go list` takes them too.
const SELECTING: [&str; 6] = ["compiler", "installsuffix", "mod", "modfile", "overlay", "tags"];

impl Build<'_> {
    /// The only program that the first package matches, if that is a pattern, as `go run` reads it; `None` if it is none.
    ///
    /// # Errors
    /// No program matches, or several do, or `go list` fails.
    pub async fn matched(&self, progress: &Progress) -> Result<Option<OsString>, Error> {
        const MAIN: &str = "{{if eq .Name \"main\"}}{{.ImportPath}}{{end}}";
        let Some(pattern) = self.packages.first().and_then(|package| package.to_str()) else {
            return Ok(None);
        };
        let is_pattern = pattern.contains("...") || RESERVED.contains(&pattern);
        if !is_pattern || self.is_versioned() || pattern.ends_with(".go") {
            return Ok(None);
        }
        let mut go = self.go();
        go.args(["list", "-f", MAIN]).args(self.selecting_flags()).args(["--", pattern]);
        let listed = run(&mut go, true, progress).await.map_err(cannot_run)?;
        if !listed.status.success() {
            return Err(Error::NotBuilt { why: format!("go list failed: {}", listed.status) });
        }
        let text = String::from_utf8_lossy(&listed.stdout);
        let mut programs = text.lines();
        let pattern = pattern.to_owned();
        match (programs.next(), programs.next()) {
            (None, _) => Err(Error::NoPackages { pattern }),
            (Some(only), None) => Ok(Some(only.into())),
            _ => {
                Err(Error::SeveralPackages { pattern, packages: text.lines().collect::<Vec<_>>().join(", ") })
            }
        }
    }

    /// The user's own flags that `go list` needs to see the same files as the build.
    pub(super) fn selecting_flags(&self) -> Vec<&OsStr> {
        let mut selecting = Vec::new();
        let mut words = self.flags.iter();
        while let Some(word) = words.next() {
            let text = word.to_string_lossy();
            if SELECTING.contains(&flag_name(&text)) {
                selecting.push(word.as_os_str());
                if !text.contains('=') {
                    selecting.extend(words.next().map(OsString::as_os_str));
                }
            }
        }
        selecting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_selecting_flags_reach_go_list() {
        let flags = ["-v", "-tags", "a b", "-o", "x", "--mod=vendor", "-ldflags=-X main.tags=1", "-tags=c"];
        let flags = flags.map(OsString::from);
        let build = Build {
            flags: &flags,
            packages: &[],
            goarch: "mips",
            symbols: false,
            vcs_stamp: false,
            cc: None,
        };
        assert_eq!(build.selecting_flags(), ["-tags", "a b", "--mod=vendor", "-tags=c"]);
    }
}
