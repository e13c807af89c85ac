//! Transfers output files. From an honest agent, each file arrives once and complete, wherever connections break.
//! Whatever a dishonest agent sends, the controller writes only the files that it requested, to the places that it
//! chose: never through a link, under a hidden name, over an existing file, or as an executable.
#![no_main]

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use hop::session::artifacts::{Local, OutputFiles, Request};
use hop_proto::limits::{MAX_OUTPUT_FILES_BYTES, OUTPUT_WINDOW_BYTES};
use hop_proto::output_path;
use hop_proto::v1::{FileInfo, FilePosition, OutputFile};
use hopd::files::outputs::{ArtifactSet, Cursor, Info, Piece, Position};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Scenario {
    /// On each connection, the controller receives this many pieces, acknowledges them or not, and reattaches.
    Honest { window: u16, connections: Vec<(u8, bool)> },
    /// The agent sends these pieces.
    Lies(Vec<Lie>),
    /// A user requests the first path, and the second one exists.
    Asks(Vec<u8>, Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct Lie {
    /// Number of the file; `None`: the one that the controller expects.
    file: Option<u8>,
    /// Offset in the file; `None`: the one that the controller expects.
    offset: Option<u64>,
    data: Vec<u8>,
    info: Option<Said>,
    problem: u8,
}

#[derive(Arbitrary, Debug)]
struct Said {
    /// Index of one of the [`USUAL`] paths, or any path.
    path: Result<u8, Vec<u8>>,
    request: u8,
    size: Result<u8, u64>,
    executable: bool,
    core: bool,
    files: u8,
}

/// A controller acknowledges after a quarter of the window that it has requested, and so never requests less than that.
const MIN_WINDOW: u64 = OUTPUT_WINDOW_BYTES as u64 / 4;

/// Files that the honest agent has: longer than a chunk, empty, and one with a hole.
const FILES: [(&str, usize); 4] = [("a", 40_000), ("b/c", 0), ("b/d", 7), ("b/hole", 100_000)];

const USUAL: [&[u8]; 14] = [
    b"one",
    b"many/x",
    b"many/y/z",
    b"../one",
    b"many/../../canary",
    b"/canary",
    b".",
    b"many",
    b"kept.x",
    b"new.x",
    b".x",
    b"many/.git/hooks/pre-commit",
    b"many/link/canary",
    b"many/link",
];

/// The directory of this process for all scenarios.
fn ground() -> &'static Path {
    static GROUND: OnceLock<PathBuf> = OnceLock::new();
    GROUND.get_or_init(|| std::env::temp_dir().join(format!("hop-fuzz-{}", std::process::id())))
}

fuzz_target!(|scenario: Scenario| {
    match scenario {
        Scenario::Honest { window, connections } => {
            honest(MIN_WINDOW + u64::from(window), &connections);
        }
        Scenario::Lies(lies) => lie(lies),
        Scenario::Asks(asked, path) => ask(&asked, &path),
    }
});

/// The content of a file.
fn content(name: &str, size: usize) -> Vec<u8> {
    let mut content: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
    if name.ends_with("hole") {
        content[100..size - 100].fill(0);
    }
    content
}

/// The working directory of the program, and an empty directory for the files that the controller receives.
fn places() -> (PathBuf, PathBuf) {
    let (there, here) = (ground().join("there"), ground().join("here"));
    if !there.exists() {
        fs::create_dir_all(there.join("b")).expect("the disk has space");
        for (name, size) in FILES {
            let (content, file) = (content(name, size), fs::File::create(there.join(name)));
            let file = file.expect("the disk has space");
            let ends = if name.ends_with("hole") { [0..100, size - 100..size] } else { [0..size, 0..0] };
            for end in ends {
                file.write_all_at(&content[end.clone()], end.start as u64).expect("the disk has space");
            }
        }
    }
    let _ = fs::remove_dir_all(&here);
    fs::create_dir_all(&here).expect("the disk has space");
    (there, here)
}

fn honest(window: u64, connections: &[(u8, bool)]) {
    let (there, here) = places();
    let offer = ArtifactSet::find(&there, &[b".".to_vec()], None, window);
    let asked = request(".", here.clone());
    let mut files = OutputFiles::new(vec![asked], None, true);
    let mut stored = Position::default();
    // The last connection does not break.
    let holds = (u8::MAX, true);
    for (count, tells) in connections.iter().chain(std::iter::repeat_n(&holds, 1000)) {
        let mut cursor = Cursor::new(files.position().map_or(stored, read));
        files.resend_acks();
        for _ in 0..*count {
            let piece = offer.next(&mut cursor, stored);
            let is_all = piece.is_none();
            if let Some(piece) = piece {
                files.take(say(piece)).expect("it is honest");
            }
            // An acknowledgement that is not sent is lost with its connection.
            if *tells && let Some(told) = files.next_ack() {
                stored = stored.max(read(told));
            } else if is_all {
                break;
            }
        }
        if stored == offer.end() {
            break;
        }
    }
    assert_eq!(stored, offer.end(), "the controller acknowledges everything in the end");
    let fetched = files.finish().expect("all have come");
    assert_eq!(fetched.len(), FILES.len(), "each comes once");
    for (name, size) in FILES {
        assert!(fs::read(here.join(name)).expect("it is here") == content(name, size), "{name}");
    }
}

fn lie(lies: Vec<Lie>) {
    let (_, here) = places();
    fs::write(here.join("canary"), "sings").expect("the disk has space");
    let place = here.join("place");
    fs::create_dir_all(place.join("many")).expect("the disk has space");
    symlink("../..", place.join("many/link")).expect("the disk has space");
    fs::write(place.join("kept.x"), "kept").expect("the disk has space");
    let many = Request {
        local: Local::Below { directory: place.clone(), skip: 0 },
        ..request("many", PathBuf::new())
    };
    let requests = vec![request("one", place.join("one")), many, request("*.x", place.clone())];
    let mut files = OutputFiles::new(requests, None, true);
    for lie in lies {
        let expected = files.position().unwrap_or_default();
        let info = lie.info.map(|said| FileInfo {
            path: said
                .path
                .map_or_else(|path| path, |usual| USUAL[usize::from(usual) % USUAL.len()].to_vec()),
            request: said.request.into(),
            // A file that does not fit on the disk would test nothing but the disk.
            size: said.size.map_or_else(|size| size % (1 << 30), u64::from),
            executable: said.executable,
            core: said.core,
            files: said.files.into(),
        });
        let piece = OutputFile {
            file: lie.file.map_or(expected.file, u32::from),
            offset: lie.offset.unwrap_or(expected.offset),
            data: Bytes::from(lie.data),
            info,
            problem: lie.problem.into(),
            uncompressed_size: 0,
        };
        if files.take(piece).is_err() {
            break;
        }
        files.next_ack();
    }
    drop(files);
    assert_eq!(fs::read(here.join("canary")).ok().as_deref(), Some(&b"sings"[..]));
    assert_eq!(fs::read(place.join("kept.x")).ok().as_deref(), Some(&b"kept"[..]));
    look_at(&place, &mut 0);
    let names = |path: &Path| -> Vec<_> {
        fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
    };
    assert!(names(&here).iter().all(|name| name == "canary" || name == "place"));
    let is_asked_for = |name: &OsString| name == "one" || name == "many" || name.as_bytes().ends_with(b".x");
    assert!(names(&place).iter().all(is_asked_for));
}

/// Checks every file that the controller wrote, and adds up their lengths.
fn look_at(directory: &Path, bytes: &mut u64) {
    for entry in fs::read_dir(directory).expect("it is there") {
        let path = entry.expect("it can be read").path();
        let metadata = path.symlink_metadata().expect("nobody else is here");
        let name = path.file_name().unwrap_or_default().as_bytes();
        assert!(!name.starts_with(b"."), "{}", path.display());
        if metadata.is_dir() {
            look_at(&path, bytes);
        } else if metadata.is_file() {
            assert_eq!(metadata.permissions().mode() & 0o111, 0, "{}", path.display());
            *bytes += metadata.len();
        } else {
            assert!(path.ends_with("many/link"), "{}", path.display());
        }
    }
    assert!(*bytes <= MAX_OUTPUT_FILES_BYTES + 4, "{bytes}");
}

fn request(remote: &str, local: PathBuf) -> Request {
    let local = Local::Path(local);
    Request { remote: remote.into(), local, overwrites: false, keeps_executability: false }
}

fn ask(asked: &[u8], path: &[u8]) {
    if let Some(plain) = output_path::normal(asked) {
        assert!(output_path::is_valid(&plain));
        assert_eq!(output_path::normal(&plain).as_ref(), Some(&plain), "what is plain stays as it is");
    }
    if output_path::is_valid(path) {
        let is_hidden = output_path::names(path).into_iter().any(output_path::is_hidden);
        assert_eq!(output_path::covers(b".", path), !is_hidden);
        let is_repository = output_path::names(path).into_iter().any(output_path::is_repository);
        assert_eq!(output_path::covers(path, path), !is_repository);
        assert!(output_path::names(path).iter().all(|name| !matches!(*name, b"" | b"." | b"..")));
    }
}

fn read(position: FilePosition) -> Position {
    Position { file: position.file, offset: position.offset }
}

fn say(piece: Piece) -> OutputFile {
    let Piece { at: Position { file, offset }, data, info, problem } = piece;
    assert_eq!(problem, None, "all of it is as it was");
    let info = info.map(|Info { path, request, size, is_executable, is_core, files }| FileInfo {
        path,
        request,
        size,
        executable: is_executable,
        core: is_core,
        files,
    });
    OutputFile { file, offset, data, info, problem: 0, uncompressed_size: 0 }
}
