//! The list of authorized controllers, in the syntax of sshd's `authorized_keys`: one key on each line.
//!
//! ```text
//! # my desk
//! SHA256:0123…ef me@desk
//! replaces="SHA256:4567…ab" SHA256:89ab…cd me@desk
//! ```
//!
//! Options may precede a key: `name` or `name="value"`, separated by commas, without spaces outside quotes. A name may
//! follow it, for readers and for the log. `replaces` is left by a key rotation that is not finished: the key may
//! remove that other one from the list. Every other option restricts its key in a way that this agent does not know,
//! and so makes the line void.
//!
//! **Invariants:** a malformed line invalidates only itself, and the log says so once. A list that others could have
//! written authorizes nobody ([`crate::access::safe_path`]). The agent reads the list at each handshake and call, so
//! that an edit takes effect at once; it changes the list under a lock, and by rename.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use hop_proto::identity::Fingerprint;
use hop_proto::tls::Authorized;

use crate::access::directory_lock::DirectoryLock;
use crate::access::safe_path;

/// Maximum size of a list in bytes. A key takes 80 bytes, so these are 800 controllers; a larger list would be an
/// accident that takes memory.
const MAX_LIST_BYTES: u64 = 64 * 1024;

/// Maximum length of a line in bytes.
const MAX_LINE_BYTES: usize = 1024;

/// Maximum length of a name in characters.
const MAX_NAME_CHARS: usize = 64;

/// Maximum number of malformed lines that the log names: a file that is no list at all must not fill it.
const MAX_COMPLAINTS: usize = 8;

/// The option of a key that may remove another one from the list.
const REPLACES: &str = "replaces";

/// A key on the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The fingerprint of the key.
    pub fingerprint: Fingerprint,
    /// The printable name of the key in the list; empty if it has none.
    pub name: String,
    /// The key that this one will replace.
    pub replaces: Option<Fingerprint>,
}

/// Errors in a line of the list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The line has too many bytes.
    #[error("it is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// The line is not UTF-8.
    #[error("it is not text")]
    NotText,
    /// The line has no valid key.
    #[error("its key is not SHA256: and 64 hexadecimal digits")]
    NoKey,
    /// The text before the key is not a list of options.
    #[error("its options are not name or name=\"value\" with commas between them")]
    Malformed,
    /// An option restricts the key in a way that this agent does not know.
    #[error("this agent does not know its option {0}")]
    UnknownOption(String),
}

/// Errors of reading or changing the list.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The list does not exist, or others could have written it.
    #[error(transparent)]
    Unsafe(#[from] safe_path::Error),
    /// The list cannot be read or written.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// The action that failed, as a verb.
        action: &'static str,
        /// The list, or the file that would replace it.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The file is too large for a list.
    #[error("{} is larger than {MAX_LIST_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// The list is locked.
    #[error(transparent)]
    Locked(#[from] crate::access::directory_lock::Error),
    /// The key is not on the list, so its controller can change nothing.
    #[error("the key is not on the list any more")]
    NotListed,
}

/// Metadata of the list that differs between two contents, without reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The file with the list.
#[derive(Debug)]
pub struct AuthorizedKeys {
    path: PathBuf,
    /// The problems that were last logged.
    complaints: Mutex<Vec<String>>,
}

impl AuthorizedKeys {
    /// The list in `path`. If the file does not exist, nobody may connect.
    pub fn new(path: PathBuf) -> Self {
        Self { path, complaints: Mutex::default() }
    }

    /// The keys in the list, in order. Logs the problems of the list, once.
    ///
    /// # Errors
    /// [`Error`]; nobody may connect then.
    pub fn read(&self) -> Result<Vec<Key>, Error> {
        let content = self.content();
        let (keys, complaints) = match &content {
            Ok(content) => {
                let (keys, broken) = parse(content);
                let say = |(number, error)| format!("line {number}: {error}");
                (keys, broken.into_iter().map(say).collect())
            }
            Err(error) => (Vec::new(), vec![error.to_string()]),
        };
        self.complain(complaints);
        content.map(|_| keys)
    }

    /// The name of a key in the list, for the log; `None` if the key is not there or has no name.
    pub fn name(&self, fingerprint: &Fingerprint) -> Option<String> {
        let key = self.read().ok()?.into_iter().find(|key| key.fingerprint == *fingerprint)?;
        (!key.name.is_empty()).then_some(key.name)
    }

    /// The current metadata of the list; `None` if the file does not exist.
    pub fn stamp(&self) -> Option<Stamp> {
        let metadata = fs::metadata(&self.path).ok()?;
        Some(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Authorizes `next` in addition to `own`, as its successor. Does nothing if `next` is on the list already.
    ///
    /// # Errors
    /// [`Error::NotListed`] if `own` is not on the list; the list cannot be locked, read or written.
    pub async fn add_successor(&self, own: Fingerprint, next: Fingerprint) -> Result<(), Error> {
        let _lock = DirectoryLock::take(&self.path).await?;
        let content = self.content()?;
        let (keys, _) = parse(&content);
        if keys.iter().any(|key| key.fingerprint == next) {
            return Ok(());
        }
        let name = keys.into_iter().find(|key| key.fingerprint == own).ok_or(Error::NotListed)?.name;
        let line = format!("{REPLACES}=\"{own}\" {next} {name}");
        let mut lines: Vec<&[u8]> = lines(&content).collect();
        lines.push(line.trim_end().as_bytes());
        self.write(&lines)
    }

    /// Removes from the list the key that `own` replaces. Returns that key; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::NotListed`] if `own` is not on the list; the list cannot be locked, read or written.
    pub async fn retire_predecessor(&self, own: Fingerprint) -> Result<Option<Fingerprint>, Error> {
        let _lock = DirectoryLock::take(&self.path).await?;
        let content = self.content()?;
        let (keys, _) = parse(&content);
        let own = keys.into_iter().find(|key| key.fingerprint == own).ok_or(Error::NotListed)?;
        let Some(predecessor) = own.replaces else { return Ok(None) };
        let line = format!("{} {}", own.fingerprint, own.name);
        let is = |line: &[u8], fingerprint| matches!(parse_line(line), Ok(Some(key)) if key.fingerprint == fingerprint);
        let mut kept = Vec::new();
        for old in lines(&content).filter(|line| !is(line, predecessor)) {
            kept.push(if is(old, own.fingerprint) { line.trim_end().as_bytes() } else { old });
        }
        self.write(&kept)?;
        Ok(Some(predecessor))
    }

    fn content(&self) -> Result<Vec<u8>, Error> {
        let mut content = Vec::new();
        let read = safe_path::open(&self.path)?.take(MAX_LIST_BYTES + 1).read_to_end(&mut content);
        read.map_err(|source| Error::Io { action: "read", path: self.path.clone(), source })?;
        if content.len() as u64 > MAX_LIST_BYTES {
            return Err(Error::TooLarge(self.path.clone()));
        }
        Ok(content)
    }

    /// Replaces the list. If the router loses power meanwhile, it has either the old list or the new one.
    fn write(&self, lines: &[&[u8]]) -> Result<(), Error> {
        let path = with_extension(&self.path, "new");
        let failed = |source| Error::Io { action: "write", path: path.clone(), source };
        // An agent that was killed may have left this file. This agent has the lock.
        let _ = fs::remove_file(&path);
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            for line in lines {
                file.write_all(line)?;
                file.write_all(b"\n")?;
            }
            file.sync_all()?;
            fs::rename(&path, &self.path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written.map_err(failed)
    }

    /// Logs the problems, unless they are those that were last logged.
    fn complain(&self, complaints: Vec<String>) {
        let mut said = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if *said == complaints {
            return;
        }
        for complaint in &complaints {
            tracing::warn!(path = %self.path.display(), %complaint, "the list of authorized keys has a problem");
        }
        *said = complaints;
    }
}

impl Authorized for AuthorizedKeys {
    fn is_authorized(&self, fingerprint: &Fingerprint) -> bool {
        // `read` has logged why the list cannot be read.
        self.read().is_ok_and(|keys| keys.iter().any(|key| key.fingerprint == *fingerprint))
    }
}

/// The path `path` with `extension` appended to its file name.
fn with_extension(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// Parses a list. Returns its keys, and the first malformed lines with their errors; lines are counted from 1.
pub fn parse(content: &[u8]) -> (Vec<Key>, Vec<(usize, LineError)>) {
    let (mut keys, mut broken) = (Vec::new(), Vec::new());
    for (index, line) in lines(content).enumerate() {
        match parse_line(line) {
            Ok(key) => keys.extend(key),
            Err(error) if broken.len() < MAX_COMPLAINTS => broken.push((index + 1, error)),
            Err(_) => {}
        }
    }
    (keys, broken)
}

/// The lines of a list, without line ends.
fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut lines: VecDeque<_> = content.split(|byte| *byte == b'\n').collect();
    if lines.back().is_some_and(|last| last.is_empty()) {
        lines.pop_back();
    }
    lines.into_iter()
}

/// Parses a line; `None` if it is empty or a comment.
fn parse_line(line: &[u8]) -> Result<Option<Key>, LineError> {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    if line.len() > MAX_LINE_BYTES {
        return Err(LineError::TooLong);
    }
    let line = std::str::from_utf8(line).map_err(|_| LineError::NotText)?;
    let (options, rest) = if line.starts_with("SHA256:") { ("", line) } else { split_options(line)? };
    let replaces = parse_options(options)?;
    let rest = rest.trim_ascii_start();
    let (key, name) = rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""));
    let fingerprint = key.parse().map_err(|_| LineError::NoKey)?;
    Ok(Some(Key { fingerprint, name: printable(name.trim()), replaces }))
}

/// Splits a line into its options, which end at the first space outside quotes, and the rest.
fn split_options(line: &str) -> Result<(&str, &str), LineError> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (index, byte) in line.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b' ' | b'\t' if !is_quoted => return Ok(line.split_at(index)),
            _ => {}
        }
    }
    // A line without such a space has no options, but a malformed key.
    Err(if is_quoted { LineError::Malformed } else { LineError::NoKey })
}

/// Parses options. Returns the key that this one replaces.
fn parse_options(mut options: &str) -> Result<Option<Fingerprint>, LineError> {
    let mut replaces = None;
    while !options.is_empty() {
        let end = options.find(['=', ',']).unwrap_or(options.len());
        let (name, rest) = options.split_at(end);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || !name.chars().all(is_name) {
            // Most likely a fingerprint with too few digits.
            return Err(if name.contains(':') { LineError::NoKey } else { LineError::Malformed });
        }
        let (value, rest) = match rest.strip_prefix('=') {
            Some(rest) => parse_value(rest).map(|(value, rest)| (Some(value), rest))?,
            None => (None, rest),
        };
        match (name, value) {
            (REPLACES, Some(value)) if replaces.is_none() => {
                replaces = Some(value.parse().map_err(|_| LineError::Malformed)?);
            }
            (REPLACES, _) => return Err(LineError::Malformed),
            _ => return Err(LineError::UnknownOption(name.to_owned())),
        }
        options = match rest.strip_prefix(',') {
            Some("") => return Err(LineError::Malformed),
            Some(rest) => rest,
            None if rest.is_empty() => rest,
            None => return Err(LineError::Malformed),
        };
    }
    Ok(replaces)
}

/// Parses a value in quotes, in which a backslash escapes a quote or a backslash. Returns it, and the rest.
fn parse_value(text: &str) -> Result<(String, &str), LineError> {
    let text = text.strip_prefix('"').ok_or(LineError::Malformed)?;
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[index + 1..])),
            '\\' => value.push(characters.next().ok_or(LineError::Malformed)?.1),
            other => value.push(other),
        }
    }
    Err(LineError::Malformed)
}

/// Makes a name printable for terminals and logs.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).take(MAX_NAME_CHARS).collect()
}

impl fmt::Display for Key {
    /// For the log: the name of the key, if it has one, and its fingerprint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            return self.fingerprint.fmt(f);
        }
        write!(f, "{} ({})", self.name, self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn fingerprint(digit: char) -> Fingerprint {
        format!("SHA256:{}", digit.to_string().repeat(64)).parse().unwrap()
    }

    /// A list in a directory of its own.
    fn list(content: &str) -> (tempfile::TempDir, AuthorizedKeys) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("authorized");
        fs::write(&path, content).unwrap();
        (dir, AuthorizedKeys::new(path))
    }

    #[test]
    fn edits_take_effect_at_once() {
        let (dir, keys) = list("");
        let (one, two) = (fingerprint('1'), fingerprint('2'));
        fs::remove_file(&keys.path).unwrap();
        assert!(!keys.is_authorized(&one), "no file, nobody");
        fs::write(&keys.path, format!("# my desk\n{one} me@desk\n")).unwrap();
        assert!(keys.is_authorized(&one) && !keys.is_authorized(&two));
        assert_eq!(keys.name(&one).as_deref(), Some("me@desk"));
        let stamp = keys.stamp();
        fs::write(dir.path().join("other"), format!("{two}\n")).unwrap();
        fs::rename(dir.path().join("other"), &keys.path).unwrap();
        assert!(!keys.is_authorized(&one) && keys.is_authorized(&two));
        assert_ne!(keys.stamp(), stamp);
    }

    #[test]
    fn bad_line_invalidates_only_itself() {
        let (one, two) = (fingerprint('1'), fingerprint('2'));
        let digits = "3".repeat(64);
        let long = "x".repeat(MAX_LINE_BYTES);
        let unknown = |name: &str| LineError::UnknownOption(name.into());
        for (bad, error) in [
            ("nonsense".to_owned(), LineError::NoKey),
            ("SHA256:33 short".to_owned(), LineError::NoKey),
            (format!("sha256:{digits} lower case"), LineError::NoKey),
            (format!("from=\"10.0.0.0/8\" SHA256:{digits}"), unknown("from")),
            (format!("until=\"20301231\",user=\"nobody\" SHA256:{digits}"), unknown("until")),
            (format!("user=\"a b\\\" c\" SHA256:{digits}"), unknown("user")),
            (format!("restrict SHA256:{digits}"), unknown("restrict")),
            (format!("user=\"nobody SHA256:{digits}"), LineError::Malformed),
            (format!("user=nobody SHA256:{digits}"), LineError::Malformed),
            (format!(",, SHA256:{digits}"), LineError::Malformed),
            (format!("replaces=\"SHA256:1\" SHA256:{digits}"), LineError::Malformed),
            (format!("replaces=\"{one}\", SHA256:{digits}"), LineError::Malformed),
            (format!("SHA256:{digits} {long}"), LineError::TooLong),
        ] {
            let (keys, broken) = parse(format!("{one}\n{bad}\n\n  {two}\tsecond one \r\n").as_bytes());
            let names: Vec<_> = keys.iter().map(|key| (key.fingerprint, key.name.as_str())).collect();
            assert_eq!(names, [(one, ""), (two, "second one")], "{bad}");
            assert_eq!(broken, [(2, error)], "{bad}");
        }
        let (keys, broken) = parse(&[one.to_string().as_bytes(), b"\n\xff\xfe\n"].concat());
        assert_eq!((keys.len(), broken), (1, vec![(2, LineError::NotText)]));
    }

    #[test]
    fn names_are_printable_and_short() {
        let one = fingerprint('1');
        let (keys, _) = parse(format!("{one} \u{1b}[31mred{}\n", "x".repeat(100)).as_bytes());
        assert!(keys[0].name.starts_with("?[31mred"), "{:?}", keys[0].name);
        assert_eq!(keys[0].name.chars().count(), MAX_NAME_CHARS);
    }

    #[test]
    fn unsafe_or_endless_lists_authorize_nobody() {
        let one = fingerprint('1');
        let (_dir, keys) = list(&format!("{one}\n"));
        fs::set_permissions(&keys.path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(!keys.is_authorized(&one));
        assert_eq!(keys.complaints.lock().unwrap().len(), 1, "and the log says why");
        fs::set_permissions(&keys.path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(keys.is_authorized(&one));
        fs::write(&keys.path, format!("{one}\n").repeat(1000)).unwrap();
        assert!(matches!(keys.read(), Err(Error::TooLarge(_))));
    }

    #[tokio::test]
    async fn successor_key_replaces_predecessor() {
        let (one, two, three) = (fingerprint('1'), fingerprint('2'), fingerprint('3'));
        let (dir, keys) = list(&format!("# desks\n{one} me@desk\nnonsense\n{three}"));
        assert!(matches!(keys.add_successor(two, fingerprint('4')).await, Err(Error::NotListed)));
        for _ in 0..2 {
            keys.add_successor(one, two).await.unwrap();
            assert!(keys.is_authorized(&one) && keys.is_authorized(&two) && keys.is_authorized(&three));
        }
        // Only the successor of a key can remove it.
        for other in [one, three] {
            assert_eq!(keys.retire_predecessor(other).await.unwrap(), None);
        }
        assert_eq!(keys.retire_predecessor(two).await.unwrap(), Some(one));
        assert_eq!(keys.retire_predecessor(two).await.unwrap(), None);
        let text = fs::read_to_string(&keys.path).unwrap();
        assert_eq!(text, format!("# desks\nnonsense\n{three}\n{two} me@desk\n"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "neither lock nor draft is left");
    }

    #[tokio::test]
    async fn concurrent_changes_lose_nothing() {
        let (_dir, keys) = list(&format!("{}\n{}\n", fingerprint('1'), fingerprint('2')));
        let (first, second) = tokio::join!(
            keys.add_successor(fingerprint('1'), fingerprint('3')),
            keys.add_successor(fingerprint('2'), fingerprint('4'))
        );
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(keys.read().unwrap().len(), 4);
    }
}
