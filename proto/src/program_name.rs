//! Valid names of programs on a router.
//!
//! **Invariants:** a name that passes [`is_valid`] is a file name, and a terminal displays it without interpreting any
//! of it.

use crate::limits::MAX_NAME_BYTES;

/// True for a file name of at most [`MAX_NAME_BYTES`] bytes without control characters. The terminals of all
/// controllers of a router display the name, and so do those on which somebody reads the router's log.
pub fn is_valid(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= MAX_NAME_BYTES
        && !name.contains(|c: char| c == '/' || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_in_name_are_refused() {
        for name in ["hello", "a b", "ü", ".x", &"x".repeat(MAX_NAME_BYTES)] {
            assert!(is_valid(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a\0b", "a\nb", "\u{1b}[2J", "\u{9b}2J", "\u{7f}", &"x".repeat(65)]
        {
            assert!(!is_valid(name), "{name:?}");
        }
    }
}
