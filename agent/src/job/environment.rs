//! The arguments and the environment of a program, with the path of the job's directory instead of its placeholder.
//!
//! **Invariants:** however often the placeholder occurs, the result stays within the kernel's own limits (execve(2)),
//! which are checked before any memory is allocated.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::process::{Resource, getrlimit};

use crate::job::spec::Spec;
use crate::job::workspace::JobDirectory;
use crate::system::host;

/// PATH of programs if the agent itself has none: the one that OpenWrt's init sets.
const DEFAULT_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Smallest GOMEMLIMIT in bytes: with less, a Go program does little else than collect garbage. Go's heap starts at
/// this size in any case.
const MIN_GO_MEMORY: u64 = 4 * 1024 * 1024;

/// The variable that names a job's directory. The next agent finds by it the processes that this one left.
pub const JOB_DIRECTORY: &str = "HOP_JOB_DIR";

/// Bytes of one argument or variable, with the zero byte at its end (MAX_ARG_STRLEN, linux/binfmts.h).
const MAX_ARGUMENT_BYTES: usize = 128 * 1024;

/// Bounds of the bytes of all arguments and variables: a quarter of the stack limit, within these two (get_arg_pages,
/// fs/exec.c).
const MIN_BYTES: usize = 128 * 1024;
const MAX_BYTES: usize = 6 * 1024 * 1024;

/// The arguments exceed a limit of the kernel.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLong {
    /// One argument or variable is too long.
    #[error("argument list too long: an argument or variable has {bytes} bytes, and Linux takes {} at most", MAX_ARGUMENT_BYTES - 1)]
    One {
        /// Its length, after the replacement of placeholders.
        bytes: usize,
    },
    /// All arguments and variables together are too long.
    #[error(
        "argument list too long: with the environment it has more than {limit} bytes, which is what Linux takes at most"
    )]
    All {
        /// Bytes that Linux accepts.
        limit: usize,
    },
}

/// Builds arguments and variables, and counts their bytes against the kernel's limits.
pub struct Arguments<'a> {
    mark: &'a [u8],
    directory: &'a [u8],
    limit: usize,
    left: usize,
}

impl<'a> Arguments<'a> {
    /// Replaces `mark` with `directory` wherever it occurs; an empty `mark` is never replaced.
    pub fn new(mark: &'a [u8], directory: &'a OsStr) -> Self {
        let stack = getrlimit(Resource::Stack).current.and_then(|stack| usize::try_from(stack).ok());
        let limit = stack.map_or(MAX_BYTES, |stack| (stack / 4).clamp(MIN_BYTES, MAX_BYTES));
        Self { mark, directory: directory.as_bytes(), limit, left: limit }
    }

    /// Builds the next argument.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn argument(&mut self, text: &OsStr) -> Result<OsString, TooLong> {
        self.take(self.length(text.as_bytes()))?;
        Ok(self.replaced(text))
    }

    /// Builds the next variable: its name, and its value with the mark replaced.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn variable(&mut self, name: &OsStr, value: &OsStr) -> Result<(OsString, OsString), TooLong> {
        self.take(name.len() + 1 + self.length(value.as_bytes()))?;
        Ok((name.to_owned(), self.replaced(value)))
    }

    /// Counts a variable without replacing anything in it.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn count_variable(&mut self, name: &OsStr, value: &OsStr) -> Result<(), TooLong> {
        self.take(name.len() + 1 + value.len())
    }

    /// Counts an argument of this length, with the zero byte and the pointer that it needs on the stack.
    fn take(&mut self, bytes: usize) -> Result<(), TooLong> {
        if bytes >= MAX_ARGUMENT_BYTES {
            return Err(TooLong::One { bytes });
        }
        let taken = bytes + 1 + size_of::<usize>();
        self.left = self.left.checked_sub(taken).ok_or(TooLong::All { limit: self.limit })?;
        Ok(())
    }

    /// Length of a text after the replacement of its marks.
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

    /// Splits a text at its marks, each of which is `None`.
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

/// The environment of a program: variables that every program gets, then those of the user, of which the last one of a
/// name wins. GOMEMLIMIT makes Go collect garbage before it has used up `memory`, the bytes that the program may have
/// (pkg.go.dev/runtime). GOMAXPROCS is the value that Go would find by itself; but since 1.25, without it, Go checks
/// the value every second, and wakes the router for that.
///
/// A program inherits nothing else: procd sets an LD_PRELOAD for its services that breaks the programs that they start.
pub(super) fn environment(
    spec: &Spec,
    directory: &JobDirectory,
    home: Option<&str>,
    memory: u64,
    arguments: &mut Arguments<'_>,
) -> Result<Vec<(OsString, OsString)>, TooLong> {
    let inherited = |name: &str, default: &str| std::env::var_os(name).unwrap_or_else(|| default.into());
    let mut env: Vec<(OsString, OsString)> = vec![
        ("PATH".into(), inherited("PATH", DEFAULT_PATH)),
        ("HOME".into(), home.map_or_else(|| inherited("HOME", "/"), OsString::from)),
        ("TMPDIR".into(), directory.work().into()),
        ("GOMEMLIMIT".into(), memory.max(MIN_GO_MEMORY).to_string().into()),
        ("GOMAXPROCS".into(), host::processors().to_string().into()),
        (JOB_DIRECTORY.into(), directory.path().into()),
    ];
    for (name, value) in &env {
        arguments.count_variable(name, value)?;
    }
    for (name, value) in &spec.env {
        env.push(arguments.variable(name, value)?);
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::job::workspace::Names;

    const MARK: &[u8] = b"@a-mark-of-jobs@";

    fn arguments(directory: &str) -> Arguments<'_> {
        Arguments::new(MARK, OsStr::new(directory))
    }

    fn argument(text: &str) -> OsString {
        arguments("/dir").argument(OsStr::new(text)).unwrap()
    }

    #[test]
    fn placeholder_is_replaced_everywhere() {
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
    fn expanded_arguments_respect_execve_limits() {
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
    fn kernel_accepts_largest_valid_arguments() {
        let mut arguments = arguments("");
        let argument = OsString::from("x".repeat(MAX_ARGUMENT_BYTES - 1));
        let all: Vec<OsString> = std::iter::from_fn(|| arguments.argument(&argument).ok()).collect();
        let mut command = std::process::Command::new("/bin/true");
        // The environment and the path get the space of the argument that is left out.
        let status = command.env_clear().args(&all[1..]).status().unwrap();
        assert!(status.success());
        assert!(
            std::process::Command::new("/bin/true").arg("x".repeat(MAX_ARGUMENT_BYTES)).status().is_err()
        );
    }

    #[test]
    fn user_environment_overrides_agent_defaults() {
        let given =
            [("TMPDIR", "/mine"), ("A", "1"), ("A", "2"), ("B", "x=@the-work-of-it@/a:@the-work-of-it@")];
        let env = given.map(|(name, value)| (name.into(), value.into())).into();
        let spec = Spec { env, workdir_placeholder: b"@the-work-of-it@".to_vec(), ..Spec::of_test(b"") };
        let parent = tempfile::tempdir().unwrap();
        let directory = JobDirectory::create(parent.path(), &Names::default()).unwrap();
        let work = directory.work();
        let environment = |spec: &Spec, home, memory| {
            let mut arguments = Arguments::new(&spec.workdir_placeholder, work.as_os_str());
            environment(spec, &directory, home, memory, &mut arguments).unwrap()
        };
        let env = environment(&spec, Some("/home"), 9_000_000);
        let get = |name: &str| env.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.to_str());
        assert_eq!(get("TMPDIR"), Some(Some("/mine")));
        assert_eq!(get("A"), Some(Some("2")));
        let located = format!("x={}/a:{}", work.display(), work.display());
        assert_eq!(get("B"), Some(Some(&*located)));
        assert_eq!((get("GOMEMLIMIT"), get("HOME")), (Some(Some("9000000")), Some(Some("/home"))));
        let stat = std::fs::read_to_string("/proc/stat").unwrap();
        let is_processor = |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| !rest.starts_with(' '));
        let processors = stat.lines().filter(is_processor).count().to_string();
        assert_eq!(get("GOMAXPROCS"), Some(Some(&*processors)));
        assert_eq!(get(JOB_DIRECTORY), Some(directory.path().to_str()));
        let starved = environment(&Spec::of_test(b""), None, 0);
        assert!(starved.contains(&("GOMEMLIMIT".into(), "4194304".into())));
        assert!(get("PATH").is_some() && get("LD_PRELOAD").is_none());
    }
}
