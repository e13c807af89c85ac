//! Text from elsewhere on the user's terminal, which must not take it for commands (CVE-2019-6109 was scp's case).
//!
//! **Invariants:** whatever `hop` itself prints goes through here, and holds no character that moves the cursor, clears,
//! renames, types, or turns the order of others around; and a foreign string is on one line, so that it cannot pretend to be
//! a line of Hop's own. The program's output is the program's, and passes as it is.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use super::{stdio, style};

/// A foreign string on one line: characters that must not be shown are escaped as in Rust, `\u{1b}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, is_active)
}

/// Foreign bytes on one line; U+FFFD replaces invalid UTF-8.
pub fn printable_bytes(bytes: &[u8]) -> String {
    printable(&String::from_utf8_lossy(bytes)).into_owned()
}

/// A foreign text of several lines; only line ends and tabs are kept as they are.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_active(c) && !matches!(c, '\n' | '\t'))
}

/// JSON for a terminal: serde escapes most of what must be, and not what came after ASCII.
pub fn json(value: &impl Serialize) -> String {
    // What is made JSON here are structs and lists of strings, numbers and booleans, which always have theirs.
    let json = serde_json::to_string_pretty(value).unwrap_or_default();
    // Outside of strings there is no such character, and in them it is written like this.
    json.chars().fold(String::with_capacity(json.len()), |mut json, c| {
        match c {
            '\n' => json.push(c),
            c if is_active(c) => json.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
        json
    })
}

/// Prints a line on standard error, by one write. If nobody reads it, the exit code still counts, so a failure is no error.
pub fn say(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    let text = style::message(&printable_lines(&text));
    let _ = stdio::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Prints what `hop` waits for on a terminal, and nothing elsewhere: a log does without.
pub fn note(text: fmt::Arguments<'_>) {
    if io::stderr().is_terminal() {
        say(text);
    }
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_escaped(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// True for what a terminal does something else with than to show it: the control characters of both sets (ECMA-48), what
/// ends a line, and what changes the order in which others are shown (Unicode, UAX #9).
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const NASTY: &str = "a\u{1b}[2J\u{9b}1m\u{7f}\r\n\t\u{202e}\u{7}b";

    #[test]
    fn foreign_strings_show_their_control_characters() {
        assert_eq!(printable(NASTY), "a\\u{1b}[2J\\u{9b}1m\\u{7f}\\r\\n\\t\\u{202e}\\u{7}b");
        assert_eq!(printable_lines(NASTY), "a\\u{1b}[2J\\u{9b}1m\\u{7f}\\r\n\t\\u{202e}\\u{7}b");
        assert_eq!(printable_bytes(b"a\xff\x1b"), "a\u{fffd}\\u{1b}");
        for plain in ["", "OpenWrt 24.10", "größe 大きさ", "back\\slash \"quoted\""] {
            assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain));
        }
    }

    #[test]
    fn json_escapes_control_characters() {
        let text = json(&[NASTY, "plain"]);
        assert!(!text.replace('\n', "").contains(is_active), "{text:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).ok(), Some(vec![NASTY.into(), "plain".into()]));
    }
}
