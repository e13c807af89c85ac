//! The flags of `go build`, marked so that clap leaves them alone.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::{ArgAction, Command};

/// The hidden option of ours that carries a word for `go build`.
pub const MARK: &str = "go-build-word";

/// Flags that stand alone, or have their value after `=`. From `go help build`; -n is left out, for it builds nothing.
const SWITCHES: [&str; 15] = [
    "a",
    "asan",
    "buildvcs",
    "cover",
    "json",
    "linkshared",
    "modcacherw",
    "msan",
    "race",
    "trimpath",
    "v",
    "work",
    "x",
    "i",
    "mod-cacherw",
];

/// Flags whose value may be the next word.
const WITH_VALUE: [&str; 17] = [
    "asmflags",
    "buildmode",
    "compiler",
    "covermode",
    "coverpkg",
    "gccgoflags",
    "gcflags",
    "installsuffix",
    "ldflags",
    "mod",
    "modfile",
    "o",
    "overlay",
    "p",
    "pgo",
    "pkgdir",
    "tags",
];

/// Rewrites the words of `hop run` and `hop build`: a word for `go build` becomes `--go-build-word=WORD`, and `--` is put
/// in front of the package. All other command lines come back as they are.
pub fn mark(hop: &Command, words: Vec<OsString>) -> Vec<OsString> {
    let command = words.get(1).and_then(|word| word.to_str()).filter(|word| matches!(*word, "run" | "build"));
    let Some(command) = command.and_then(|name| hop.find_subcommand(name)) else { return words };
    let mut words = words.into_iter();
    let mut marked: Vec<OsString> = words.by_ref().take(2).collect();
    while let Some(word) = words.next() {
        match kind(command, &word) {
            Kind::Go { wants_value } => {
                marked.push(for_go(&word));
                marked.extend(wants_value.then(|| words.next()).flatten().map(|value| for_go(&value)));
            }
            Kind::Ours { wants_value } => {
                marked.push(word);
                marked.extend(wants_value.then(|| words.next()).flatten());
            }
            Kind::Package => {
                // `--` is what a user may write there too.
                marked.push("--".into());
                marked.extend((word != "--").then_some(word));
                marked.extend(words.by_ref());
            }
        }
    }
    marked
}

fn for_go(word: &OsStr) -> OsString {
    let mut marked = OsString::from(format!("--{MARK}="));
    marked.push(word);
    marked
}

enum Kind {
    Go { wants_value: bool },
    Ours { wants_value: bool },
    Package,
}

fn kind(command: &Command, word: &OsStr) -> Kind {
    let bytes = word.as_bytes();
    if bytes.first() != Some(&b'-') || bytes == b"-" || bytes == b"--" {
        return Kind::Package;
    }
    let text = word.to_string_lossy();
    // -name and --name are the same to Go.
    let name = text.trim_start_matches('-');
    let (name, has_value) = name.split_once('=').map_or((name, false), |(name, _)| (name, true));
    let is_ours = |long: bool| {
        command.get_arguments().find(|argument| {
            let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
            let found = if long {
                argument.get_long() == Some(name)
            } else {
                // -rNAME has its value in the same word.
                argument
                    .get_short()
                    .is_some_and(|short| name.starts_with(short) && (takes_value || name.len() == 1))
            };
            found && !argument.is_positional()
        })
    };
    let takes_value =
        |argument: &clap::Arg| matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    if text.starts_with("--")
        && let Some(argument) = is_ours(true)
    {
        return Kind::Ours { wants_value: takes_value(argument) && !has_value };
    }
    // `hop build -o` and `-C` are ours before they are Go's.
    if name.len() == 1
        && let Some(argument) = is_ours(false)
    {
        return Kind::Ours { wants_value: takes_value(argument) && !has_value };
    }
    if SWITCHES.contains(&name) {
        return Kind::Go { wants_value: false };
    }
    if WITH_VALUE.contains(&name) {
        return Kind::Go { wants_value: !has_value };
    }
    // What neither knows is for clap to refuse, or a short option with its value in the same word.
    Kind::Ours { wants_value: false }
}
