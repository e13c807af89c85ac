//! Archives of input files: those that nobody would send, and those that `hop` sends.
#![no_main]

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::fd::FromRawFd;
use std::path::{Path, PathBuf};

use hop::transfer::inputs::Files;
use hopd::files::error::Error;
use hopd::files::inputs::InputArchive;
use hopd::store::receiver::BlobDescriptor;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

/// Size that is announced for an archive that no packer created.
const ANNOUNCED: u64 = 64 * 1024;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Archive(&'a [u8]),
    /// Files with names made of these bytes, and their content.
    Files(Vec<(Vec<u8>, &'a [u8])>),
}

fuzz_target!(|input: Input<'_>| {
    let place = std::env::temp_dir().join(format!("hop-fuzz-{}", std::process::id()));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir(&place).expect("a directory");
    match input {
        Input::Archive(archive) => {
            // It may fail in any way but one that writes elsewhere.
            let _ = unpack(archive, ANNOUNCED, &place);
        }
        Input::Files(files) => {
            let mut packed = Files::default();
            let mut kept: Vec<(PathBuf, &[u8])> = Vec::new();
            for (name, content) in files {
                let name: Vec<String> = name.iter().take(4).map(|byte| format!("{}", byte % 8)).collect();
                let path: PathBuf = name.iter().collect();
                let is_in_the_way =
                    |(other, _): &(PathBuf, &[u8])| other.starts_with(&path) || path.starts_with(other);
                if !name.is_empty() && !kept.iter().any(is_in_the_way) {
                    packed.add_content(&path, content.to_vec());
                    kept.push((path, content));
                }
            }
            let tree = packed.pack("x".to_owned(), "src").expect("short names");
            unpack(&tree.archive.content, tree.size, &place).expect("what was packed");
            for (path, content) in kept {
                assert!(fs::read(place.join("src").join(path)).expect("it is there") == content);
            }
        }
    }
    let others = fs::read_dir(&place).expect("a directory").flatten();
    assert!(others.into_iter().all(|entry| entry.file_name() == "src"), "nothing is beside it");
    fs::remove_dir_all(&place).expect("it can be removed");
});

fn unpack(archive: &[u8], size: u64, place: &Path) -> Result<(), Error> {
    let announced =
        BlobDescriptor { digest: [0; 32], size: archive.len() as u64, checksum: None, bases: Vec::new() };
    let tree =
        InputArchive { archive: announced, directory: b"src".to_vec(), is_aside: false, size, entries: 0 };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime needs nothing");
    runtime.block_on(tree.unpack(file(archive), place, None, u64::MAX))
}

/// A file in memory.
fn file(content: &[u8]) -> File {
    // SAFETY: the name is a string, and the descriptor is nobody else's.
    let mut file = unsafe { File::from_raw_fd(libc::memfd_create(c"archive".as_ptr(), 0)) };
    file.write_all(content).and_then(|()| file.rewind()).expect("memory");
    file
}
