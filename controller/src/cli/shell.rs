//! `hop completions`, and what shells and packages call: `hop complete` and `hop man-pages`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// A shell whose command lines hop completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Bash 4 and later.
    Bash,
    /// Zsh.
    Zsh,
    /// Fish.
    Fish,
}

/// `hop completions`.
#[derive(Args, Debug)]
#[command(after_help = COMPLETIONS_AFTER_HELP)]
pub struct Completions {
    /// The shell
    pub shell: Shell,
}

const COMPLETIONS_AFTER_HELP: &str = "\
`source <(hop completions bash)` in ~/.bashrc; `source <(hop completions zsh)` \
in ~/.zshrc, after compinit; `hop completions fish | source` in ~/.config/fish/config.fish.";

/// `hop complete`: what the scripts of `hop completions` call.
#[derive(Args, Debug)]
pub struct Complete {
    /// The shell that asks, and how it reads the answer
    pub shell: Shell,
    /// Which of the words is completed, counted from 0
    pub index: usize,
    /// The words of the command line, hop itself the first
    #[arg(required = true, last = true)]
    pub words: Vec<OsString>,
}

/// `hop man-pages`: for those who make a package of hop.
#[derive(Args, Debug)]
pub struct ManPages {
    /// An existing directory, in which hop writes a page for each command
    pub directory: PathBuf,
}
