//! The files that a program leaves for its controller: which they are, and piece by piece what is in them.
//!
//! A program that runs as another user may have put anything where it works: a link to the password file, a name for a file of
//! the agent's.
//!
//! **Invariants:** nothing but regular files below the program's own directory, on its own file system and of its own user, is
//! read, whatever lies in the way; a file arrives as it was when the program ended or is reported; and no more of it is in
//! memory than what is on its way.

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

/// Why a file is not brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// There is no such file.
    NotThere,
    /// It is something else than a regular file, or elsewhere than it seems to be.
    NotAFile,
    /// It is longer than what may still be brought.
    TooLarge,
    /// There is too much to look at, or it is too deep.
    TooMany,
    /// The kernel does not let it be read.
    Unreadable,
    /// It is not any more as it was when the program ended.
    Changed,
    /// It belongs to another user than the program ran as.
    NotOwn,
    /// Its name begins with a dot, and was not asked for.
    Hidden,
}

/// A place in all files: their number, and an offset in that one. The end is behind the last file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Counts the files from 0.
    pub file: u32,
    /// Bytes of it.
    pub offset: u64,
}

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Where it was, below the program's directory.
    pub path: Vec<u8>,
    /// Which request it is for.
    pub request: u32,
    /// Its length.
    pub size: u64,
    /// Its owner may execute it.
    pub is_executable: bool,
    /// The kernel wrote it when the program died.
    pub is_core: bool,
    /// How many files there are.
    pub files: u32,
}

/// A piece of a file.
#[derive(Debug)]
pub struct Piece {
    /// Where it belongs.
    pub at: Position,
    /// What it is.
    pub data: Bytes,
    /// What is known of the file, if this was not said on this connection.
    pub info: Option<Info>,
    /// Nothing more of this file comes.
    pub problem: Option<Problem>,
}

/// What a program has left.
#[derive(Debug)]
pub struct ArtifactSet {
    /// Where the program worked; `None` if it is gone.
    directory: Option<File>,
    entries: Vec<Entry>,
    /// The core, which has no name any more.
    core: Option<File>,
    /// Bytes that may be on their way.
    window: u64,
}

/// How far one connection is.
#[derive(Debug, Default)]
pub struct Cursor {
    /// What comes next.
    pub at: Position,
    /// The file of which the controller was told what it is.
    told: Option<u32>,
    open: Option<(u32, File)>,
}

impl Cursor {
    /// Begins there.
    pub fn new(at: Position) -> Self {
        Self { at, ..Self::default() }
    }

    /// Holds no file any more.
    pub fn close(&mut self) {
        self.open = None;
    }

    fn next_file(&mut self) {
        self.at = Position { file: self.at.file + 1, offset: 0 };
        self.open = None;
    }
}

impl ArtifactSet {
    /// Looks for what was asked for in the directory in which a program worked, which has ended; it ran as the user `owner`,
    /// if not as the agent. At most `window` bytes will be on their way.
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
                // Whatever there is beyond that is not looked for.
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

    /// Adds the core that the kernel wrote, called `name` where it was; or says why there is none.
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

    /// Behind the last file.
    pub fn end(&self) -> Position {
        Position { file: self.entries.len() as u32, offset: 0 }
    }

    /// Bytes of all files.
    fn bytes(&self) -> u64 {
        self.entries.last().map_or(0, |last| last.start + last.size)
    }

    /// Bytes before a place, which may be one that there is not.
    fn bytes_before(&self, at: Position) -> u64 {
        match self.entries.get(at.file as usize) {
            Some(entry) => entry.start + at.offset.min(entry.size),
            None => self.bytes(),
        }
    }

    /// The next piece for who has said to have everything before `stored`; `None` if there is none now.
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

    /// What is in a file at `offset` or behind the hole there: where, and at most `most` bytes of it.
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
            // Nothing but a hole follows; or the file has become shorter, which is looked at below.
            Err(Errno::NXIO) => entry.size,
            // This file system knows nothing of holes (ramfs).
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

    /// Opens a file that was found, once more.
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
        // What was looked at and nothing else, wherever its name leads to by now.
        File::open(again(&file)).map_err(|_| Problem::Unreadable)
    }
}

/// Opens a name in a directory to look at it, and nothing more: a device does not notice, and a link is not followed.
pub fn enter(directory: &File, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory.as_fd(), name, flags, Mode::empty())?.into())
}

/// A path to what is open already, whatever its name is by now (proc_pid_fd(5)).
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

    /// What was found: its path, or what is wrong with it.
    fn found(offer: &ArtifactSet) -> Vec<(String, Option<Problem>)> {
        let path = |entry: &Entry| String::from_utf8_lossy(&entry.path).into_owned();
        offer.entries.iter().map(|entry| (path(entry), entry.problem)).collect()
    }

    /// All that comes for who has nothing and says at once what it has.
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
        // Who comes back gets the rest, and once more what it is of.
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
            // A connection that breaks holds it open no more.
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
