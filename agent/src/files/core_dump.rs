//! The core dump of a program: where the kernel writes it, its maximum size, and its removal.
//!
//! The kernel writes it to the path in `kernel.core_pattern` (core(5)): on OpenWrt in /tmp, which is RAM, and under a
//! name that is only partly known in advance.
//!
//! **Invariants:** when its program has ended, this agent or the next one removes a core that the agent allowed, and
//! those of processes in the program's group; and no file of anybody else.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use hop_proto::limits::MAX_OUTPUT_FILES_BYTES;
use hop_proto::output_path::stands_for;
use rustix::fs::{AtFlags, Mode, OFlags, unlinkat};
use rustix::process::{Resource, getrlimit};

use crate::files::error::Error;
use crate::files::outputs::{Problem, again, enter};
use crate::system::fs_walk;

/// The file in a job's directory that records where its core may be.
const MARK: &str = "core";

/// Maximum number of bytes to read of it: it has a number for each core that existed before.
const MAX_MARK_BYTES: u64 = 256 * 1024;

/// Where the kernel writes cores: `kernel.core_pattern`, as far as it is known in advance.
#[derive(Debug, PartialEq, Eq)]
pub struct Pattern {
    /// `None`: the directory in which the program works.
    directory: Option<PathBuf>,
    /// `*` matches everything that is not known in advance, [`PID`] the PID of the process.
    name: Vec<u8>,
}

/// Stands for a PID. It is in no file name, because the kernel writes none.
const PID: u8 = 0;

impl Pattern {
    /// Reads the pattern of this router.
    ///
    /// # Errors
    /// [`Error::NoCore`] if the kernel writes no core, or none that the agent could find.
    pub fn read() -> Result<Self, Error> {
        let read = |name: &str| fs::read(format!("/proc/sys/kernel/{name}"));
        let pattern = read("core_pattern").map_err(|_| Error::NoCore("its kernel writes none"))?;
        let uses_pid = read("core_uses_pid").is_ok_and(|text| text.trim_ascii() != b"0");
        let pattern = Self::parse(pattern.trim_ascii_end(), uses_pid).map_err(Error::NoCore)?;
        if getrlimit(Resource::Core).maximum == Some(0) {
            return Err(Error::NoCore("hopd was started with a core limit of 0"));
        }
        Ok(pattern)
    }

    fn parse(pattern: &[u8], uses_pid: bool) -> Result<Self, &'static str> {
        if pattern.starts_with(b"|") {
            return Err("its kernel.core_pattern hands them to a program");
        }
        let slash = pattern.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (directory, file) = pattern.split_at(slash);
        if directory.contains(&b'%') {
            return Err("its kernel.core_pattern has a directory for each");
        }
        let mut name = Vec::new();
        let mut bytes = file.iter();
        while let Some(byte) = bytes.next() {
            match (byte, (*byte == b'%').then(|| bytes.next()).flatten()) {
                (b'%', Some(b'p' | b'P')) => name.push(PID),
                (b'%', Some(b'%')) => name.push(b'%'),
                // A single one at the end is dropped (format_corename, fs/coredump.c).
                (b'%', None) => {}
                (b'%', Some(_)) => name.push(b'*'),
                (byte, _) => name.push(*byte),
            }
        }
        if uses_pid && !name.contains(&PID) {
            name.extend([b'.', PID]);
        }
        let is_absolute = directory.starts_with(b"/");
        if name.is_empty() || !is_absolute && !directory.is_empty() {
            return Err("its kernel.core_pattern names no file for them");
        }
        if is_absolute && !name.contains(&PID) {
            return Err("its kernel.core_pattern does not tell those of two programs apart");
        }
        let directory = is_absolute.then(|| OsStr::from_bytes(directory).into());
        Ok(Self { directory, name })
    }

    /// The pattern for the names of the cores of a process, or of all processes.
    fn names(&self, pid: Option<u32>) -> Vec<u8> {
        let pid = pid.map_or("*".into(), |pid| pid.to_string());
        let mut names = Vec::new();
        for byte in &self.name {
            match *byte {
                PID => names.extend_from_slice(pid.as_bytes()),
                byte => names.push(byte),
            }
        }
        names
    }
}

/// Maximum size in bytes of the core of a program that may use `memory` bytes: the program is still in memory when the
/// kernel writes its core, so each gets half.
pub fn limit(memory: u64) -> u64 {
    let hard = getrlimit(Resource::Core).maximum.unwrap_or(u64::MAX);
    (memory / 2).min(MAX_OUTPUT_FILES_BYTES).min(hard)
}

/// A core that may be written, until this is dropped.
#[derive(Debug)]
pub struct Expected {
    pattern: Pattern,
    directory: PathBuf,
    /// Numbers of the files that were there before the program, and belong to somebody else.
    others: Vec<u64>,
    /// The job's directory, for the mark.
    job: PathBuf,
    owner: Option<u32>,
    pid: Option<u32>,
}

impl Expected {
    /// The core of a program that will start in `work`, for a job in the directory `job`, as user `owner` if not as the
    /// agent's.
    ///
    /// # Errors
    /// [`Error::NoCore`].
    pub fn new(work: &Path, job: &Path, owner: Option<u32>) -> Result<Self, Error> {
        let pattern = Pattern::read()?;
        let directory = pattern.directory.clone().unwrap_or_else(|| work.to_owned());
        let others = matching(&directory, &pattern.names(None));
        let others = others.into_iter().map(|(_, file)| file.ino()).collect();
        Ok(Self { pattern, directory, others, job: job.to_owned(), owner, pid: None })
    }

    /// Records that the program has started. Leaves a mark for the next agent, in case this one is killed.
    pub fn started(&mut self, pid: u32) {
        self.pid = Some(pid);
        let mut mark = self.directory.as_os_str().as_bytes().to_vec();
        for line in [self.pattern.names(Some(pid)), self.pattern.names(None), pid.to_string().into()] {
            mark.push(b'\n');
            mark.extend(line);
        }
        for other in &self.others {
            mark.extend_from_slice(format!("\n{other}").as_bytes());
        }
        // All is well without the mark as long as this agent lives.
        if let Err(error) = fs::write(self.job.join(MARK), mark) {
            tracing::warn!(%error, "cannot note where a core may be");
        }
    }

    /// Takes the core of the program, which has ended, from where the kernel wrote it. Returns its name and its
    /// content.
    pub fn take(self) -> (Vec<u8>, Result<File, Problem>) {
        let names = self.pid.map(|pid| self.pattern.names(Some(pid))).unwrap_or_default();
        match self.own().into_iter().find(|name| stands_for(&names, name)) {
            // The core loses its name when `self` is dropped.
            Some(name) => {
                let core = open(&self.directory, &name);
                (name, core.map_err(|_| Problem::Unreadable))
            }
            None => (names, Err(Problem::NotThere)),
        }
    }

    fn own(&self) -> Vec<Vec<u8>> {
        let Some(pid) = self.pid else { return Vec::new() };
        let [own, all] = [Some(pid), None].map(|pid| self.pattern.names(pid));
        let is_own = |(name, file): &(Vec<u8>, fs::Metadata)| {
            !self.others.contains(&file.ino())
                && self.owner.is_none_or(|owner| owner == file.uid())
                && is_of(&self.directory, name, &own, pid)
        };
        matching(&self.directory, &all).into_iter().filter(is_own).map(|(name, _)| name).collect()
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        for name in self.own() {
            remove(&self.directory, &name);
        }
    }
}

/// Removes the cores of the jobs of a killed agent. `jobs` has the directories of these jobs.
pub fn remove_former(jobs: &Path) {
    for job in fs_walk::entries(jobs) {
        let Ok(mark) = read_mark(&job.path().join(MARK)) else { continue };
        let mut lines = mark.split(|byte| *byte == b'\n');
        let [Some(directory), Some(own), Some(all), Some(pid)] = [(); 4].map(|()| lines.next()) else {
            continue;
        };
        let directory = Path::new(OsStr::from_bytes(directory));
        let number = |line: &[u8]| std::str::from_utf8(line).ok()?.parse::<u64>().ok();
        let Some(pid) = number(pid).and_then(|pid| u32::try_from(pid).ok()) else { continue };
        let others: Vec<u64> = lines.filter_map(number).collect();
        for (name, file) in matching(directory, all) {
            if !others.contains(&file.ino()) && is_of(directory, &name, own, pid) {
                remove(directory, &name);
            }
        }
    }
}

/// Reads a mark. A program that runs as root may have replaced it with anything: a pipe without a writer, a link, a
/// file that is larger than the memory.
fn read_mark(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut mark = Vec::new();
    file.take(MAX_MARK_BYTES).read_to_end(&mut mark)?;
    Ok(mark)
}

/// True if the file `name` is the core of the process `pid`, which has the pattern `own`, or of a process in its group.
fn is_of(directory: &Path, name: &[u8], own: &[u8], pid: u32) -> bool {
    stands_for(own, name) || open(directory, name).ok().and_then(|core| group(&core)) == Some(pid)
}

/// The process group of the process that left this core.
///
/// A core begins with an ELF header and its program headers; the first note is NT_PRSTATUS (elf(5), struct elf_prstatus
/// in linux/elfcore.h).
fn group(core: &File) -> Option<u32> {
    const LONG: usize = size_of::<libc::c_long>();
    const IS_64: bool = LONG == 8;
    let mut start = [0; 4096];
    let length = core.read_at(&mut start, 0).ok()?;
    let start = &start[..length];
    let word = |at: usize| Some(u32::from_ne_bytes(start.get(at..at + 4)?.try_into().ok()?) as usize);
    let half = |at: usize| Some(u16::from_ne_bytes(start.get(at..at + 2)?.try_into().ok()?) as usize);
    // Offsets fit into their lower word, which is the second one of a big endian 64-bit machine.
    let offset = |at: usize| word(if IS_64 && cfg!(target_endian = "big") { at + 4 } else { at });
    let [phoff, phentsize, phnum, p_offset] =
        if IS_64 { [0x20, 0x36, 0x38, 8] } else { [0x1c, 0x2a, 0x2c, 4] };
    if !start.starts_with(b"\x7fELF") {
        return None;
    }
    let (first, size, count) = (offset(phoff)?, half(phentsize)?, half(phnum)?);
    let notes = (0..count).map(|i| first + i * size).find(|at| word(*at) == Some(4))?;
    // Three words, and "CORE" in eight bytes.
    let status = offset(notes + p_offset)? + 20;
    // A siginfo of three words, a short, two sets of signals, pid and ppid.
    let group = word(status + 16 + 2 * LONG + 8)?;
    u32::try_from(group).ok()
}

/// The regular files in a directory whose names match a pattern.
fn matching(directory: &Path, names: &[u8]) -> Vec<(Vec<u8>, fs::Metadata)> {
    let mut found = Vec::new();
    for entry in fs_walk::entries(directory) {
        if let Ok(metadata) = entry.metadata()
            && metadata.is_file()
            && stands_for(names, entry.file_name().as_bytes())
        {
            found.push((entry.file_name().into_vec(), metadata));
        }
    }
    found
}

fn open(directory: &Path, name: &[u8]) -> io::Result<File> {
    let found = enter(&look(directory)?, name)?;
    // Opening a pipe waits for a writer.
    if !found.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    File::open(again(&found))
}

fn remove(directory: &Path, name: &[u8]) {
    let removed = look(directory).and_then(|directory| Ok(unlinkat(directory, name, AtFlags::empty())?));
    if let Err(error) = removed {
        tracing::error!(directory = %directory.display(), %error, "cannot remove a core");
    }
}

fn look(directory: &Path) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory, flags, Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rustix::fs::FileType;

    use super::*;

    #[test]
    fn core_pattern_is_parsed_or_refused() {
        let parse = |pattern: &str, uses_pid| Pattern::parse(pattern.as_bytes(), uses_pid);
        let names = |pattern: &str, uses_pid| {
            let pattern = parse(pattern, uses_pid).unwrap();
            (pattern.directory.clone(), String::from_utf8(pattern.names(Some(123))).unwrap())
        };
        let tmp = Some(PathBuf::from("/tmp/"));
        assert_eq!(names("/tmp/%e.%t.%p.%s.core", false), (tmp.clone(), "*.*.123.*.core".into()));
        assert_eq!(names("core", false), (None, "core".into()));
        assert_eq!(names("core", true), (None, "core.123".into()));
        assert_eq!(names("/tmp/100%%-%P%", true), (tmp, "100%-123".into()));
        assert_eq!(parse("/tmp/c.%p", false).unwrap().names(None), b"c.*");
        for pattern in
            ["|/usr/lib/systemd/systemd-coredump %P", "", "/tmp/core", "/tmp/%e/%p", "cores/%p", "/"]
        {
            assert!(parse(pattern, false).is_err(), "{pattern}");
        }
    }

    fn expected(directory: &Path, job: &Path) -> Expected {
        let pattern = Pattern { directory: None, name: b"c.*.\0".to_vec() };
        let others = matching(directory, &pattern.names(None)).into_iter().map(|(_, file)| file.ino());
        let (directory, others) = (directory.to_owned(), others.collect());
        Expected { pattern, directory, others, job: job.to_owned(), owner: None, pid: None }
    }

    fn names(directory: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn only_core_of_program_is_taken() {
        let (cores, job) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let put = |name: &str, content: &str| fs::write(cores.path().join(name), content).unwrap();
        put("c.old.123", "of somebody else, who had this number before");
        let mut core = expected(cores.path(), job.path());
        core.started(123);
        put("c.new.123", "core");
        put("c.new.124", "of another program");
        let (name, file) = core.take();
        assert_eq!(
            (&name[..], io::read_to_string(file.unwrap()).unwrap()),
            (&b"c.new.123"[..], "core".into())
        );
        assert_eq!(names(cores.path()), ["c.new.124", "c.old.123"]);
    }

    #[test]
    fn unclaimed_core_is_removed() {
        let (cores, jobs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let put = |name: &str| fs::write(cores.path().join(name), "core").unwrap();
        put("c.old.123");
        let mut core = expected(cores.path(), jobs.path());
        core.started(123);
        put("c.new.123");
        drop(core);
        assert_eq!(names(cores.path()), ["c.old.123"]);
        // The agent was killed, and another one starts.
        let job = jobs.path().join("job");
        fs::create_dir(&job).unwrap();
        let mut core = expected(cores.path(), &job);
        core.started(123);
        std::mem::forget(core);
        put("c.new.123");
        remove_former(jobs.path());
        assert_eq!(names(cores.path()), ["c.old.123"]);
        // It skips anything else with the name of the mark, and does not wait for it.
        fs::remove_file(job.join(MARK)).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, job.join(MARK), FileType::Fifo, Mode::RUSR, 0).unwrap();
        remove_former(jobs.path());
        let (name, none) = expected(cores.path(), &job).take();
        assert_eq!((name, none.unwrap_err()), (Vec::new(), Problem::NotThere));
    }
}
