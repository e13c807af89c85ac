//! The files that a program leaves on the router, on their way to this machine.
//!
//! What must stay true: nothing is written but what was asked for, where it was asked for, whatever the agent says; a file
//! has its name only when it is whole; and what is acknowledged is there.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hop_proto::limits::{
    MAX_OUTPUT_DEPTH, MAX_OUTPUT_FILES_BYTES, MAX_OUTPUT_PATH_BYTES, MAX_OUTPUT_REQUESTS, OUTPUT_WINDOW_BYTES,
};
use hop_proto::output_path;
use hop_proto::v1::{FileInfo, FilePosition, FileProblem, OutputFile};
use serde::{Serialize, Serializer};
use tempfile::NamedTempFile;

use crate::error::Error;
use crate::segments;

/// Bytes after which an acknowledgement is worth its message, as with the outputs.
const ACKNOWLEDGE_EVERY: u64 = OUTPUT_WINDOW_BYTES as u64 / 4;

/// Bytes in front of a core in which its headers are looked for: 65,535 of the largest kind.
const MAX_HEADERS: u64 = 4 * 1024 * 1024;

/// What to bring back, and where to put it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The path below the program's directory, by the rules of [`output_path`].
    pub remote: Vec<u8>,
    /// Where it goes; `None`: where it is there, seen from here.
    pub local: Option<PathBuf>,
}

impl Request {
    /// Reads `REMOTE[:LOCAL]`.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn parse(text: &OsStr) -> Result<Self, Error> {
        let bytes = text.as_bytes();
        let (remote, local) = match bytes.iter().position(|byte| *byte == b':') {
            Some(colon) => (&bytes[..colon], Some(&bytes[colon + 1..])),
            None => (bytes, None),
        };
        let refuse = |why| Error::Usage(format!("--output {}: {why}", text.to_string_lossy()));
        let remote = output_path::normal(remote).ok_or_else(|| {
            refuse("it must be below the directory in which the program starts, without ..")
        })?;
        if local.is_some_and(<[u8]>::is_empty) {
            return Err(refuse("there is nothing behind the colon"));
        }
        Ok(Self { remote, local: local.map(|local| OsStr::from_bytes(local).into()) })
    }

    /// Reads all of them.
    ///
    /// # Errors
    /// [`Error::Usage`], also if there are too many.
    pub fn parse_all(texts: &[std::ffi::OsString]) -> Result<Vec<Self>, Error> {
        if texts.len() > MAX_OUTPUT_REQUESTS {
            return Err(Error::Usage(format!("--output can be given {MAX_OUTPUT_REQUESTS} times")));
        }
        texts.iter().map(|text| Self::parse(text)).collect()
    }

    /// Where the file at `path` goes, which this request covers.
    fn place(&self, path: &[u8]) -> PathBuf {
        let (asked, names) = (output_path::names(&self.remote), output_path::names(path));
        let below = |names: &[&[u8]]| names.iter().map(|name| OsStr::from_bytes(name)).collect::<PathBuf>();
        let Some(local) = &self.local else { return below(&names) };
        if self.remote == path {
            // As cp does it.
            let is_directory = local.as_os_str().as_bytes().ends_with(b"/") || local.is_dir();
            return if is_directory { local.join(below(&names[names.len() - 1..])) } else { local.clone() };
        }
        // What stands for several files keeps them apart.
        let plain = asked.iter().take_while(|name| !output_path::is_pattern(name)).count();
        local.join(below(&names[plain..]))
    }
}

/// Where a core goes, and beside it the program that it is of.
#[derive(Clone, Debug)]
pub struct CorePlace {
    /// The core's own place.
    pub core: PathBuf,
    /// The program, with all that a debugger wants to know of it.
    pub program: Bytes,
}

impl CorePlace {
    /// Where the program goes.
    pub fn program_place(core: &Path) -> PathBuf {
        let mut place = core.as_os_str().to_owned();
        place.push(".program");
        place.into()
    }
}

/// Why a file was not brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// There was none.
    NotThere,
    /// It was no regular file.
    NotAFile,
    /// It was too long.
    TooLarge,
    /// There were too many.
    TooMany,
    /// It was too many directories deep, or its path too long.
    TooDeep,
    /// The agent may not read it.
    Unreadable,
    /// It was not as it had been.
    Changed,
    /// It was another user's.
    NotOwn,
    /// The job has it, and no `--output` of this `hop` names it.
    NotWanted,
}

impl Problem {
    /// `None` for no problem; one that this `hop` does not know is the most general one.
    fn of(problem: FileProblem, info: Option<&FileInfo>) -> Option<Self> {
        let is_too_deep = info.is_some_and(|FileInfo { path, .. }| {
            output_path::names(path).len() > MAX_OUTPUT_DEPTH || path.len() > MAX_OUTPUT_PATH_BYTES
        });
        Some(match problem {
            FileProblem::Unspecified => return None,
            FileProblem::NotThere => Self::NotThere,
            FileProblem::NotAFile => Self::NotAFile,
            FileProblem::TooLarge => Self::TooLarge,
            FileProblem::TooMany if is_too_deep => Self::TooDeep,
            FileProblem::TooMany => Self::TooMany,
            FileProblem::Unreadable => Self::Unreadable,
            FileProblem::Changed => Self::Changed,
            FileProblem::NotOwn => Self::NotOwn,
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThere => f.write_str("there is no such file"),
            Self::NotAFile => f.write_str("it is not a regular file of the program's directory"),
            Self::TooLarge => {
                write!(f, "with it, the files would be longer than {} MiB", MAX_OUTPUT_FILES_BYTES >> 20)
            }
            Self::TooMany => f.write_str("there are too many files"),
            Self::TooDeep => write!(
                f,
                "it is more than {MAX_OUTPUT_DEPTH} directories deep, or its path is longer than {MAX_OUTPUT_PATH_BYTES} bytes"
            ),
            Self::Unreadable => f.write_str("the router cannot read it"),
            Self::Changed => f.write_str("it changed after the program had ended"),
            Self::NotOwn => f.write_str("it does not belong to the program's user"),
            Self::NotWanted => f.write_str("no --output names it"),
        }
    }
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fetched {
    /// Where it was below the program's directory, or what was asked for.
    #[serde(serialize_with = "as_text")]
    pub path: Vec<u8>,
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Its length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Why it was not brought back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// It is the core; true if the kernel wrote less of it than it would have.
    #[serde(rename = "truncated", skip_serializing_if = "Option::is_none")]
    pub core: Option<bool>,
}

fn as_text<S: Serializer>(path: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(path))
}

/// A file that comes.
struct Coming {
    info: FileInfo,
    /// What there is of it, and where it goes; `None` if nobody wants it.
    to: Option<(NamedTempFile, PathBuf)>,
}

/// What is wrong with a piece, or with this machine.
#[derive(Debug)]
pub enum Failure {
    /// The agent broke the protocol.
    Agent(&'static str),
    /// Something here.
    Here(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Here(error)
    }
}

/// All output files of a job.
pub struct OutputFiles {
    requests: Vec<Request>,
    core: Option<CorePlace>,
    /// This `hop` started the job, which has no other files than it asked for.
    is_own: bool,
    /// Where the next piece belongs, once that is known.
    next: Option<FilePosition>,
    coming: Option<Coming>,
    /// How many there are, once that is known.
    count: Option<u32>,
    fetched: Vec<Fetched>,
    /// Bytes since the agent was told.
    untold: u64,
    told: Option<FilePosition>,
    tells_again: bool,
}

impl OutputFiles {
    /// Those that `requests` name, of a job that this `hop` starts or only attaches to, and its core.
    pub fn new(requests: Vec<Request>, core: Option<CorePlace>, is_own: bool) -> Self {
        Self {
            requests,
            core,
            is_own,
            next: None,
            coming: None,
            count: None,
            fetched: Vec::new(),
            untold: 0,
            told: None,
            tells_again: false,
        }
    }

    /// Whether a place is known for any file.
    pub fn are_wanted(&self) -> bool {
        !self.requests.is_empty() || self.core.is_some()
    }

    /// The first piece has come.
    pub fn have_begun(&self) -> bool {
        self.next.is_some()
    }

    /// Everything before this is here.
    pub fn position(&self) -> Option<FilePosition> {
        self.next
    }

    /// Takes what the agent sent.
    ///
    /// # Errors
    /// What is wrong with it, or a file cannot be written.
    pub fn take(&mut self, piece: OutputFile) -> Result<(), Failure> {
        let problem = Problem::of(piece.problem(), piece.info.as_ref());
        let OutputFile { file, offset, data, info, .. } = piece;
        let next = *self.next.get_or_insert(FilePosition { file, offset: 0 });
        // What is left out is a hole.
        if file != next.file || offset < next.offset {
            return Err(Failure::Agent("an output file does not go on where it was"));
        }
        if let Some(info) = info {
            self.begin(info, problem)?;
        }
        let coming =
            self.coming.as_ref().ok_or(Failure::Agent("an output file of which nothing is known"))?;
        let size = coming.info.size;
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= size);
        let end = end.ok_or(Failure::Agent("an output file is longer than it should be"))?;
        if let Some((to, place)) = &coming.to {
            to.as_file().write_all_at(&data, offset).map_err(Error::io("write", place))?;
        }
        if problem.is_some() || end == size {
            self.untold += size.saturating_sub(next.offset);
            self.next = Some(FilePosition { file: file + 1, offset: 0 });
            self.finish_file(problem)?;
        } else {
            self.untold += end - next.offset;
            self.next = Some(FilePosition { file, offset: end });
        }
        Ok(())
    }

    /// Begins with a file, or goes on with it on another connection.
    fn begin(&mut self, info: FileInfo, problem: Option<Problem>) -> Result<(), Failure> {
        if let Some(coming) = &self.coming {
            return if coming.info == info {
                Ok(())
            } else {
                Err(Failure::Agent("an output file has changed"))
            };
        }
        self.count = Some(info.files);
        if problem.is_none() && !output_path::is_valid(&info.path) {
            return Err(Failure::Agent("the path of an output file leads elsewhere"));
        }
        let place = match (&self.core, problem) {
            (Some(core), _) if info.core => Some(core.core.clone()),
            _ if info.core => None,
            (_, None) => self.request_for(&info).map(|request| request.place(&info.path)),
            // It may be with a directory on the way.
            (_, Some(_)) => self.requests.get(info.request as usize).map(|_| PathBuf::new()),
        };
        if place.is_none() && self.is_own {
            return Err(Failure::Agent("an output file that nobody asked for"));
        }
        let place = place.filter(|_| problem.is_none());
        let to = place.map(|place| Ok::<_, Error>((make(&place, info.executable)?, place))).transpose()?;
        self.coming = Some(Coming { info, to });
        Ok(())
    }

    fn request_for(&self, info: &FileInfo) -> Option<&Request> {
        let covers = |request: &&Request| output_path::covers(&request.remote, &info.path);
        if self.is_own {
            return self.requests.get(info.request as usize).filter(covers);
        }
        self.requests.iter().find(covers)
    }

    fn finish_file(&mut self, problem: Option<Problem>) -> Result<(), Error> {
        let Some(Coming { info, to }) = self.coming.take() else { return Ok(()) };
        let mut fetched = Fetched { path: info.path, file: None, bytes: None, problem, core: None };
        match to {
            Some((content, place)) if problem.is_none() => {
                // It may end with a hole.
                content.as_file().set_len(info.size).map_err(Error::io("write", &place))?;
                if let Some(CorePlace { program, .. }) = self.core.as_ref().filter(|_| info.core) {
                    keep(&CorePlace::program_place(&place), program)?;
                    fetched.core = Some(is_truncated(content.path(), info.size));
                }
                content.persist(&place).map_err(|error| Error::io("write", &place)(error.error))?;
                (fetched.file, fetched.bytes) = (Some(place), Some(info.size));
            }
            // What came of it goes with its temporary file.
            Some(_) => {}
            None => fetched.problem = Some(problem.unwrap_or(Problem::NotWanted)),
        }
        self.fetched.push(fetched);
        Ok(())
    }

    /// Whether there is a next acknowledgement.
    pub fn ack_is_due(&self) -> bool {
        let has_all =
            self.count.is_some_and(|count| self.next == Some(FilePosition { file: count, offset: 0 }));
        let is_news = self.next.is_some() && self.told != self.next;
        self.tells_again && self.next.is_some() || is_news && (has_all || self.untold >= ACKNOWLEDGE_EVERY)
    }

    /// The next acknowledgement that is worth its message. It counts as told.
    pub fn next_ack(&mut self) -> Option<FilePosition> {
        if !self.ack_is_due() {
            return None;
        }
        (self.untold, self.told, self.tells_again) = (0, self.next, false);
        self.next
    }

    /// What the agent was told may be lost: it will be told again.
    pub fn tell_again(&mut self) {
        self.tells_again = true;
    }

    /// What became of all files.
    ///
    /// # Errors
    /// Some have not come.
    pub fn finish(mut self) -> Result<Vec<Fetched>, &'static str> {
        if self.next.map(|next| next.file) != self.count || self.coming.is_some() {
            return Err("output files are missing");
        }
        // The agent does not know what somebody hopes for who only attaches.
        for Request { remote, .. } in self.requests.iter().filter(|_| !self.is_own) {
            if !self.fetched.iter().any(|fetched| output_path::covers(remote, &fetched.path)) {
                self.fetched.push(Fetched {
                    path: remote.clone(),
                    file: None,
                    bytes: None,
                    problem: Some(Problem::NotThere),
                    core: None,
                });
            }
        }
        Ok(self.fetched)
    }

    /// What became of the files that have come, where more will not.
    pub fn give_up(self) -> Vec<Fetched> {
        self.fetched
    }
}

/// A new file beside its place, without its name.
fn make(place: &Path, is_executable: bool) -> Result<NamedTempFile, Error> {
    let parent = match place.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    // As any other program makes it: the umask takes off what others may not.
    let mode = if is_executable { 0o777 } else { 0o666 };
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(".hop-").permissions(Permissions::from_mode(mode));
    builder.tempfile_in(parent).map_err(Error::io("create a file in", parent))
}

/// Writes a program, whole or not at all.
fn keep(place: &Path, program: &[u8]) -> Result<(), Error> {
    let file = make(place, true)?;
    file.as_file().write_all_at(program, 0).map_err(Error::io("write", place))?;
    file.persist(place).map_err(|error| Error::io("write", place)(error.error))?;
    Ok(())
}

/// True if a core of this length ends before what its headers announce: the kernel met its limit, or no room. One without
/// headers has met it there.
fn is_truncated(core: &Path, size: u64) -> bool {
    let mut start = Vec::new();
    // The headers are first; a core has some for each of its mappings.
    let read = File::open(core).and_then(|core| core.take(MAX_HEADERS).read_to_end(&mut start));
    read.is_err() || segments::end(&start).is_none_or(|end| end > size)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(text: &str) -> Request {
        Request::parse(text.as_ref()).unwrap()
    }

    fn info(path: &str, request: u32, size: u64) -> FileInfo {
        FileInfo { path: path.into(), request, size, executable: false, core: false, files: 1 }
    }

    fn piece(offset: u64, data: &'static [u8], info: Option<FileInfo>) -> OutputFile {
        OutputFile { file: 0, offset, data: Bytes::from_static(data), info, problem: 0, unpacked_size: 0 }
    }

    #[test]
    fn a_file_goes_where_cp_would_put_it() {
        let directory = tempfile::tempdir().unwrap();
        let there = directory.path().display();
        for (asked, path, place) in [
            ("a/b", "a/b", "a/b".to_owned()),
            ("a/b:c", "a/b", "c".to_owned()),
            ("a/b:c/", "a/b", "c/b".to_owned()),
            (&format!("a/b:{there}"), "a/b", format!("{there}/b")),
            ("a:c", "a/b/d", "c/b/d".to_owned()),
            (".:c", "a/b", "c/a/b".to_owned()),
            ("a/*:c", "a/b", "c/b".to_owned()),
            ("*/b:c", "a/b", "c/a/b".to_owned()),
            ("a:b:c", "a", "b:c".to_owned()),
        ] {
            assert_eq!(request(asked).place(path.as_bytes()), Path::new(&place), "{asked}");
        }
    }

    #[test]
    fn nothing_is_written_that_nobody_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let wanted = || vec![request(&format!("a:{}/a", directory.path().display()))];
        for bad in [
            info("b", 0, 1),
            info("a/../../b", 0, 1),
            info("/etc/passwd", 0, 1),
            info("a", 1, 1),
            FileInfo { core: true, ..info("a", 0, 1) },
        ] {
            let mut files = OutputFiles::new(wanted(), None, true);
            let taken = files.take(piece(0, b"x", Some(bad.clone())));
            assert!(matches!(taken, Err(Failure::Agent(_))), "{bad:?}");
        }
        for (offset, data, known) in [(1, &b"x"[..], false), (0, b"too long", true), (u64::MAX, b"x", true)] {
            let mut files = OutputFiles::new(wanted(), None, true);
            assert!(files.take(piece(offset, data, known.then(|| info("a", 0, 3)))).is_err());
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_has_its_name_when_it_is_whole_and_is_acknowledged_then() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("new/a");
        let mut files = OutputFiles::new(vec![request(&format!("a:{}", place.display()))], None, true);
        files.take(piece(0, b"one ", Some(info("a", 0, 1000)))).unwrap();
        assert!(!place.exists() && !files.ack_is_due());
        // On another connection: it is told what was told before, and goes on; then it ends with a hole.
        files.tell_again();
        let at = |file, offset| Some(FilePosition { file, offset });
        assert_eq!([files.next_ack(), files.next_ack()], [at(0, 4), None]);
        files.take(piece(4, b"two", Some(info("a", 0, 1000)))).unwrap();
        files.take(piece(1000, b"", None)).unwrap();
        assert_eq!(fs::read(&place).unwrap(), [&b"one two"[..], &[0; 993]].concat());
        assert_eq!([files.next_ack(), files.next_ack()], [at(1, 0), None]);
        let fetched = files.finish().unwrap();
        assert_eq!((&fetched[0].file, fetched[0].bytes), (&Some(place), Some(1000)));
        assert_eq!(fs::read_dir(directory.path().join("new")).unwrap().count(), 1);
    }

    #[test]
    fn what_is_left_of_a_file_that_does_not_come_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let wanted = || vec![request(&format!("a:{}/a", directory.path().display()))];
        let mut files = OutputFiles::new(wanted(), None, true);
        files.take(piece(0, b"one", Some(info("a", 0, 10)))).unwrap();
        let changed = OutputFile { problem: FileProblem::Changed.into(), ..piece(3, b"", None) };
        files.take(changed).unwrap();
        assert_eq!(files.finish().unwrap()[0].problem, Some(Problem::Changed));
        let mut files = OutputFiles::new(wanted(), None, true);
        files.take(piece(0, b"one", Some(info("a", 0, 10)))).unwrap();
        assert!(files.finish().is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
