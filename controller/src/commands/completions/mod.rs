//! `hop completions` and `hop complete`: what fits at the place of the cursor in a command line of hop.
//!
//! The shell's script calls `hop complete` for each word. Commands, options and their values come from the definition of the command
//! line; routers, jobs, packages and profiles are looked up. Where hop prints nothing, the shell completes the name of a file.
//!
//! **Invariants:** the answer comes within [`TIME_LIMIT`], complete or not. Completing starts no process, prompts for nothing, writes
//! no file, and leaves standard error empty. It asks a router for its jobs only over a connection that needs no ssh.

mod packages;
mod values;

use std::ffi::{OsStr, OsString};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap_complete::engine::CompletionCandidate;

use super::{Error, print_as_it_is};
use crate::cli::{self, Complete, Shell};
use crate::console::exit_code::ExitCode;

/// How long a person waits after the tab key before it seems broken.
const TIME_LIMIT: Duration = Duration::from_millis(800);

/// Prints the script for a shell.
pub fn print_script(shell: Shell) -> Result<ExitCode, Error> {
    let script = match shell {
        Shell::Bash => include_str!("hop.bash"),
        Shell::Zsh => include_str!("hop.zsh"),
        Shell::Fish => include_str!("hop.fish"),
    };
    print_as_it_is(script.trim_end()).map(|()| ExitCode::Program(0))
}

/// Prints what fits, a line each.
pub fn complete(options: Complete) -> ExitCode {
    let shell = options.shell;
    let (sender, receiver) = mpsc::sync_channel(1);
    // Nobody waits for this thread: a name server or a file system may keep it for long.
    thread::spawn(move || {
        // It fails if the time is over.
        let _ = sender.send(candidates(&options));
    });
    let found = receiver.recv_timeout(TIME_LIMIT).unwrap_or_default();
    if !found.is_empty() {
        let lines: Vec<_> = found.iter().map(|candidate| candidate.line(shell)).collect();
        // It fails if the shell has gone.
        let _ = print_as_it_is(&lines.join("\n"));
    }
    ExitCode::Program(0)
}

/// A word that fits, and what it is.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    word: String,
    help: Option<String>,
}

impl Candidate {
    fn line(&self, shell: Shell) -> String {
        let Self { word, help } = self;
        match (shell, help) {
            (Shell::Bash, _) => word.clone(),
            (Shell::Zsh, None) => word.replace(':', "\\:"),
            (Shell::Zsh, Some(help)) => format!("{}:{help}", word.replace(':', "\\:")),
            (Shell::Fish, None) => word.clone(),
            (Shell::Fish, Some(help)) => format!("{word}\t{help}"),
        }
    }
}

/// The words that fit.
fn candidates(options: &Complete) -> Vec<Candidate> {
    let mut line = Line::new(&options.words, options.index);
    if options.shell == Shell::Bash {
        line.join_equals_signs();
    }
    let Some(found) = line.complete() else { return Vec::new() };
    let is_printable = |word: &str| !word.chars().any(char::is_control);
    found
        .into_iter()
        .filter_map(|candidate| {
            let word = line.as_typed(candidate.get_value().to_str()?)?;
            let help = candidate.get_help().map(ToString::to_string);
            let help = help.and_then(|help| help.lines().next().map(str::to_owned));
            is_printable(&word).then_some(Candidate { word, help })
        })
        .collect()
}

/// A command line up to the word that is completed.
struct Line {
    before: Vec<OsString>,
    current: OsString,
    /// What is in `current` and not in the shell's word: `--router=` where bash has made words of its parts.
    prefix: String,
    /// `current` has one dash where clap wants two.
    is_single_dash: bool,
}

impl Line {
    fn new(words: &[OsString], index: usize) -> Self {
        let index = index.min(words.len());
        Self {
            before: words[..index].to_vec(),
            current: words.get(index).cloned().unwrap_or_default(),
            prefix: String::new(),
            is_single_dash: false,
        }
    }

    /// Joins `--router`, `=` and `desk` to one word: by default bash divides words at equals signs too.
    fn join_equals_signs(&mut self) {
        let words = std::mem::take(&mut self.before);
        let mut words = words.into_iter().peekable();
        while let Some(mut word) = words.next() {
            if word.as_encoded_bytes().starts_with(b"--") && words.peek().is_some_and(|next| next == "=") {
                word.push("=");
                words.next();
                match words.next() {
                    Some(value) => word.push(value),
                    None => {
                        self.prefix = word.to_string_lossy().into_owned();
                        word.push(&self.current);
                        self.current = word;
                        return;
                    }
                }
            }
            self.before.push(word);
        }
        if self.current == "="
            && let Some(option) = self.before.pop_if(|word| word.as_encoded_bytes().starts_with(b"--"))
        {
            self.current = option;
            self.current.push("=");
            self.prefix = self.current.to_string_lossy().into_owned();
        }
    }

    /// What fits; none where the name of a file does, or what only the program knows.
    fn complete(&mut self) -> Option<Vec<CompletionCandidate>> {
        let command = self.before.get(1).and_then(|word| word.to_str()).unwrap_or_default().to_owned();
        let takes_go_flags = matches!(&*command, "run" | "build");
        let mut words = self.before.clone();
        if takes_go_flags || command == "exec" {
            words = marked(words)?;
            self.is_single_dash = is_cluster(&self.current);
        }
        let typed: OsString = match self.is_single_dash {
            true => [OsStr::new("-"), &self.current].into_iter().collect(),
            false => self.current.clone(),
        };
        let index = words.len();
        words.push(typed.clone());
        let mut hop = values::with_completers(cli::command(), &words);
        let mut found = clap_complete::engine::complete(&mut hop, words, index, None).ok()?;
        if takes_go_flags && typed.as_encoded_bytes().starts_with(b"--") {
            let flags = cli::go_flag_names().map(|name| format!("--{name}"));
            let fits = |flag: &String| flag.starts_with(&*typed.to_string_lossy());
            let flags = flags.filter(fits).map(CompletionCandidate::new);
            found.extend(flags.map(|flag| flag.help(Some("A flag of go build".into()))));
        }
        // Who has typed no dash wants no list of all options.
        let wants_options = typed.as_encoded_bytes().starts_with(b"-");
        let is_option =
            |candidate: &CompletionCandidate| candidate.get_value().as_encoded_bytes().starts_with(b"-");
        // What is hidden is for no person to type, though nothing else fits.
        found.retain(|candidate| !candidate.is_hide_set() && (wants_options || !is_option(candidate)));
        Some(found)
    }

    /// A candidate as it stands where the shell's own word is.
    fn as_typed(&self, candidate: &str) -> Option<String> {
        if self.is_single_dash {
            return candidate.strip_prefix('-').map(str::to_owned);
        }
        candidate.strip_prefix(&*self.prefix).map(str::to_owned)
    }
}

/// The words before the one that is completed, as clap reads them; none if they have an error, if a package or a program is among
/// them, or if the word is the value of a flag of `go build`.
fn marked(mut words: Vec<OsString>) -> Option<Vec<OsString>> {
    /// Stands for the word that is completed: what becomes of it says what that is.
    const PLACEHOLDER: &str = "x";
    words.push(PLACEHOLDER.into());
    let mut words = cli::mark(words).ok()?;
    let placeholder = words.pop()?;
    if placeholder != PLACEHOLDER {
        return None;
    }
    words.pop_if(|word| word == "--");
    (!words.iter().any(|word| word == "--")).then_some(words)
}

/// True for `-timeout`, which is `--timeout` to `hop run`.
fn is_cluster(word: &OsStr) -> bool {
    matches!(word.as_encoded_bytes(), [b'-', first, _, ..] if *first != b'-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The words that fit at the end of a line; `|` is between words.
    fn completed(shell: Shell, line: &str) -> Vec<String> {
        let words: Vec<OsString> = line.split('|').map(OsString::from).collect();
        let index = words.len() - 1;
        candidates(&Complete { shell, index, words }).into_iter().map(|candidate| candidate.word).collect()
    }

    #[test]
    fn commands_and_options_are_completed() {
        assert_eq!(completed(Shell::Bash, "hop|ru"), ["run"]);
        assert_eq!(completed(Shell::Bash, "hop|router|re"), ["rename", "remove", "revoke", "rekey"]);
        assert_eq!(completed(Shell::Bash, "hop|run|--time"), ["--timeout"]);
        assert_eq!(completed(Shell::Bash, "hop|build|--arch|m"), ["mips", "mipsle"]);
        assert_eq!(completed(Shell::Bash, "hop|help|rou"), ["router"]);
        for hidden in ["hop|c", "hop|", "hop|m"] {
            let found = completed(Shell::Bash, hidden);
            assert!(!found.iter().any(|word| word == "complete" || word == "man-pages"), "{found:?}");
        }
    }

    #[test]
    fn go_style_options_are_completed() {
        assert_eq!(completed(Shell::Bash, "hop|run|-time"), ["-timeout"]);
        assert_eq!(completed(Shell::Bash, "hop|run|-trimp"), ["-trimpath"]);
        assert_eq!(completed(Shell::Bash, "hop|build|--tag"), ["--tags"]);
        assert!(completed(Shell::Bash, "hop|exec|-trimp").is_empty());
        for value in ["hop|run|-ldflags|", "hop|build|-o|x", "hop|run|-tags|a|-overlay|o"] {
            assert!(completed(Shell::Bash, value).is_empty(), "{value}");
        }
    }

    #[test]
    fn arguments_of_programs_are_left_alone() {
        for line in ["hop|run|./probe|--tim", "hop|exec|./probe|-", "hop|run|-r|x|.|ru", "hop|run|--|a|--"] {
            assert!(completed(Shell::Bash, line).is_empty(), "{line}");
        }
    }

    #[test]
    fn bash_words_divided_at_equals_signs() {
        for line in ["hop|build|--arch|=|m", "hop|build|-v|--cc|=|zig cc|--arch|=|m"] {
            assert_eq!(completed(Shell::Bash, line), ["mips", "mipsle"], "{line}");
        }
        assert_eq!(completed(Shell::Bash, "hop|build|--arch|="), ["mips", "mipsle"]);
        assert_eq!(completed(Shell::Fish, "hop|build|--arch=m"), ["--arch=mips", "--arch=mipsle"]);
    }

    #[test]
    fn any_line_has_an_answer() {
        for line in ["", "|", "hop", "hop|--", "hop|-", "hop|run|=", "=|=|=", "hop|=|", "hop|kill|-9|-"] {
            for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
                completed(shell, line);
            }
        }
        let beyond = Complete { shell: Shell::Zsh, index: usize::MAX, words: vec!["hop".into()] };
        assert!(!candidates(&beyond).is_empty());
    }

    #[test]
    fn lines_have_the_form_of_their_shell() {
        let candidate = Candidate { word: "a:b".into(), help: Some("what".into()) };
        let lines = [Shell::Bash, Shell::Zsh, Shell::Fish].map(|shell| candidate.line(shell));
        assert_eq!(lines, ["a:b", "a\\:b:what", "a:b\twhat"]);
    }
}
