//! The files that a program leaves on the router, on their way to this machine.
//!
//! **Invariants:** nothing is written but what was asked for, where it was asked for, whatever the agent says; what
//! exists is replaced only where the user named it; nothing becomes executable unasked; an agent that sends more than
//! a job can have breaks the protocol; a file has its name only when it is whole; and what is acknowledged is there.

mod fetched;
mod request;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hop_proto::limits::{
    MAX_OUTPUT_FILES, MAX_OUTPUT_FILES_BYTES, MAX_OUTPUT_FILES_PATH_BYTES, MAX_OUTPUT_PATH_BYTES,
    MAX_OUTPUT_REQUESTS, MAX_OUTPUT_WINDOW_BYTES, OUTPUT_CHUNK_BYTES, OUTPUT_WINDOW_BYTES,
};
use hop_proto::output_path;
use hop_proto::v1::{FileInfo, FilePosition, OutputFile};

pub use self::fetched::{Fetched, Problem};
use self::request::{EXECUTABLE_MODE, FILE_MODE};
pub use self::request::{Local, Policy, Request};
use super::Error;
use super::staged_file::{Committed, Place, StagedFile};
use hop_formats::segments;

/// Bytes after which an acknowledgement is worth its message, as with the outputs.
const ACKNOWLEDGE_EVERY: u64 = OUTPUT_WINDOW_BYTES as u64 / 4;

/// Entries of a list of output files: those that were found, a line for each request that found nothing, one for the request
/// that found too much, and the core.
const MAX_ENTRIES: u32 = (MAX_OUTPUT_FILES + MAX_OUTPUT_REQUESTS + 2) as u32;

/// Bytes in their paths: those of the files, and of each of the others.
const MAX_PATHS_BYTES: usize =
    MAX_OUTPUT_FILES_PATH_BYTES + (MAX_OUTPUT_REQUESTS + 2) * MAX_OUTPUT_PATH_BYTES;

/// Bytes in front of a core in which its headers are looked for: 65,535 of the largest kind.
const MAX_HEADERS: u64 = 4 * 1024 * 1024;

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
    /// Bytes since the last acknowledgement, with holes and without them.
    untold: u64,
    untold_data: u64,
    told: Option<FilePosition>,
    resends_acks: bool,
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
            resends_acks: false,
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

    /// Takes a piece that the agent sent.
    ///
    /// # Errors
    /// The piece breaks the protocol, or a file cannot be written.
    pub fn take(&mut self, piece: OutputFile) -> Result<(), Failure> {
        let problem = Problem::of(piece.problem, piece.info.as_ref());
        let OutputFile { file, offset, data, info, .. } = piece;
        // No client has received a file yet of a job that this `hop` has started.
        let first = if self.is_own { 0 } else { file };
        let next = *self.next.get_or_insert(FilePosition { file: first, offset: 0 });
        // A gap between offsets is a hole in the file.
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
            // No data of a file with a problem has arrived, whatever length the agent reports.
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
        self.resends_acks && self.next.is_some() || is_news && (has_all || self.untold >= ACKNOWLEDGE_EVERY)
    }

    /// The next acknowledgement that is worth its message. It counts as told.
    pub fn next_ack(&mut self) -> Option<FilePosition> {
        if !self.ack_is_due() {
            return None;
        }
        (self.untold, self.untold_data, self.told, self.resends_acks) = (0, 0, self.next, false);
        self.next
    }

    /// What the agent was told may be lost: it will be told again.
    pub fn resend_acks(&mut self) {
        self.resends_acks = true;
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

/// Writes a program to its place, completely or not at all.
fn keep(place: &Path, program: &[u8]) -> Result<(), Error> {
    let staged = StagedFile::create(&Place::of(place), EXECUTABLE_MODE)?;
    staged.file().write_all_at(program, 0).map_err(Error::io("write", place))?;
    staged.commit(true)?;
    Ok(())
}

/// True if a core file is shorter than its headers announce: the kernel reached a size limit, or found no space. So is
/// one without complete headers.
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

    use hop_proto::v1::FileProblem;

    use super::*;

    fn request(text: &str) -> Request {
        Request::parse(text.as_ref(), Policy::default(), Path::new("")).unwrap()
    }

    fn info(path: &str, request: u32, size: u64) -> FileInfo {
        FileInfo { path: path.into(), request, size, executable: false, core: false, files: 1 }
    }

    fn piece(offset: u64, data: &'static [u8], info: Option<FileInfo>) -> OutputFile {
        OutputFile { file: 0, offset, data: Bytes::from_static(data), info, problem: 0, uncompressed_size: 0 }
    }

    /// What came of one file of the agent's, and what is in `directory` then.
    fn on_uploaded(asked: Request, sent: FileInfo) -> Result<Fetched, Failure> {
        let mut files = OutputFiles::new(vec![asked], None, true);
        files.take(piece(0, b"new", Some(FileInfo { size: 3, ..sent })))?;
        Ok(files.finish().unwrap().remove(0))
    }

    #[test]
    fn named_files_are_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (here, makefile) = (directory.path().display(), directory.path().join("Makefile"));
        fs::write(&makefile, "old").unwrap();
        let sent = || info("Makefile", 0, 3);
        let kept = on_uploaded(request(&format!("*:{here}")), sent()).unwrap();
        assert_eq!((kept.problem, kept.file), (Some(Problem::Exists), None));
        assert_eq!(fs::read(&makefile).unwrap(), b"old");
        let replaced = on_uploaded(request(&format!("Makefile:{here}")), sent()).unwrap();
        assert_eq!((replaced.problem, replaced.file), (None, Some(makefile.clone())));
        // With the same content there is nothing to replace.
        assert_eq!(on_uploaded(request(&format!("*:{here}")), sent()).unwrap().problem, None);
        fs::write(&makefile, "old").unwrap();
        let overwrites = Request { overwrites: true, ..request(&format!("*:{here}")) };
        assert_eq!(on_uploaded(overwrites, sent()).unwrap().problem, None);
        assert_eq!(fs::read(&makefile).unwrap(), b"new");
    }

    #[test]
    fn artifacts_are_not_executable_by_default() {
        let directory = tempfile::tempdir().unwrap();
        let asked = request(&format!("tool:{}", directory.path().display()));
        for keeps_executability in [false, true] {
            let asked = Request { keeps_executability, ..asked.clone() };
            let file = on_uploaded(asked, FileInfo { executable: true, ..info("tool", 0, 3) })
                .unwrap()
                .file
                .unwrap();
            let mode = file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o111 != 0, keeps_executability);
        }
    }

    #[test]
    fn artifacts_follow_no_local_link() {
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
            let failure = on_uploaded(asked, info("sub/x", 0, 3)).unwrap_err();
            assert!(matches!(failure, Failure::Here(Error::LinkInTheWay { .. })), "{failure:?}");
        }
        assert_eq!(fs::read_dir(at("elsewhere")).unwrap().count(), 0);
    }

    #[test]
    fn excess_artifacts_break_the_protocol() {
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
    fn unknown_problem_writes_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut files =
            OutputFiles::new(vec![request(&format!("a:{}", directory.path().display()))], None, true);
        files.take(OutputFile { problem: 77, ..piece(0, b"", Some(info("a", 0, 0))) }).unwrap();
        assert_eq!(files.finish().unwrap()[0].problem, Some(Problem::Other));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn unrequested_artifacts_are_not_written() {
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
    fn whole_file_is_named_and_acknowledged() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("new/a");
        let mut files = OutputFiles::new(vec![request(&format!("a:{}", place.display()))], None, true);
        files.take(piece(0, b"one ", Some(info("a", 0, 1000)))).unwrap();
        assert!(!place.exists() && !files.ack_is_due());
        // On another connection, hop repeats its acknowledgement, and the file continues; then it ends with a hole.
        files.resend_acks();
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
    fn incomplete_file_leaves_nothing() {
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
