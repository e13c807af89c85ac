//! What a program is started with: its arguments and its environment, with the job's directory where its mark stands.
//!
//! What must stay true: what comes out has a bound, however much a mark is replaced: that of the kernel itself (execve(2)), which
//! is asked before any room is made.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::process::{Resource, getrlimit};

/// Bytes of one argument or variable, with the zero byte at its end (MAX_ARG_STRLEN, linux/binfmts.h).
const MAX_ARGUMENT_BYTES: usize = 128 * 1024;

/// Bytes of all of them: a quarter of the stack, but so many at least, and so many at most (get_arg_pages, fs/exec.c).
const MIN_BYTES: usize = 128 * 1024;
const MAX_BYTES: usize = 6 * 1024 * 1024;

/// Why a program cannot be started with these arguments.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLong {
    /// One is too long.
    #[error("argument list too long: an argument or variable has {bytes} bytes, and Linux takes {} at most", MAX_ARGUMENT_BYTES - 1)]
    One {
        /// Its length, the job's directory in it.
        bytes: usize,
    },
    /// All together are.
    #[error(
        "argument list too long: with the environment it has more than {limit} bytes, which is what Linux takes at most"
    )]
    All {
        /// What Linux takes.
        limit: usize,
    },
}

/// Makes arguments and variables, as long as they are not too long.
pub struct Arguments<'a> {
    mark: &'a [u8],
    directory: &'a [u8],
    limit: usize,
    left: usize,
}

impl<'a> Arguments<'a> {
    /// Those in which `directory` comes wherever `mark` stands; nowhere, if that is empty.
    pub fn new(mark: &'a [u8], directory: &'a OsStr) -> Self {
        let stack = getrlimit(Resource::Stack).current.and_then(|stack| usize::try_from(stack).ok());
        let limit = stack.map_or(MAX_BYTES, |stack| (stack / 4).clamp(MIN_BYTES, MAX_BYTES));
        Self { mark, directory: directory.as_bytes(), limit, left: limit }
    }

    /// The next argument.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn argument(&mut self, text: &OsStr) -> Result<OsString, TooLong> {
        self.take(self.length(text.as_bytes()))?;
        Ok(self.replaced(text))
    }

    /// The next variable: its name, and its value, in which the mark is replaced.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn variable(&mut self, name: &OsStr, value: &OsStr) -> Result<(OsString, OsString), TooLong> {
        self.take(name.len() + 1 + self.length(value.as_bytes()))?;
        Ok((name.to_owned(), self.replaced(value)))
    }

    /// Counts a variable in which nothing is replaced.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn count_variable(&mut self, name: &OsStr, value: &OsStr) -> Result<(), TooLong> {
        self.take(name.len() + 1 + value.len())
    }

    /// Counts one of so many bytes, with the zero byte and the pointer that it has on the stack.
    fn take(&mut self, bytes: usize) -> Result<(), TooLong> {
        if bytes >= MAX_ARGUMENT_BYTES {
            return Err(TooLong::One { bytes });
        }
        let taken = bytes + 1 + size_of::<usize>();
        self.left = self.left.checked_sub(taken).ok_or(TooLong::All { limit: self.limit })?;
        Ok(())
    }

    /// How long a text is when its marks are replaced.
    fn length(&self, text: &[u8]) -> usize {
        let parts = self.parts(text);
        parts.map(|part| part.map_or(self.directory.len(), <[u8]>::len)).fold(0, usize::saturating_add)
    }

    fn replaced(&self, text: &OsStr) -> OsString {
        let text = text.as_bytes();
        let mut replaced = Vec::with_capacity(self.length(text));
        self.parts(text).for_each(|part| replaced.extend_from_slice(part.unwrap_or(self.directory)));
        OsString::from_vec(replaced)
    }

    /// A text in parts: what stays, and `None` for each mark.
    fn parts<'t>(&self, text: &'t [u8]) -> impl Iterator<Item = Option<&'t [u8]>> {
        let mark = self.mark;
        let mut rest = text;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            if !mark.is_empty() && rest.starts_with(mark) {
                rest = &rest[mark.len()..];
                return Some(None);
            }
            let is_mark = |window: &[u8]| window == mark;
            let next = (!mark.is_empty()).then(|| rest.windows(mark.len()).position(is_mark)).flatten();
            let (part, after) = rest.split_at(next.unwrap_or(rest.len()));
            rest = after;
            Some(Some(part))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MARK: &[u8] = b"@a-mark-of-jobs@";

    fn arguments(directory: &str) -> Arguments<'_> {
        Arguments::new(MARK, OsStr::new(directory))
    }

    fn argument(text: &str) -> OsString {
        arguments("/dir").argument(OsStr::new(text)).unwrap()
    }

    #[test]
    fn a_mark_is_replaced_wherever_it_stands() {
        let mark = std::str::from_utf8(MARK).unwrap();
        for (text, expected) in [
            (String::new(), ""),
            ("x".into(), "x"),
            (mark.into(), "/dir"),
            (format!("x={mark}{mark}/y:@a-mark-of-@a-mark-of-jobs@"), "x=/dir/dir/y:@a-mark-of-/dir"),
            (mark[..15].into(), "@a-mark-of-jobs"),
        ] {
            assert_eq!(argument(&text), expected, "{text}");
        }
        let mut without = Arguments::new(b"", OsStr::new("/dir"));
        assert_eq!(without.argument(OsStr::new(mark)).unwrap(), mark);
        let variable = arguments("/dir").variable(OsStr::new(mark), OsStr::new(mark)).unwrap();
        assert_eq!(variable, (mark.into(), "/dir".into()), "not in a name");
    }

    #[test]
    fn what_comes_out_has_the_bounds_of_execve() {
        // Each mark becomes 250 times as long.
        let directory = "d".repeat(250 * MARK.len());
        let marks = |count: usize| OsString::from_vec(MARK.repeat(count));
        let mut arguments = arguments(&directory);
        assert_eq!(arguments.argument(&marks(33)), Err(TooLong::One { bytes: 33 * directory.len() }));
        let error = loop {
            match arguments.argument(&marks(32)) {
                Ok(argument) => assert_eq!(argument.len(), 32 * directory.len()),
                Err(error) => break error,
            }
        };
        assert_eq!(error, TooLong::All { limit: arguments.limit });
        let one = |bytes: usize| self::arguments("").argument(OsStr::new(&"x".repeat(bytes))).is_ok();
        assert!(one(MAX_ARGUMENT_BYTES - 1) && !one(MAX_ARGUMENT_BYTES));
        let variable =
            self::arguments("").variable(OsStr::new("A"), OsStr::new(&"x".repeat(MAX_ARGUMENT_BYTES - 2)));
        assert!(variable.is_err(), "NAME=value is one string");
    }

    #[test]
    fn the_kernel_takes_what_is_taken_here() {
        let mut arguments = arguments("");
        let argument = OsString::from("x".repeat(MAX_ARGUMENT_BYTES - 1));
        let all: Vec<OsString> = std::iter::from_fn(|| arguments.argument(&argument).ok()).collect();
        let mut command = std::process::Command::new("/bin/true");
        // What is left of the last one is the environment's and the path's.
        let status = command.env_clear().args(&all[1..]).status().unwrap();
        assert!(status.success());
        assert!(
            std::process::Command::new("/bin/true").arg("x".repeat(MAX_ARGUMENT_BYTES)).status().is_err()
        );
    }
}
