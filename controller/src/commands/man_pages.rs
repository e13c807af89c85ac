//! `hop man-pages`: a page for each command, from the same text as its help.

use std::path::Path;

use super::Error;
use crate::cli;
use crate::console::exit_code::ExitCode;

/// Writes `hop.1`, `hop-run.1` and so on.
pub fn write(directory: &Path) -> Result<ExitCode, Error> {
    let hop = cli::command();
    write_page(&hop, "hop", directory)
}

/// Writes the page of a command and those of its commands. Not by clap_mangen's own walk, which would give each page the version
/// of a program that has its name.
fn write_page(command: &clap::Command, name: &str, directory: &Path) -> Result<ExitCode, Error> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help")
    {
        write_page(below, &format!("{name}-{}", below.get_name()), directory)?;
    }
    let path = directory.join(format!("{name}.1"));
    let page = clap_mangen::Man::new(command.clone())
        .title(name.to_uppercase())
        .source(concat!("Hop ", env!("CARGO_PKG_VERSION")))
        .manual("Hop");
    let mut text = Vec::new();
    page.render(&mut text).and_then(|()| std::fs::write(&path, text)).map_err(Error::io("write", &path))?;
    Ok(ExitCode::Program(0))
}
