//! The files that a program leaves on the router, on their way to this machine.
//!
//! What must stay true: nothing is written but what was asked for, where it was asked for, whatever the agent says; what
//! exists is replaced only where the user named it; nothing becomes executable unasked; an agent that sends more than a job
//! can have breaks the protocol; a file has its name only when it is whole; and what is acknowledged is there.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hop_proto::limits::{
    MAX_OUTPUT_DEPTH, MAX_OUTPUT_FILES, MAX_OUTPUT_FILES_BYTES, MAX_OUTPUT_FILES_PATH_BYTES,
    MAX_OUTPUT_PATH_BYTES, MAX_OUTPUT_REQUESTS, MAX_OUTPUT_WINDOW_BYTES, OUTPUT_CHUNK_BYTES,
    OUTPUT_WINDOW_BYTES,
};
use hop_proto::output_path;
use hop_proto::v1::{FileInfo, FilePosition, FileProblem, OutputFile};
use serde::{Serialize, Serializer};

use crate::error::Error;
use crate::segments;
use crate::staged_file::{Committed, Place, StagedFile};

/// Bytes after which an acknowledgement is worth its message, as with the outputs.
const ACKNOWLEDGE_EVERY: u64 = OUTPUT_WINDOW_BYTES as u64 / 4;

/// Entries of a list of output files: those that were found, a line for each request that found nothing, one for the request
/// that found too much, and the core.
const MAX_ENTRIES: u32 = (MAX_OUTPUT_FILES + MAX_OUTPUT_REQUESTS + 2) as u32;

/// Bytes in their paths: those of the files, and of each of the others.
const MAX_PATHS_BYTES: usize =
    MAX_OUTPUT_FILES_PATH_BYTES + (MAX_OUTPUT_REQUESTS + 2) * MAX_OUTPUT_PATH_BYTES;

/// Modes of what comes, before the umask.
const FILE_MODE: u32 = 0o666;
const EXECUTABLE_MODE: u32 = 0o777;

/// Bytes in front of a core in which its headers are looked for: 65,535 of the largest kind.
const MAX_HEADERS: u64 = 4 * 1024 * 1024;

/// What to bring back, and where to put it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The path below the program's directory, by the rules of [`output_path`].
    pub remote: Vec<u8>,
    /// Where it goes.
    pub local: Local,
    /// What exists is replaced also where the user named only the directory.
    pub overwrites: bool,
    /// What its owner may execute there may be executed here.
    pub keeps_executability: bool,
}

/// Where the files of a request go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// Into this directory, under the path that they have there, without as many names at its beginning.
    Below {
        /// The directory; empty: the working directory.
        directory: PathBuf,
        /// Names to leave out.
        skip: usize,
    },
    /// To where the user said: for one file its path, or a directory for it; for several their directory.
    Path(PathBuf),
}

/// What the user says of all output files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// See [`Request::overwrites`].
    pub overwrites: bool,
    /// See [`Request::keeps_executability`].
    pub keeps_executability: bool,
    /// The files come to this `hop`, so it must be known where they go.
    pub needs_places: bool,
}

impl Request {
    /// Reads `REMOTE[:LOCAL]`.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn parse(text: &OsStr, policy: Policy) -> Result<Self, Error> {
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
        let names = output_path::names(&remote);
        let local_names = local.unwrap_or_default().split(|byte| *byte == b'/');
        if names.iter().copied().chain(local_names).any(output_path::is_repository) {
            return Err(refuse("nothing is written into .git, because Git executes what is there"));
        }
        if policy.needs_places && local.is_none() && is_several(&names) {
            let directory =
                "files whose names are the router's choice need a directory: PATH:DIR, with . for this one";
            return Err(refuse(directory));
        }
        let local = match local {
            Some(local) => Local::Path(OsStr::from_bytes(local).into()),
            None => Local::Below { directory: PathBuf::new(), skip: 0 },
        };
        let Policy { overwrites, keeps_executability, .. } = policy;
        Ok(Self { remote, local, overwrites, keeps_executability })
    }

    /// Reads all of them.
    ///
    /// # Errors
    /// [`Error::Usage`], also if there are too many.
    pub fn parse_all(texts: &[std::ffi::OsString], policy: Policy) -> Result<Vec<Self>, Error> {
        if texts.len() > MAX_OUTPUT_REQUESTS {
            return Err(Error::Usage(format!("--output can be given {MAX_OUTPUT_REQUESTS} times")));
        }
        texts.iter().map(|text| Self::parse(text, policy)).collect()
    }

    /// Where the file at `path` goes, which this request covers. `None` if it is where the directory should be.
    fn place(&self, path: &[u8]) -> Option<Place> {
        let (asked, names) = (output_path::names(&self.remote), output_path::names(path));
        let below = |directory: &PathBuf, skip: usize| {
            let names = names.get(skip..).filter(|names| !names.is_empty())?;
            Some(Place::below(directory.clone(), names))
        };
        match &self.local {
            Local::Below { directory, skip } => below(directory, *skip),
            Local::Path(local) if self.names(path) => {
                // As cp does it.
                let is_directory = local.as_os_str().as_bytes().ends_with(b"/") || local.is_dir();
                match is_directory {
                    true => below(local, names.len().checked_sub(1)?),
                    false => Some(Place::of(local)),
                }
            }
            Local::Path(local) => {
                // What stands for several files keeps them apart.
                below(local, asked.iter().take_while(|name| !output_path::is_pattern(name)).count())
            }
        }
    }

    /// True if the user has written the whole path, so that no part of it is the router's choice.
    fn names(&self, path: &[u8]) -> bool {
        self.remote == path
    }

    fn mode(&self, is_executable: bool) -> u32 {
        if is_executable && self.keeps_executability { EXECUTABLE_MODE } else { FILE_MODE }
    }
}

/// True if a path stands for files of which the user has not written the names.
fn is_several(names: &[&[u8]]) -> bool {
    names.is_empty() || names.iter().any(|name| output_path::is_pattern(name))
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
    /// Its name begins with a dot, and was not asked for.
    Hidden,
    /// What a newer agent says.
    Other,
    /// There is another file here, which was not named.
    Exists,
    /// The job has it, and no `--output` of this `hop` names it.
    NotWanted,
}

impl Problem {
    /// `None` for no problem; one that this `hop` does not know is the most general one.
    fn of(problem: i32, info: Option<&FileInfo>) -> Option<Self> {
        let is_too_deep = info.is_some_and(|FileInfo { path, .. }| {
            output_path::names(path).len() > MAX_OUTPUT_DEPTH || path.len() > MAX_OUTPUT_PATH_BYTES
        });
        Some(match FileProblem::try_from(problem) {
            Ok(FileProblem::Unspecified) => return None,
            Ok(FileProblem::NotThere) => Self::NotThere,
            Ok(FileProblem::NotAFile) => Self::NotAFile,
            Ok(FileProblem::TooLarge) => Self::TooLarge,
            Ok(FileProblem::TooMany) if is_too_deep => Self::TooDeep,
            Ok(FileProblem::TooMany) => Self::TooMany,
            Ok(FileProblem::Unreadable) => Self::Unreadable,
            Ok(FileProblem::Changed) => Self::Changed,
            Ok(FileProblem::NotOwn) => Self::NotOwn,
            Ok(FileProblem::Hidden) => Self::Hidden,
            Err(_) => Self::Other,
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
            Self::Hidden => f.write_str("its name begins with a dot, and --output does not name it"),
            Self::Other => f.write_str("the router says why, in words that this hop does not know"),
            Self::Exists => f.write_str("there is another file here; --output-overwrite replaces it"),
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
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "path_as_text")]
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

fn path_as_text<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    let text = path.as_ref().map(|path| path.to_string_lossy());
    serializer.serialize_str(&text.unwrap_or_default())
}

/// A file that comes.
struct Coming {
    info: FileInfo,
    /// What there is of it; `None` if nobody wants it.
    to: Option<StagedFile>,
    /// It may take the name of another file.
    replaces: bool,
}

/// Where a file goes, and how.
struct Target {
    place: Place,
    mode: u32,
    replaces: bool,
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
    /// Bytes of all files that were announced, and of their paths.
    bytes: u64,
    path_bytes: usize,
    /// Bytes since the agent was told, holes included, and without them.
    untold: u64,
    untold_data: u64,
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
            bytes: 0,
            path_bytes: 0,
            untold: 0,
            untold_data: 0,
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
        let problem = Problem::of(piece.problem, piece.info.as_ref());
        let OutputFile { file, offset, data, info, .. } = piece;
        // Nobody has taken anything yet of a job that is this hop's own.
        let first = if self.is_own { 0 } else { file };
        let next = *self.next.get_or_insert(FilePosition { file: first, offset: 0 });
        // What is left out is a hole.
        if file != next.file || offset < next.offset {
            return Err(Failure::Agent("an output file does not go on where it was"));
        }
        self.untold_data += data.len() as u64;
        let window = if self.is_own { OUTPUT_WINDOW_BYTES } else { MAX_OUTPUT_WINDOW_BYTES };
        if data.len() > OUTPUT_CHUNK_BYTES || self.untold_data > window.into() {
            return Err(Failure::Agent("more of the output files at a time than it may send"));
        }
        if let Some(info) = info {
            self.begin(file, info, problem)?;
        }
        let coming =
            self.coming.as_ref().ok_or(Failure::Agent("an output file of which nothing is known"))?;
        let size = coming.info.size;
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= size);
        let end = end.ok_or(Failure::Agent("an output file is longer than it should be"))?;
        if let Some(to) = &coming.to {
            to.file().write_all_at(&data, offset).map_err(Error::io("write", to.path()))?;
        }
        if problem.is_some() || end == size {
            // Of a file with a problem nothing came, whatever length it is said to have.
            let bytes = if problem.is_some() { 0 } else { size.saturating_sub(next.offset) };
            self.untold = self.untold.saturating_add(bytes);
            self.next = Some(FilePosition { file: file + 1, offset: 0 });
            self.finish_file(problem)?;
        } else {
            self.untold += end - next.offset;
            self.next = Some(FilePosition { file, offset: end });
        }
        Ok(())
    }

    /// Begins with a file, or goes on with it on another connection.
    fn begin(&mut self, file: u32, info: FileInfo, problem: Option<Problem>) -> Result<(), Failure> {
        if let Some(coming) = &self.coming {
            return if coming.info == info {
                Ok(())
            } else {
                Err(Failure::Agent("an output file has changed"))
            };
        }
        self.count_in(file, &info, problem)?;
        if problem.is_none() && !info.core && !output_path::is_valid(&info.path) {
            return Err(Failure::Agent("the path of an output file leads elsewhere"));
        }
        let core = self.core.as_ref().filter(|_| info.core);
        let target = match (core, problem) {
            (Some(core), _) => Some(Target { place: Place::of(&core.core), mode: FILE_MODE, replaces: true }),
            _ if info.core => None,
            (_, None) => self.request_for(&info).and_then(|request| {
                Some(Target {
                    place: request.place(&info.path)?,
                    mode: request.mode(info.executable),
                    replaces: request.overwrites || request.names(&info.path),
                })
            }),
            // It may be with a directory on the way, and has no place.
            (_, Some(_)) if self.requests.get(info.request as usize).is_some() => {
                self.coming = Some(Coming { info, to: None, replaces: false });
                return Ok(());
            }
            (_, Some(_)) => None,
        };
        if target.is_none() && self.is_own {
            return Err(Failure::Agent("an output file that nobody asked for"));
        }
        let target = target.filter(|_| problem.is_none());
        let replaces = target.as_ref().is_some_and(|target| target.replaces);
        let to = target.map(|target| StagedFile::create(&target.place, target.mode)).transpose()?;
        self.coming = Some(Coming { info, to, replaces });
        Ok(())
    }

    /// Counts a file that is announced.
    fn count_in(&mut self, file: u32, info: &FileInfo, problem: Option<Problem>) -> Result<(), Failure> {
        if info.files > MAX_ENTRIES {
            return Err(Failure::Agent("more output files than a job can have"));
        }
        if file >= info.files || self.count.is_some_and(|count| count != info.files) {
            return Err(Failure::Agent("another number of output files than it says that there are"));
        }
        self.count = Some(info.files);
        self.path_bytes += info.path.len();
        let size = if problem.is_none() { info.size } else { 0 };
        self.bytes = self.bytes.saturating_add(size);
        if self.path_bytes > MAX_PATHS_BYTES || self.bytes > MAX_OUTPUT_FILES_BYTES {
            return Err(Failure::Agent("output files that are longer than a job can have them"));
        }
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
        let Some(Coming { info, to, replaces }) = self.coming.take() else { return Ok(()) };
        let mut fetched = Fetched { path: info.path, file: None, bytes: None, problem, core: None };
        match to {
            Some(content) if problem.is_none() => {
                let place = content.path().to_owned();
                // It may end with a hole.
                content.file().set_len(info.size).map_err(Error::io("write", &place))?;
                if let Some(CorePlace { program, .. }) = self.core.as_ref().filter(|_| info.core) {
                    keep(&CorePlace::program_place(&place), program)?;
                    fetched.core = Some(is_truncated(content.file(), info.size));
                }
                match content.commit(replaces)? {
                    Committed::Stored => (fetched.file, fetched.bytes) = (Some(place), Some(info.size)),
                    Committed::Exists => fetched.problem = Some(Problem::Exists),
                }
            }
            // What came of it has no name.
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
        (self.untold, self.untold_data, self.told, self.tells_again) = (0, 0, self.next, false);
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

/// Writes a program, whole or not at all.
fn keep(place: &Path, program: &[u8]) -> Result<(), Error> {
    let staged = StagedFile::create(&Place::of(place), EXECUTABLE_MODE)?;
    staged.file().write_all_at(program, 0).map_err(Error::io("write", place))?;
    staged.commit(true)?;
    Ok(())
}

/// True if a core of this length ends before what its headers announce: the kernel met its limit, or no room. One without
/// headers has met it there.
fn is_truncated(core: &File, size: u64) -> bool {
    // The headers are first; a core has some for each of its mappings.
    let mut start = vec![0; size.min(MAX_HEADERS) as usize];
    core.read_exact_at(&mut start, 0).is_err() || segments::end(&start).is_none_or(|end| end > size)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn request(text: &str) -> Request {
        Request::parse(text.as_ref(), Policy::default()).unwrap()
    }

    fn info(path: &str, request: u32, size: u64) -> FileInfo {
        FileInfo { path: path.into(), request, size, executable: false, core: false, files: 1 }
    }

    fn piece(offset: u64, data: &'static [u8], info: Option<FileInfo>) -> OutputFile {
        OutputFile { file: 0, offset, data: Bytes::from_static(data), info, problem: 0, uncompressed_size: 0 }
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
            assert_eq!(request(asked).place(path.as_bytes()).unwrap().path(), Path::new(&place), "{asked}");
        }
    }

    #[test]
    fn names_of_the_routers_choice_need_a_directory() {
        let policy = Policy { needs_places: true, ..Policy::default() };
        let refused = |text: &str| Request::parse(text.as_ref(), policy).unwrap_err().to_string();
        for text in ["*", ".", "a/?", "./"] {
            assert!(refused(text).contains("need a directory: PATH:DIR"), "{text}");
            assert!(Request::parse(text.as_ref(), Policy::default()).is_ok(), "{text}");
            assert!(Request::parse(format!("{text}:.").as_ref(), policy).is_ok(), "{text}");
        }
        for text in [".git", "a/.Git/hooks", "hooks:.git/hooks", "x:/somewhere/.git"] {
            assert!(refused(text).contains("nothing is written into .git"), "{text}");
        }
    }

    /// What came of one file of the agent's, and what is in `directory` then.
    fn arrived(asked: Request, sent: FileInfo) -> Result<Fetched, Failure> {
        let mut files = OutputFiles::new(vec![asked], None, true);
        files.take(piece(0, b"new", Some(FileInfo { size: 3, ..sent })))?;
        Ok(files.finish().unwrap().remove(0))
    }

    #[test]
    fn what_exists_is_replaced_where_it_was_named() {
        let directory = tempfile::tempdir().unwrap();
        let (here, makefile) = (directory.path().display(), directory.path().join("Makefile"));
        fs::write(&makefile, "old").unwrap();
        let sent = || info("Makefile", 0, 3);
        let kept = arrived(request(&format!("*:{here}")), sent()).unwrap();
        assert_eq!((kept.problem, kept.file), (Some(Problem::Exists), None));
        assert_eq!(fs::read(&makefile).unwrap(), b"old");
        let replaced = arrived(request(&format!("Makefile:{here}")), sent()).unwrap();
        assert_eq!((replaced.problem, replaced.file), (None, Some(makefile.clone())));
        // With the same content there is nothing to replace.
        assert_eq!(arrived(request(&format!("*:{here}")), sent()).unwrap().problem, None);
        fs::write(&makefile, "old").unwrap();
        let overwrites = Request { overwrites: true, ..request(&format!("*:{here}")) };
        assert_eq!(arrived(overwrites, sent()).unwrap().problem, None);
        assert_eq!(fs::read(&makefile).unwrap(), b"new");
    }

    #[test]
    fn nothing_becomes_executable_unasked() {
        let directory = tempfile::tempdir().unwrap();
        let asked = request(&format!("tool:{}", directory.path().display()));
        for keeps_executability in [false, true] {
            let asked = Request { keeps_executability, ..asked.clone() };
            let file =
                arrived(asked, FileInfo { executable: true, ..info("tool", 0, 3) }).unwrap().file.unwrap();
            let mode = file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o111 != 0, keeps_executability);
        }
    }

    #[test]
    fn no_local_link_leads_a_file_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("here")).unwrap();
        fs::create_dir(at("elsewhere")).unwrap();
        symlink("../elsewhere", at("here/sub")).unwrap();
        let by_path = |asked: &str| request(&format!("{asked}:{}", at("here").display()));
        let below = |asked: &str| Request {
            local: Local::Below { directory: at("here"), skip: 0 },
            ..request(asked)
        };
        for asked in [by_path("."), by_path("*"), below("."), below("sub"), below("sub/x")] {
            let failure = arrived(asked, info("sub/x", 0, 3)).unwrap_err();
            assert!(matches!(failure, Failure::Here(Error::LinkInTheWay { .. })), "{failure:?}");
        }
        assert_eq!(fs::read_dir(at("elsewhere")).unwrap().count(), 0);
    }

    #[test]
    fn an_agent_that_sends_more_than_there_can_be_is_caught() {
        let directory = tempfile::tempdir().unwrap();
        let asked = || vec![request(&format!(".:{}", directory.path().display()))];
        let refused = |sent: FileInfo| {
            let mut files = OutputFiles::new(asked(), None, true);
            match files.take(piece(0, b"", Some(sent))) {
                Err(Failure::Agent(what)) => what,
                other => panic!("{other:?}"),
            }
        };
        let many = |files| FileInfo { files, ..info("a", 0, 0) };
        assert_eq!(refused(many(197_433)), "more output files than a job can have");
        assert_eq!(refused(many(0)), "another number of output files than it says that there are");
        let long = info("a", 0, MAX_OUTPUT_FILES_BYTES + 1);
        assert_eq!(refused(long), "output files that are longer than a job can have them");
        assert_eq!(refused(info(".", 0, 0)), "an output file that nobody asked for");
        assert_eq!(refused(info(".envrc", 0, 0)), "an output file that nobody asked for");
        // All of them together.
        let next = |file, info: FileInfo| OutputFile { file, ..piece(0, b"", Some(info)) };
        let mut files = OutputFiles::new(asked(), None, true);
        let empty = |name: &str| FileInfo { files: 3, ..info(name, 0, 0) };
        files.take(next(0, empty("a"))).unwrap();
        assert!(files.take(next(1, FileInfo { files: 2, ..empty("b") })).is_err(), "one fewer than before");
        let mut files = OutputFiles::new(asked(), None, true);
        let half =
            |name: &str| FileInfo { files: 3, size: MAX_OUTPUT_FILES_BYTES / 2 + 1, ..info(name, 0, 0) };
        files.take(next(0, half("a"))).unwrap();
        files.take(OutputFile { offset: half("a").size, ..piece(0, b"", None) }).unwrap();
        assert!(files.take(next(1, half("b"))).is_err());
        // More than a window of one that nobody has acknowledged.
        let mut files = OutputFiles::new(asked(), None, true);
        let chunk = Bytes::from(vec![7; OUTPUT_CHUNK_BYTES]);
        let sent = (0..).take_while(|number| {
            let info = (*number == 0).then(|| info("a", 0, 1 << 20));
            let offset = number * OUTPUT_CHUNK_BYTES as u64;
            files.take(OutputFile { data: chunk.clone(), ..piece(offset, b"", info) }).is_ok()
        });
        assert_eq!(sent.count() * OUTPUT_CHUNK_BYTES, OUTPUT_WINDOW_BYTES as usize);
        // One that begins behind the first.
        let mut files = OutputFiles::new(asked(), None, true);
        assert!(files.take(next(1, FileInfo { files: 2, ..info("b", 0, 0) })).is_err());
    }

    #[test]
    fn a_problem_of_a_newer_agent_brings_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut files =
            OutputFiles::new(vec![request(&format!("a:{}", directory.path().display()))], None, true);
        files.take(OutputFile { problem: 77, ..piece(0, b"", Some(info("a", 0, 0))) }).unwrap();
        assert_eq!(files.finish().unwrap()[0].problem, Some(Problem::Other));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
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
