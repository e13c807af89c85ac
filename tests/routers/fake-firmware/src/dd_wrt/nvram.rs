//! DD-WRT's nvram: variables in a copy in RAM, which `commit` writes to the flash partition `nvram`.
//!
//! The partition has `FLSH`, a length and a checksum of the rest, then `NAME=VALUE` texts, each with a zero byte behind it. After a
//! loss of power during a commit the checksum is wrong: the next boot uses the defaults, as on a real router.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::process::ExitCode;

use crate::console::print;
use crate::pid1::mounts;

/// The size of the partition in bytes, with the header.
const SPACE: usize = 32 << 10;
const HEADER: usize = 12;
const MAGIC: &[u8; 4] = b"FLSH";
/// The copy in RAM.
const COPY: &str = "/tmp/nvram/nvram";
/// The lock file of the copy.
const LOCK: &str = "/tmp/nvram/lock";
/// The variables of an empty nvram: lines `NAME=VALUE`, in which `\n` is a line feed and `\\` a backslash.
const DEFAULTS: &str = "/nvram.defaults";

/// Variables by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// The value of a variable; empty if there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Sets a variable; false, and no change, if it does not fit.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        let before = self.0.insert(name.to_owned(), value.to_owned());
        if self.size() <= SPACE {
            return true;
        }
        match before {
            Some(before) => self.0.insert(name.to_owned(), before),
            None => self.0.remove(name),
        };
        false
    }

    /// The size on the flash, in bytes.
    fn size(&self) -> usize {
        HEADER + self.0.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>()
    }

    fn texts(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}={value}\0")).collect()
    }

    fn of_texts(texts: &str) -> Self {
        let split = texts.split('\0').filter_map(|text| text.split_once('='));
        Self(split.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The content of the partition.
    fn image(&self) -> Vec<u8> {
        let texts = self.texts();
        let mut image = MAGIC.to_vec();
        image.extend((texts.len() as u32).to_le_bytes());
        image.extend(checksum(texts.as_bytes()).to_le_bytes());
        image.extend(texts.as_bytes());
        image
    }

    /// Reads the content of the partition; none if it is empty or incomplete.
    fn of_image(image: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?));
        let texts = image.get(HEADER..HEADER.checked_add(word(4)? as usize)?)?;
        if !image.starts_with(MAGIC) || word(8)? != checksum(texts) {
            return None;
        }
        Some(Self::of_texts(&String::from_utf8_lossy(texts)))
    }

    fn of_defaults(text: &str) -> Self {
        let mut variables = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let mut plain = String::new();
            let mut characters = value.chars();
            while let Some(c) = characters.next() {
                match c {
                    '\\' => match characters.next() {
                        Some('n') => plain.push('\n'),
                        Some(other) => plain.push(other),
                        None => plain.push('\\'),
                    },
                    c => plain.push(c),
                }
            }
            variables.set(name, &plain);
        }
        variables
    }
}

/// FNV-1a: it detects an incomplete commit, not an attack.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn device() -> String {
    format!("/dev/mtdblock{}", mounts::partition("nvram").unwrap_or(2))
}

/// Fills the copy in RAM at boot. True if the flash was unusable, and the defaults were taken.
pub fn load() -> io::Result<bool> {
    let mut image = Vec::new();
    let read = File::open(device()).and_then(|flash| flash.take(SPACE as u64).read_to_end(&mut image));
    let variables = read.ok().and_then(|_| Variables::of_image(&image));
    let empty = variables.is_none();
    let defaults = || Variables::of_defaults(&fs::read_to_string(DEFAULTS).unwrap_or_default());
    write(&variables.unwrap_or_else(defaults))?;
    Ok(empty)
}

/// The copy in RAM.
pub fn read() -> Variables {
    Variables::of_texts(&fs::read_to_string(COPY).unwrap_or_default())
}

/// Replaces the copy in RAM.
pub fn write(variables: &Variables) -> io::Result<()> {
    let new = format!("{COPY}.new");
    fs::write(&new, variables.texts())?;
    fs::rename(new, COPY)
}

/// Writes the copy to the flash.
pub fn commit(variables: &Variables) -> io::Result<()> {
    let mut flash = OpenOptions::new().write(true).open(device())?;
    flash.write_all(&variables.image())?;
    flash.sync_all()
}

/// `nvram VERB [ARGUMENT] ...`: any number of verbs, each recognized by its beginning. The exit code is always 0.
pub fn main(arguments: &[String]) -> ExitCode {
    let lock = File::create(LOCK);
    if let Ok(lock) = &lock {
        let _ = lock.lock();
    }
    let mut variables = read();
    let before = variables.clone();
    let mut words = arguments.iter().map(String::as_str);
    if arguments.is_empty() {
        let _ =
            writeln!(io::stderr(), "usage: nvram [get name] [set name=value] [unset name] [show] [commit]");
    }
    while let Some(verb) = words.next() {
        match Verb::of(verb) {
            Some(Verb::Get) => {
                if let Some(value) = words.next().and_then(|name| variables.0.get(name)) {
                    print(&format!("{value}\n"));
                }
            }
            Some(Verb::Set) => {
                if let Some((name, value)) = words.next().and_then(|word| word.split_once('='))
                    && !variables.set(name, value)
                {
                    let _ = writeln!(io::stderr(), "nvram: no space for {name}");
                }
            }
            Some(Verb::Unset) => {
                words.next().and_then(|name| variables.0.remove(name));
            }
            Some(Verb::Commit) => {
                if let Err(error) = commit(&variables) {
                    let _ = writeln!(io::stderr(), "nvram: {error}");
                }
            }
            Some(Verb::Show) => {
                print(
                    &variables.0.iter().map(|(name, value)| format!("{name}={value}\n")).collect::<String>(),
                );
                let size = variables.size();
                let _ =
                    writeln!(io::stderr(), "size: {size} bytes ({} left)", SPACE as isize - size as isize);
            }
            None => {}
        }
    }
    if variables != before
        && let Err(error) = write(&variables)
    {
        let _ = writeln!(io::stderr(), "nvram: {error}");
    }
    ExitCode::SUCCESS
}

enum Verb {
    Get,
    Set,
    Unset,
    Commit,
    Show,
}

impl Verb {
    /// As in the original, every argument that begins with a verb is that verb.
    fn of(word: &str) -> Option<Self> {
        [
            ("getall", Self::Show),
            ("get", Self::Get),
            ("set", Self::Set),
            ("unset", Self::Unset),
            ("commit", Self::Commit),
            ("show", Self::Show),
        ]
        .into_iter()
        .find(|(verb, _)| word.starts_with(verb))
        .map(|(_, verb)| verb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_read_and_incomplete_ones_detected() {
        let mut variables = Variables::default();
        assert!(variables.set("rc_startup", "a=1\nb &"));
        assert!(variables.set("empty", ""));
        let mut image = variables.image();
        assert_eq!(image.len(), variables.size());
        let mut flash = image.clone();
        flash.resize(SPACE, 0xff);
        assert_eq!(Variables::of_image(&flash), Some(variables));
        for torn in [HEADER, image.len() / 2, image.len() - 1] {
            let mut flash = image[..torn].to_vec();
            flash.resize(SPACE, 0xff);
            assert_eq!(Variables::of_image(&flash), None, "torn at {torn}");
        }
        image[5] = 0xff;
        assert_eq!(Variables::of_image(&image), None);
        assert_eq!(Variables::of_image(&[0xff; SPACE]), None);
    }

    #[test]
    fn variables_that_do_not_fit_change_nothing() {
        let mut variables = Variables::default();
        assert!(variables.set("a", "1"));
        assert!(!variables.set("a", &"x".repeat(SPACE)));
        assert_eq!(variables.get("a"), "1");
        assert!(!variables.set("b", &"x".repeat(SPACE)));
        assert_eq!(variables.0.len(), 1);
    }

    #[test]
    fn defaults_have_line_feeds() {
        let variables = Variables::of_defaults("keys=one\\ntwo\nback=a\\\\n\n");
        assert_eq!((variables.get("keys"), variables.get("back")), ("one\ntwo", "a\\n"));
    }

    #[test]
    fn verbs_match_by_prefix() {
        assert!(matches!(Verb::of("getall"), Some(Verb::Show)));
        assert!(matches!(Verb::of("get"), Some(Verb::Get)));
        assert!(matches!(Verb::of("committed"), Some(Verb::Commit)));
        assert!(Verb::of("sh").is_none());
    }
}
