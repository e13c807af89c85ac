//! `hop go-exec`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::Error;
use super::print;
use crate::cli::{GO_EXEC_NAMES, GoExec};
use crate::config::home::Home;
use crate::console::exit_code::ExitCode;
use crate::console::say;

/// Does what the command line asks for.
pub fn run(home: &Home, options: GoExec) -> Result<ExitCode, Error> {
    match options {
        GoExec::Install { directory } => install(home, directory),
    }
}

/// Links the names by which Go looks for us.
fn install(home: &Home, directory: Option<PathBuf>) -> Result<ExitCode, Error> {
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
    print(&directory.display().to_string())?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|known| known == directory) {
        say!("hop: that is not on PATH yet: export PATH=$(hop go-exec install):$PATH");
    }
    Ok(ExitCode::Program(0))
}
