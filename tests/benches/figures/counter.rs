//! The instructions that a router has executed: the plugin's file, read while QEMU runs.
//!
//! With a counted clock an instruction takes [`INSTRUCTION`] seconds of the router's time, so a count is a time, and one that
//! is exact where the router's own clock ticks a hundred times a second. A CPU that waits executes nothing.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hop_tests::TIMEOUT;

use crate::record::{RECORDS, Record};

/// Seconds of an instruction: QEMU's `-icount shift=1` is two nanoseconds.
pub const INSTRUCTION: f64 = 2e-9;

/// How long to look before deciding that a router is at rest.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How many looks in a row must find it at rest.
const MAX_POLLS: u32 = 3;

/// What a router at rest executes at most in a second of this machine's clock. Its kernel's ticks make 300,000; one that
/// works makes a hundred times as much, also on a busy machine.
const REST: f64 = 2e6;

/// The QEMU of the router that is measured.
const QEMU: &str = "qemu-system-mips";

/// The instructions of one router.
pub struct Counter {
    file: File,
    directory: PathBuf,
}

/// What was executed: how often each block, by its address and its length.
#[derive(Default)]
pub struct Blocks(HashMap<(u64, u64), u64>);

impl Counter {
    /// Writes a QEMU to `directory` that counts into a file there.
    pub fn in_directory(directory: &Path, plugin: &Path) -> Self {
        let counts = directory.join("counts");
        let file = File::options().read(true).write(true).create_new(true).open(&counts).unwrap();
        file.set_len((RECORDS * size_of::<Record>()) as u64).unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let qemu = std::env::split_paths(&path).map(|place| place.join(QEMU)).find(|file| file.is_file());
        let qemu = qemu.expect("QEMU is installed");
        let [qemu, plugin, counts] = [&qemu, plugin, &counts].map(Path::display);
        let script = format!("#!/bin/sh\nexec '{qemu}' \"$@\" -plugin '{plugin}',counts='{counts}'\n");
        let wrapper = directory.join(QEMU);
        fs::write(&wrapper, script).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        Self { file, directory: directory.to_owned() }
    }

    /// The directory in which the router's QEMU must be looked for.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What was executed since it was started.
    pub fn blocks(&self) -> Blocks {
        let mut content = vec![0; RECORDS * size_of::<Record>()];
        self.file.read_exact_at(&mut content, 0).unwrap();
        let (records, _) = content.as_chunks::<{ size_of::<Record>() }>();
        let is_used = |record: &&[u8; size_of::<Record>()]| record[8..16] != [0; 8];
        let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap());
        let blocks = records.iter().filter(is_used).map(|record| {
            let [address, length, executions] = [0, 8, 16].map(|at| word(&record[at..at + 8]));
            ((address, length), executions)
        });
        Blocks(blocks.collect())
    }

    /// Waits until the router has nothing to do, and gives what it executed until then.
    pub fn at_rest(&self) -> Blocks {
        let since = Instant::now();
        let (mut blocks, mut looked, mut looks) = (self.blocks(), since, 0);
        while looks < MAX_POLLS {
            assert!(since.elapsed() < TIMEOUT, "the router comes to rest");
            std::thread::sleep(POLL_INTERVAL);
            let (now, before) = (self.blocks(), looked);
            looked = Instant::now();
            let executed = (now.instructions() - blocks.instructions()) as f64;
            let is_rest = executed <= REST * (looked - before).as_secs_f64();
            looks = if is_rest { looks + 1 } else { 0 };
            blocks = now;
        }
        blocks
    }
}

impl Blocks {
    /// All of them.
    pub fn instructions(&self) -> u64 {
        self.0.iter().map(|((_, length), executions)| length * executions).sum()
    }

    /// How often the kernel's function at this address was called.
    pub fn executions(&self, address: u64) -> u64 {
        let is_there = |block: &u64| block & 0xffff_ffff == address & 0xffff_ffff;
        self.0.iter().filter(|((block, _), _)| is_there(block)).map(|(_, executions)| executions).sum()
    }

    /// What came after `before`.
    pub fn since(&self, before: &Self) -> Self {
        let blocks = self.0.iter().map(|(block, count)| (*block, count - before.0.get(block).unwrap_or(&0)));
        Self(blocks.filter(|(_, count)| *count > 0).collect())
    }

    /// Addresses, and how many instructions were executed there.
    pub fn by_address(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|((address, length), executions)| (*address, length * executions))
    }
}
