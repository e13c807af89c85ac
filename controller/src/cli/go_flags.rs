//! The flags of `go build`, marked so that clap leaves them alone; and where the program's own words begin.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command, Error};

use crate::console::printable::printable;

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

/// Flags of `go run` and `go build` that `hop` has no use for, with the reason.
const NOT_PASSED_ON: [(&str, &str); 2] = [
    (
        "n",
        "`go build -n` prints the commands of a build; `hop run -n` gives the program an empty standard input",
    ),
    (
        "exec",
        "hop runs the program itself, on the router; `hop go-exec env` sets up `go run -exec` and `go test`",
    ),
];

/// How much a flag must resemble another to be taken for it: `-tag` and `-tags` do, `-race` and `--grace` only just. From 0 to 1.
const MIN_SIMILARITY: f64 = 0.8;

/// The names of all flags, without dashes.
pub fn names() -> impl Iterator<Item = &'static str> {
    SWITCHES.into_iter().chain(WITH_VALUE)
}

/// Rewrites the words of `hop run`, `hop build` and `hop exec`: a word for `go build` becomes `--go-build-word=WORD`, our
/// own long options may have one dash, as Go's have, and `--` is put in front of the first word that is no option. All
/// other command lines come back as they are.
///
/// # Errors
/// A flag that nobody has, or that has no value or the wrong one, in the words of `go run`.
pub fn mark(hop: &Command, words: Vec<OsString>) -> Result<Vec<OsString>, Error> {
    let name =
        words.get(1).and_then(|word| word.to_str()).filter(|word| matches!(*word, "run" | "build" | "exec"));
    let Some(command) = name.and_then(|name| hop.find_subcommand(name)) else { return Ok(words) };
    let builds = command.get_name() != "exec";
    let mut words = words.into_iter();
    let mut marked: Vec<OsString> = words.by_ref().take(2).collect();
    while let Some(word) = words.next() {
        let refused = |what: String| refusal(command, what);
        let typed = flag(&word);
        let mut value = || words.next().ok_or_else(|| refused(format!("flag needs an argument: {typed}")));
        match Kind::of(command, builds, &word) {
            Kind::Go { wants_value } => {
                marked.push(for_go(&word));
                if wants_value {
                    marked.push(for_go(&value()?));
                }
            }
            Kind::Ours { word, wants_value } => {
                marked.push(word);
                if wants_value {
                    marked.push(value()?);
                }
            }
            Kind::Switch { word, value } => match parse_bool(&value) {
                Some(is_set) => marked.extend(is_set.then_some(word)),
                None => return Err(refused(format!("invalid boolean value {value:?} for {typed}"))),
            },
            Kind::Nobodys => return Err(refused(undefined(command, builds, &typed))),
            Kind::Program => {
                // `--` is what a user may write there too.
                marked.push("--".into());
                marked.extend((word != "--").then_some(word));
                marked.extend(words.by_ref());
            }
        }
    }
    Ok(marked)
}

/// A flag as it was typed, without its value.
fn flag(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    printable(word.split_once('=').map_or(&*word, |(flag, _)| flag)).into_owned()
}

fn refusal(command: &Command, what: String) -> Error {
    command.clone().error(ErrorKind::UnknownArgument, what)
}

/// What is wrong with a flag that nobody has, as Go's package `flag` says it, and which one was meant.
fn undefined(command: &Command, builds: bool, typed: &str) -> String {
    let name = typed.trim_start_matches('-');
    let said = format!("flag provided but not defined: {typed}");
    if let Some((_, why)) = NOT_PASSED_ON.iter().find(|(flag, _)| builds && *flag == name) {
        return format!("{said}\n\n  tip: {why}");
    }
    let go = SWITCHES.iter().chain(&WITH_VALUE).filter(|_| builds).map(|flag| format!("-{flag}"));
    let ours = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let ours = ours.filter_map(|argument| Some(format!("--{}", argument.get_long()?)));
    let resemblance = |flag: &String| strsim::jaro(flag.trim_start_matches('-'), name);
    let similar = go.chain(ours).max_by(|one, other| resemblance(one).total_cmp(&resemblance(other)));
    match similar.filter(|flag| resemblance(flag) > MIN_SIMILARITY) {
        Some(flag) => format!("{said}\n\n  tip: a similar flag exists: '{flag}'"),
        None => said,
    }
}

/// As Go reads the value of a boolean flag (strconv.ParseBool).
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
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
    /// One that stands alone, with a value behind `=`.
    Switch {
        word: OsString,
        value: String,
    },
    Program,
    Nobodys,
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
        let is_short = |argument: &Arg| argument.get_short().is_some_and(|short| name == short.to_string());
        let is_long = |argument: &Arg| argument.get_long().is_some_and(|long| name == long);
        // `hop build -o` and `-C` are ours before they are Go's.
        let ours = find(&is_short).map(|argument| (1, argument));
        if let Some((dashes, argument)) = ours.or_else(|| find(&is_long).map(|argument| (2, argument))) {
            let takes_value = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
            if has_value && !takes_value {
                let value = String::from_utf8_lossy(&body[name_length + 1..]).into_owned();
                return Self::Switch { word: with_dashes(dashes, &body[..name_length]), value };
            }
            return Self::Ours { word: with_dashes(dashes, body), wants_value: takes_value && !has_value };
        }
        if builds && SWITCHES.contains(&&*name) {
            return Self::Go { wants_value: false };
        }
        if builds && WITH_VALUE.contains(&&*name) {
            return Self::Go { wants_value: !has_value };
        }
        Self::Nobodys
    }
}

fn with_dashes(count: usize, body: &[u8]) -> OsString {
    OsString::from_vec([&b"--"[..count], body].concat())
}
