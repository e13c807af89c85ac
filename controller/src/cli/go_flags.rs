//! The flags of `go build`, marked so that clap leaves them alone; and where the program's own words begin.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, ArgAction, Command};

/// The hidden option of ours that carries a word for `go build`.
pub const MARK: &str = "go-build-word";

/// Flags that stand alone, or have their value after `=`. From `go help build`; -n is left out, for it builds
/// nothing: in `hop run -n` it is ours.
const SWITCHES: [&str; 13] = [
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
];

/// Flags whose value may be the next word.
const WITH_VALUE: [&str; 18] = [
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
    "toolexec",
];

/// The names of all flags, without dashes.
pub fn names() -> impl Iterator<Item = &'static str> {
    SWITCHES.into_iter().chain(WITH_VALUE)
}

/// Rewrites the words of `hop run`, `hop build` and `hop exec`: a word for `go build` becomes `--go-build-word=WORD`, our
/// own long options may have one dash, as Go's have, and `--` is put in front of the first word that is no option. All
/// other command lines come back as they are.
pub fn mark(hop: &Command, words: Vec<OsString>) -> Vec<OsString> {
    let name =
        words.get(1).and_then(|word| word.to_str()).filter(|word| matches!(*word, "run" | "build" | "exec"));
    let Some(command) = name.and_then(|name| hop.find_subcommand(name)) else { return words };
    let builds = command.get_name() != "exec";
    let mut words = words.into_iter();
    let mut marked: Vec<OsString> = words.by_ref().take(2).collect();
    while let Some(word) = words.next() {
        match Kind::of(command, builds, &word) {
            Kind::Go { wants_value } => {
                marked.push(for_go(&word));
                marked.extend(wants_value.then(|| words.next()).flatten().map(|value| for_go(&value)));
            }
            Kind::Ours { word, wants_value } => {
                marked.push(word);
                marked.extend(wants_value.then(|| words.next()).flatten());
            }
            Kind::Program => {
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

/// Whose a word is.
enum Kind {
    Go {
        wants_value: bool,
    },
    /// As clap reads it.
    Ours {
        word: OsString,
        wants_value: bool,
    },
    Program,
}

impl Kind {
    fn of(command: &Command, builds: bool, word: &OsStr) -> Self {
        let bytes = word.as_bytes();
        let Some(body) = bytes.strip_prefix(b"-").filter(|body| !matches!(**body, [] | [b'-'])) else {
            return Self::Program;
        };
        // -name and --name are the same to Go.
        let body = body.strip_prefix(b"-").unwrap_or(body);
        let name_length = body.iter().position(|byte| *byte == b'=').unwrap_or(body.len());
        let has_value = name_length < body.len();
        let name = String::from_utf8_lossy(&body[..name_length]);
        let find =
            |matches: &dyn Fn(&Arg) -> bool| command.get_arguments().find(|argument| matches(argument));
        let wants_value = |argument: &Arg| {
            !has_value && matches!(argument.get_action(), ArgAction::Set | ArgAction::Append)
        };
        let is_short = |argument: &Arg| argument.get_short().is_some_and(|short| name == short.to_string());
        let is_long = |argument: &Arg| argument.get_long().is_some_and(|long| name == long);
        // `hop build -o` and `-C` are ours before they are Go's.
        if let Some(argument) = find(&is_short) {
            return Self::Ours { word: with_dashes(1, body), wants_value: wants_value(argument) };
        }
        if let Some(argument) = find(&is_long) {
            return Self::Ours { word: with_dashes(2, body), wants_value: wants_value(argument) };
        }
        if builds && SWITCHES.contains(&&*name) {
            return Self::Go { wants_value: false };
        }
        if builds && WITH_VALUE.contains(&&*name) {
            return Self::Go { wants_value: !has_value };
        }
        // Nobody's: for clap to refuse. With two dashes, so that it is not read as -e with the value `xec`.
        Self::Ours { word: with_dashes(2, body), wants_value: false }
    }
}

fn with_dashes(count: usize, body: &[u8]) -> OsString {
    OsString::from_vec([&b"--"[..count], body].concat())
}
