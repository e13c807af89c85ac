//! The escapes by which a user leaves a program that gets every key: `~` at the beginning of a line, as in ssh(1).
//!
//! **Invariants:** a `~` that begins no escape reaches the program, with the key after it.

use bytes::Bytes;

/// What `~?` shows.
pub const HELP: [&str; 5] = [
    "Escapes, at the beginning of a line:",
    "  ~.  leave, as if the connection had broken",
    "  ~d  leave, and let the program run on (hop attach comes back)",
    "  ~~  send ~ to the program",
    "  ~?  this list",
];

/// What the user wants of `hop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// Leave, as if the connection had broken.
    Leave,
    /// Leave, and let the program run on.
    Detach,
    /// Show the list of escapes.
    Help,
}

/// Finds escapes in what the user types.
#[derive(Debug)]
pub struct Escapes {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The next key is the first of a line.
    LineStart,
    /// The first key of the line is a `~` that the program does not have.
    Tilde,
    InLine,
}

impl Default for Escapes {
    /// At the beginning of a line.
    fn default() -> Self {
        Self { state: State::LineStart }
    }
}

impl Escapes {
    /// What of `keys` is for the program, and the escape that they end with. What follows an escape to leave is for nobody.
    pub fn scan(&mut self, keys: &Bytes) -> (Bytes, Option<Escape>) {
        // Nearly always there is nothing to find.
        if self.state != State::Tilde && !keys.contains(&b'~') {
            if let Some(last) = keys.last() {
                self.state = after(*last);
            }
            return (keys.clone(), None);
        }
        let (mut passed, mut escape) = (Vec::with_capacity(keys.len() + 1), None);
        for key in keys {
            match (self.state, key) {
                (State::LineStart, b'~') => self.state = State::Tilde,
                (State::Tilde, b'.') => return (passed.into(), Some(Escape::Leave)),
                (State::Tilde, b'd') => return (passed.into(), Some(Escape::Detach)),
                (State::Tilde, b'?') => {
                    escape = Some(Escape::Help);
                    self.state = State::LineStart;
                }
                (State::Tilde, key) => {
                    passed.push(b'~');
                    passed.extend((*key != b'~').then_some(key));
                    self.state = after(*key);
                }
                (State::LineStart | State::InLine, key) => {
                    passed.push(*key);
                    self.state = after(*key);
                }
            }
        }
        (passed.into(), escape)
    }
}

fn after(key: u8) -> State {
    if matches!(key, b'\r' | b'\n') { State::LineStart } else { State::InLine }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What reaches the program of the keys, typed one by one or at once, and the last escape.
    fn typed(keys: &'static str) -> (String, Option<Escape>) {
        let mut escapes = Escapes::default();
        let at_once = escapes.scan(&Bytes::from_static(keys.as_bytes()));
        let (mut passed, mut found) = (Vec::new(), None);
        let mut escapes = Escapes::default();
        for key in keys.bytes() {
            let (key, escape) = escapes.scan(&Bytes::copy_from_slice(&[key]));
            passed.extend_from_slice(&key);
            found = escape.or(found);
            if matches!(escape, Some(Escape::Leave | Escape::Detach)) {
                break;
            }
        }
        assert_eq!((Bytes::from(passed), found), at_once, "{keys:?}");
        (String::from_utf8_lossy(&at_once.0).into_owned(), at_once.1)
    }

    #[test]
    fn escapes_begin_a_line() {
        assert_eq!(typed("~."), (String::new(), Some(Escape::Leave)));
        assert_eq!(typed("ls\r~dmore"), ("ls\r".into(), Some(Escape::Detach)));
        assert_eq!(typed("a\n~?b~?"), ("a\nb~?".into(), Some(Escape::Help)));
        assert_eq!(typed("~?~."), (String::new(), Some(Escape::Leave)));
    }

    #[test]
    fn other_tildes_reach_the_program() {
        for keys in ["cd ~.", "a~d", "~x.", "~\r", "x\r~ ."] {
            assert_eq!(typed(keys), (keys.into(), None));
        }
        assert_eq!(typed("~~."), ("~.".into(), None));
        assert_eq!(typed("~\r~."), ("~\r".into(), Some(Escape::Leave)));
    }
}
