//! `hop go-exec`.

use std::fs;
use std::io::IsTerminal;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::Error;
use super::{print, selected_router};
use crate::cli::{GO_EXEC_NAMES, GoExec};
use crate::config::home::Home;
use crate::config::inventory::Router;
use crate::console::exit_code::ExitCode;
use crate::console::say;

/// Does what the command line asks for.
pub fn run(home: &Home, options: GoExec) -> Result<ExitCode, Error> {
    match options {
        GoExec::Install { directory } => {
            let directory = install(home, directory)?;
            print(&directory.display().to_string())?;
            // What is captured, as by the hint itself, is on its way to PATH.
            if !is_on_path(&directory) && std::io::stdout().is_terminal() {
                say!("hop: that is not on PATH yet: export PATH=$(hop go-exec install):$PATH");
            }
        }
        GoExec::Env { router, name } => {
            let named = name.or(router);
            let router = selected_router(home, named.as_deref())?;
            let directory = install(home, None)?;
            print(&variables(&directory, &router, named.is_some()))?;
        }
    }
    Ok(ExitCode::Program(0))
}

/// One line that a shell evaluates, in quotes or not.
fn variables(directory: &Path, router: &Router, is_named: bool) -> String {
    let mut line = "export".to_owned();
    if !is_on_path(directory) {
        line.push_str(&format!(
            " PATH='{}':\"$PATH\"",
            directory.display().to_string().replace('\'', r"'\''")
        ));
    }
    line.push_str(&format!(" GOOS=linux GOARCH={} GOMIPS=softfloat CGO_ENABLED=0", router.entry.goarch));
    if is_named {
        line.push_str(&format!(" HOP_ROUTER={}", router.name));
    }
    line
}

fn is_on_path(directory: &Path) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|known| known == directory)
}

/// Links the names by which Go looks for us. Returns the directory.
fn install(home: &Home, directory: Option<PathBuf>) -> Result<PathBuf, Error> {
    let directory = directory.unwrap_or_else(|| home.cache().join("go-exec"));
    fs::create_dir_all(&directory).map_err(Error::io("create", &directory))?;
    let directory = directory.canonicalize().map_err(Error::io("find", &directory))?;
    let hop = std::env::current_exe().map_err(Error::io("find", Path::new("hop")))?;
    for name in GO_EXEC_NAMES {
        let link = directory.join(name);
        // Somebody else's program is not ours to remove.
        if fs::symlink_metadata(&link).is_ok_and(|metadata| !metadata.is_symlink()) {
            return Err(Error::Usage(format!("{} is there already, and it is no link", link.display())));
        }
        let new = directory.join(format!("{name}.{}", std::process::id()));
        symlink(&hop, &new).map_err(Error::io("create", &new))?;
        fs::rename(&new, &link).map_err(Error::io("create", &link))?;
    }
    Ok(directory)
}
