//! The artifacts of a program: which files they are, and their content piece by piece.
//!
//! A program that runs as another user may have created anything in its working directory: a link to the password file,
//! a hard link to a file of the agent's.
//!
//! **Invariants:** the agent reads only regular files below the program's own directory, on its own file system and of
//! its own user, whatever else is there; a file arrives as it was when the program ended, or is reported; and of its
//! content, only the bytes that are being sent are in memory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hop_proto::limits::{MAX_OUTPUT_FILES_BYTES, OUTPUT_CHUNK_BYTES};
use hop_proto::output_path;
use rustix::fs::{Mode, OFlags, SeekFrom, openat, seek};
use rustix::io::Errno;

use crate::files::output_search::{Entry, Full, Search};

/// Why the agent does not send a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// There is no such file.
    NotThere,
    /// It is not a regular file, or not where it seems to be.
    NotAFile,
    /// It is larger than the rest of the limit for all files.
    TooLarge,
    /// There is too much to search, or it is too deep.
    TooMany,
    /// The kernel does not allow reading it.
    Unreadable,
    /// It has changed since the program ended.
    Changed,
    /// It belongs to another user than the one as whom the program ran.
    NotOwn,
    /// Its name begins with a dot, and was not requested.
    Hidden,
}

/// A position in all files: the number of a file, and an offset in it. The end is after the last file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Number of the file, counted from 0.
    pub file: u32,
    /// Offset in the file, in bytes.
    pub offset: u64,
}

/// Metadata of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Path below the program's directory.
    pub path: Vec<u8>,
    /// Index of the request that it belongs to.
    pub request: u32,
    /// Size in bytes.
    pub size: u64,
    /// Its owner may execute it.
    pub is_executable: bool,
    /// It is the core dump of the program.
    pub is_core: bool,
    /// Number of all files.
    pub files: u32,
}

/// A piece of a file.
#[derive(Debug)]
pub struct Piece {
    /// Its position.
    pub at: Position,
    /// Its bytes.
    pub data: Bytes,
    /// Metadata of the file, if this connection has not sent it yet.
    pub info: Option<Info>,
    /// The reason why nothing more of this file follows.
    pub problem: Option<Problem>,
}

/// The artifacts of a program.
#[derive(Debug)]
pub struct ArtifactSet {
    /// The directory in which the program worked; `None` if it is gone.
    directory: Option<File>,
    entries: Vec<Entry>,
    /// The core dump, which has been unlinked.
    core: Option<File>,
    /// Maximum number of bytes in flight.
    window: u64,
}

/// The progress of one connection.
#[derive(Debug, Default)]
pub struct Cursor {
    /// Position of the next piece.
    pub at: Position,
    /// The file whose metadata the controller was last sent.
    told: Option<u32>,
    open: Option<(u32, File)>,
}

impl Cursor {
    /// Begins at this position.
    pub fn new(at: Position) -> Self {
        Self { at, ..Self::default() }
    }

    /// Closes the open file.
    pub fn close(&mut self) {
        self.open = None;
    }

    fn next_file(&mut self) {
        self.at = Position { file: self.at.file + 1, offset: 0 };
        self.open = None;
    }
}

impl ArtifactSet {
    /// Searches the directory in which a program worked that has ended, as user `owner` if not as the agent's, for the
    /// requested files. At most `window` bytes will be in flight.
    pub fn find(work: &Path, requests: &[Vec<u8>], owner: Option<u32>, window: u64) -> Self {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // The program may have removed it.
        let directory = rustix::fs::open(work, flags, Mode::empty()).ok().map(File::from);
        let metadata = directory.as_ref().and_then(|directory| directory.metadata().ok());
        let mut search = Search {
            entries: Vec::new(),
            device: metadata.map_or(0, |metadata| metadata.dev()),
            owner,
            bytes: 0,
            path_bytes: 0,
            names: 0,
        };
        for (request, path) in requests.iter().enumerate() {
            let names = output_path::names(path);
            let look = |directory| search.look_in(directory, &mut Vec::new(), &names, request as u32, 0);
            match directory.as_ref().map_or(Ok(false), look) {
                Ok(true) => {}
                Ok(false) => search.report(path, request as u32, Problem::NotThere),
                // The rest is not searched.
                Err(Full) => {
                    search.entries.push(Entry {
                        problem: Some(Problem::TooMany),
                        ..search.entry(path, request as u32)
                    });
                    break;
                }
            }
        }
        Self { directory, entries: search.entries, core: None, window }
    }

    /// Adds the core dump that the kernel wrote under `name`, or the reason why there is none.
    pub fn add_core(&mut self, name: &[u8], core: Result<File, Problem>) {
        let start = self.bytes();
        let mut entry = Entry {
            path: name.to_vec(),
            request: 0,
            start,
            size: 0,
            inode: 0,
            is_executable: false,
            is_core: true,
            problem: None,
        };
        match core.and_then(|core| Ok((core.metadata().map_err(|_| Problem::Unreadable)?, core))) {
            Ok((metadata, _)) if metadata.len() > MAX_OUTPUT_FILES_BYTES.saturating_sub(start) => {
                entry.problem = Some(Problem::TooLarge);
            }
            Ok((metadata, core)) => {
                (entry.size, entry.inode) = (metadata.len(), metadata.ino());
                self.core = Some(core);
            }
            Err(problem) => entry.problem = Some(problem),
        }
        self.entries.push(entry);
    }

    /// The position after the last file.
    pub fn end(&self) -> Position {
        Position { file: self.entries.len() as u32, offset: 0 }
    }

    /// Size of all files in bytes.
    fn bytes(&self) -> u64 {
        self.entries.last().map_or(0, |last| last.start + last.size)
    }

    /// Number of bytes before a position, which need not exist.
    fn bytes_before(&self, at: Position) -> u64 {
        match self.entries.get(at.file as usize) {
            Some(entry) => entry.start + at.offset.min(entry.size),
            None => self.bytes(),
        }
    }

    /// The next piece for a controller that has stored everything before `stored`; `None` if there is none now.
    pub fn next(&self, cursor: &mut Cursor, stored: Position) -> Option<Piece> {
        let Position { file, offset } = cursor.at;
        let entry = self.entries.get(file as usize)?;
        let in_flight = self.bytes_before(cursor.at).saturating_sub(self.bytes_before(stored));
        let credit = self.window.saturating_sub(in_flight);
        if credit == 0 {
            return None;
        }
        let info = (cursor.told.replace(file) != Some(file)).then(|| Info {
            path: entry.path.clone(),
            request: entry.request,
            size: entry.size,
            is_executable: entry.is_executable,
            is_core: entry.is_core,
            files: self.entries.len() as u32,
        });
        let most = credit.min(OUTPUT_CHUNK_BYTES as u64);
        let read = match entry.problem {
            Some(problem) => Err(problem),
            None => self.read(cursor, entry, offset.min(entry.size), most),
        };
        let (offset, data, problem) = match read {
            Ok((offset, data)) => (offset, data, None),
            Err(problem) => (offset, Bytes::new(), Some(problem)),
        };
        let at = Position { file, offset };
        cursor.at.offset = offset + data.len() as u64;
        if problem.is_some() || cursor.at.offset >= entry.size {
            cursor.next_file();
        }
        Some(Piece { at, data, info, problem })
    }

    /// Reads a file at `offset`, or after the hole there. Returns the offset, and at most `most` bytes.
    fn read(
        &self,
        cursor: &mut Cursor,
        entry: &Entry,
        offset: u64,
        most: u64,
    ) -> Result<(u64, Bytes), Problem> {
        let file = match cursor.open.take() {
            Some((number, file)) if number == cursor.at.file => file,
            _ => self.open(entry)?,
        };
        let offset = match seek(&file, SeekFrom::Data(offset)) {
            Ok(data) => data.min(entry.size),
            // Only a hole follows; or the file has become shorter, which is checked below.
            Err(Errno::NXIO) => entry.size,
            // This file system has no holes (ramfs).
            Err(_) => offset,
        };
        let mut data = vec![0; most.min(entry.size - offset) as usize];
        file.read_exact_at(&mut data, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Problem::Changed,
            _ => Problem::Unreadable,
        })?;
        let is_last = offset + data.len() as u64 == entry.size;
        if is_last && file.metadata().map(|metadata| metadata.len()).ok() != Some(entry.size) {
            return Err(Problem::Changed);
        }
        cursor.open = Some((cursor.at.file, file));
        Ok((offset, data.into()))
    }

    /// Opens a file again that the search has found.
    fn open(&self, entry: &Entry) -> Result<File, Problem> {
        if let (true, Some(core)) = (entry.is_core, &self.core) {
            return core.try_clone().map_err(|_| Problem::Unreadable);
        }
        let directory = self.directory.as_ref().ok_or(Problem::Changed)?;
        let mut file = directory.try_clone().map_err(|_| Problem::Unreadable)?;
        for name in output_path::names(&entry.path) {
            file = enter(&file, name).map_err(|_| Problem::Changed)?;
        }
        let metadata = file.metadata().map_err(|_| Problem::Unreadable)?;
        if !metadata.is_file() || (metadata.ino(), metadata.len()) != (entry.inode, entry.size) {
            return Err(Problem::Changed);
        }
        // Opens exactly the file that was checked, wherever its name leads to by now.
        File::open(again(&file)).map_err(|_| Problem::Unreadable)
    }
}

/// Opens a name in a directory for its metadata only, which a device does not notice, and without following a link.
pub fn enter(directory: &File, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory.as_fd(), name, flags, Mode::empty())?.into())
}

/// A path to an open file, whatever its name is by now (proc_pid_fd(5)).
pub fn again(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::symlink;

    use hop_proto::limits::{MAX_OUTPUT_DEPTH, MAX_OUTPUT_FILES};

    use super::*;

    const WINDOW: u64 = 1 << 20;

    fn offer(work: &Path, requests: &[&str]) -> ArtifactSet {
        let requests: Vec<Vec<u8>> = requests.iter().map(|request| request.as_bytes().to_vec()).collect();
        ArtifactSet::find(work, &requests, None, WINDOW)
    }

    /// The result of a search: each path, and the problem with it if there is one.
    fn found(offer: &ArtifactSet) -> Vec<(String, Option<Problem>)> {
        let path = |entry: &Entry| String::from_utf8_lossy(&entry.path).into_owned();
        offer.entries.iter().map(|entry| (path(entry), entry.problem)).collect()
    }

    /// All pieces from a position on, for a controller that acknowledges each piece at once.
    fn fetch(offer: &ArtifactSet, from: Position) -> Vec<Piece> {
        let mut cursor = Cursor::new(from);
        std::iter::from_fn(|| {
            let stored = cursor.at;
            offer.next(&mut cursor, stored)
        })
        .collect()
    }

    fn numbers(count: usize) -> Vec<u8> {
        (0..count).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn files_arrive_in_order_and_whole() {
        let work = tempfile::tempdir().unwrap();
        fs::create_dir_all(work.path().join("d/e")).unwrap();
        fs::write(work.path().join("d/long"), numbers(40_000)).unwrap();
        fs::write(work.path().join("d/e/short"), "short").unwrap();
        fs::write(work.path().join("empty"), "").unwrap();
        let offer = offer(work.path(), &["empty", "d", "missing"]);
        let pieces = fetch(&offer, Position::default());
        let infos: Vec<_> = pieces.iter().filter_map(|piece| piece.info.as_ref()).collect();
        let told = infos.iter().map(|info| (&info.path[..], info.request, info.size)).collect::<Vec<_>>();
        let expected: [(&[u8], u32, u64); 4] =
            [(b"empty", 0, 0), (b"d/e/short", 1, 5), (b"d/long", 1, 40_000), (b"missing", 2, 0)];
        assert_eq!(told, expected);
        assert!(infos.iter().all(|info| info.files == 4));
        let long: Vec<u8> =
            pieces.iter().filter(|piece| piece.at.file == 2).flat_map(|p| p.data.to_vec()).collect();
        assert!(long == numbers(40_000));
        assert_eq!(pieces.last().unwrap().problem, Some(Problem::NotThere));
        assert!(pieces.iter().all(|piece| piece.data.len() <= OUTPUT_CHUNK_BYTES));
        // A controller that reconnects gets the rest, and the metadata again.
        let rest = fetch(&offer, Position { file: 2, offset: 39_000 });
        assert_eq!((rest[0].at.offset, rest[0].data.len(), rest[0].info.is_some()), (39_000, 1000, true));
        assert_eq!(rest.len(), 2);
    }

    #[test]
    fn window_bounds_bytes_in_flight() {
        let work = tempfile::tempdir().unwrap();
        fs::write(work.path().join("x"), numbers(100)).unwrap();
        let offer = ArtifactSet::find(work.path(), &[b"x".to_vec()], None, 30);
        let mut cursor = Cursor::default();
        let mut next =
            |stored| offer.next(&mut cursor, Position { file: 0, offset: stored }).map(|p| p.data.len());
        assert_eq!([next(0), next(0), next(10), next(10)], [Some(30), None, Some(10), None]);
        assert_eq!([next(40), next(70), next(70)], [Some(30), Some(30), None]);
    }

    #[test]
    fn only_regular_files_below_are_found() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        let work = tempfile::tempdir().unwrap();
        let at = |name: &str| work.path().join(name);
        symlink(outside.path().join("secret"), at("link")).unwrap();
        symlink(outside.path(), at("elsewhere")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        fs::write(at("file"), "x").unwrap();
        let is_none = Some(Problem::NotAFile);
        let expect = |requests: &[&str], expected: &[(&str, Option<Problem>)]| {
            let expected: Vec<_> =
                expected.iter().map(|(path, problem)| ((*path).into(), *problem)).collect();
            assert_eq!(found(&offer(work.path(), requests)), expected);
        };
        expect(&["link", "pipe"], &[("link", is_none), ("pipe", is_none)]);
        expect(&["elsewhere/secret"], &[("elsewhere", is_none)]);
        expect(&["*/secret"], &[("elsewhere", is_none), ("link", is_none), ("pipe", is_none)]);
        expect(&["."], &[("elsewhere", is_none), ("file", None), ("link", is_none), ("pipe", is_none)]);
        expect(&["f*", "file/x"], &[("file", None), ("file/x", Some(Problem::NotThere))]);
        let nowhere = offer(&at("gone"), &["file"]);
        assert_eq!(found(&nowhere), [("file".into(), Some(Problem::NotThere))]);
    }

    #[test]
    fn hidden_files_need_explicit_name() {
        let work = tempfile::tempdir().unwrap();
        fs::create_dir_all(work.path().join(".git/hooks")).unwrap();
        fs::create_dir(work.path().join("d")).unwrap();
        for name in [".envrc", ".git/hooks/pre-commit", "d/.hidden", "d/plain", "plain"] {
            fs::write(work.path().join(name), "x").unwrap();
        }
        let hidden = Some(Problem::Hidden);
        let expect = |request: &str, expected: &[(&str, Option<Problem>)]| {
            let expected: Vec<_> =
                expected.iter().map(|(path, problem)| ((*path).into(), *problem)).collect();
            assert_eq!(found(&offer(work.path(), &[request])), expected, "{request}");
        };
        expect("*", &[("d/.hidden", hidden), ("d/plain", None), ("plain", None)]);
        expect(".*", &[(".envrc", None)]);
        expect("*/*", &[("d/plain", None)]);
        let all = [(".envrc", hidden), (".git", hidden), ("d/.hidden", hidden), ("d/plain", None)];
        expect(".", &[&all[..], &[("plain", None)]].concat());
        expect("d/.hidden", &[("d/.hidden", None)]);
        expect(".git/hooks", &[(".git", hidden)]);
    }

    #[test]
    fn changed_files_are_reported() {
        let work = tempfile::tempdir().unwrap();
        let path = work.path().join("x");
        type Change = fn(&Path);
        let changes: [(&str, Change); 5] = [
            ("shrinks", |path| File::options().write(true).open(path).unwrap().set_len(20_000).unwrap()),
            ("grows", |path| File::options().write(true).open(path).unwrap().set_len(50_000).unwrap()),
            ("goes", |path| fs::remove_file(path).unwrap()),
            ("is replaced", |path| {
                fs::write(path.with_extension("new"), numbers(40_000)).unwrap();
                fs::rename(path.with_extension("new"), path).unwrap();
            }),
            ("becomes a link", |path| {
                fs::remove_file(path).unwrap();
                symlink("/etc/passwd", path).unwrap();
            }),
        ];
        for (what, change) in changes {
            let _ = fs::remove_file(&path);
            fs::write(&path, numbers(40_000)).unwrap();
            let offer = offer(work.path(), &["x"]);
            let mut cursor = Cursor::default();
            let first = offer.next(&mut cursor, Position::default()).unwrap();
            assert_eq!(first.data.len(), OUTPUT_CHUNK_BYTES);
            // A broken connection does not keep it open.
            let mut another = Cursor::new(cursor.at);
            change(&path);
            let mut rest = Vec::new();
            while let Some(piece) = offer.next(&mut another, Position::default()) {
                rest.push(piece);
            }
            assert_eq!(rest.last().unwrap().problem, Some(Problem::Changed), "{what}");
            assert_eq!(another.at, offer.end());
        }
    }

    #[test]
    fn holes_are_not_sent() {
        // /tmp may be a file system without holes.
        let work = tempfile::tempdir_in("/var/tmp").unwrap();
        let file = File::create(work.path().join("x")).unwrap();
        file.set_len(100 << 20).unwrap();
        file.write_all_at(b"here", 64 << 20).unwrap();
        let pieces = fetch(&offer(work.path(), &["x"]), Position::default());
        let sent: usize = pieces.iter().map(|piece| piece.data.len()).sum();
        assert!(sent <= 128 << 10, "{sent} bytes");
        let first = &pieces[0];
        assert_eq!(&first.data[((64 << 20) - first.at.offset) as usize..][..4], b"here");
        let last = pieces.last().unwrap();
        assert_eq!(last.at.offset + last.data.len() as u64, 100 << 20);
    }

    #[test]
    fn artifact_size_and_count_are_limited() {
        let work = tempfile::tempdir().unwrap();
        File::create(work.path().join("a")).unwrap().set_len(MAX_OUTPUT_FILES_BYTES).unwrap();
        fs::write(work.path().join("b"), "x").unwrap();
        assert_eq!(found(&offer(work.path(), &["b", "a"]))[1].1, Some(Problem::TooLarge));
        assert_eq!(found(&offer(work.path(), &["a"]))[0].1, None);
        let many = work.path().join("many");
        fs::create_dir(&many).unwrap();
        for number in 0..=MAX_OUTPUT_FILES {
            fs::write(many.join(number.to_string()), "").unwrap();
        }
        let found_many = found(&offer(work.path(), &["many", "b"]));
        assert_eq!(found_many.len(), MAX_OUTPUT_FILES + 1);
        assert_eq!(found_many[MAX_OUTPUT_FILES], ("many".into(), Some(Problem::TooMany)));
    }

    #[test]
    fn too_deep_paths_are_reported() {
        let work = tempfile::tempdir().unwrap();
        let path = |name: &str, depth| vec![name; depth].join("/");
        let (deep, long) = (path("d", MAX_OUTPUT_DEPTH), path(&"n".repeat(250), 4));
        for directory in [&deep, &long] {
            fs::create_dir_all(work.path().join(directory)).unwrap();
            fs::write(work.path().join(directory).join("file"), "x").unwrap();
        }
        fs::create_dir(work.path().join(&deep).join("d")).unwrap();
        let long_file = format!("{long}/{}", "f".repeat(21));
        fs::write(work.path().join(&long_file), "x").unwrap();
        let expected = [
            (format!("{deep}/d"), Some(Problem::TooMany)),
            (format!("{deep}/file"), None),
            (long_file, Some(Problem::TooMany)),
            (format!("{long}/file"), None),
        ];
        assert_eq!(found(&offer(work.path(), &["."])), expected);
    }
}
