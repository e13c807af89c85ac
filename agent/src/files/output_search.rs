//! The search for the artifacts of a program that has ended.
//!
//! **Invariants:** the search follows no link, enters no other file system, and reads at most 4,096 names for one job.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;

use hop_proto::limits::{
    MAX_OUTPUT_DEPTH, MAX_OUTPUT_FILES, MAX_OUTPUT_FILES_BYTES, MAX_OUTPUT_FILES_PATH_BYTES,
    MAX_OUTPUT_PATH_BYTES,
};
use hop_proto::output_path;

use crate::files::outputs::{Problem, again, enter};

/// Names that the search visits for one job. Each takes a 500 MIPS CPU 0.05 ms, in which the agent does nothing else.
pub(super) const MAX_NAMES: usize = 4096;

/// A file, or the reason why there is none.
#[derive(Debug)]
pub(super) struct Entry {
    /// Path below the program's directory; the request itself if nothing was found.
    pub(super) path: Vec<u8>,
    /// Index of the request that it belongs to.
    pub(super) request: u32,
    /// Bytes of all files before it.
    pub(super) start: u64,
    /// Size of this file in bytes.
    pub(super) size: u64,
    pub(super) inode: u64,
    pub(super) is_executable: bool,
    pub(super) is_core: bool,
    pub(super) problem: Option<Problem>,
}

/// There is too much to search.
pub(super) struct Full;

/// The search for output files.
pub(super) struct Search {
    pub(super) entries: Vec<Entry>,
    pub(super) device: u64,
    pub(super) owner: Option<u32>,
    pub(super) bytes: u64,
    pub(super) path_bytes: usize,
    pub(super) names: usize,
}

impl Search {
    /// Searches a directory with the path `path` for what `asked` names, or for everything. Returns whether it has any
    /// of that.
    pub(super) fn look_in(
        &mut self,
        directory: &File,
        path: &mut Vec<u8>,
        asked: &[&[u8]],
        request: u32,
        depth: usize,
    ) -> Result<bool, Full> {
        let (first, rest) = match asked.split_first() {
            Some((first, rest)) if !output_path::is_pattern(first) => {
                return self.look_at(directory, first, path, rest, request, depth);
            }
            Some((first, rest)) => (Some(first), rest),
            None => (None, asked),
        };
        let Ok(names) = fs::read_dir(again(directory)) else {
            return self.add(path, request, Err(Problem::Unreadable));
        };
        let mut found: Vec<Vec<u8>> = Vec::new();
        for name in names.flatten() {
            self.names += 1;
            if self.names > MAX_NAMES {
                return Err(Full);
            }
            let name = name.file_name().into_vec();
            if first.is_none_or(|first| output_path::stands_for(first, &name)) {
                // Sorted, so that the same files always come in the same order.
                let at = found.binary_search(&name).unwrap_or_else(|at| at);
                found.insert(at, name);
            }
        }
        // An empty directory counts as found.
        let mut is_any = first.is_none();
        for name in found {
            is_any |= if first.is_none() && output_path::is_hidden(&name) {
                self.within(path, &name, |search, path| search.add(path, request, Err(Problem::Hidden)))?
            } else {
                self.look_at(directory, &name, path, rest, request, depth)?
            };
        }
        Ok(is_any)
    }

    /// Visits a name in a directory, and below it everything that `rest` names.
    fn look_at(
        &mut self,
        directory: &File,
        name: &[u8],
        path: &mut Vec<u8>,
        rest: &[&[u8]],
        request: u32,
        depth: usize,
    ) -> Result<bool, Full> {
        self.within(path, name, |search, path| match enter(directory, name) {
            Ok(_) if output_path::is_repository(name) => search.add(path, request, Err(Problem::Hidden)),
            Ok(file) => search.take(&file, path, rest, request, depth),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(_) => search.add(path, request, Err(Problem::Unreadable)),
        })
    }

    /// Calls a function with the path of a name in the directory whose path is `path`.
    fn within(
        &mut self,
        path: &mut Vec<u8>,
        name: &[u8],
        look: impl FnOnce(&mut Self, &mut Vec<u8>) -> Result<bool, Full>,
    ) -> Result<bool, Full> {
        let before = path.len();
        if before > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let is_there = look(self, path);
        path.truncate(before);
        is_there
    }

    fn take(
        &mut self,
        file: &File,
        path: &mut Vec<u8>,
        rest: &[&[u8]],
        request: u32,
        depth: usize,
    ) -> Result<bool, Full> {
        let Ok(metadata) = file.metadata() else {
            return self.add(path, request, Err(Problem::Unreadable));
        };
        // Each directory on the path is an open file while its content is searched.
        let is_too_deep =
            metadata.is_dir() && depth == MAX_OUTPUT_DEPTH || path.len() > MAX_OUTPUT_PATH_BYTES;
        if is_too_deep {
            return self.add(path, request, Err(Problem::TooMany));
        }
        let is_foreign = metadata.dev() != self.device;
        if metadata.is_dir() && !is_foreign {
            return self.look_in(file, path, rest, request, depth + 1);
        }
        if metadata.is_file() && !rest.is_empty() {
            return Ok(false);
        }
        let problem = if is_foreign || !metadata.is_file() {
            Err(Problem::NotAFile)
        } else if self.owner.is_some_and(|owner| owner != metadata.uid()) {
            // A user may link somebody else's file into its own working directory (link(2)).
            Err(Problem::NotOwn)
        } else if metadata.len() > MAX_OUTPUT_FILES_BYTES - self.bytes {
            Err(Problem::TooLarge)
        } else {
            Ok(metadata)
        };
        self.add(path, request, problem)
    }

    /// Adds a file that exists, or the problem with it.
    fn add(&mut self, path: &[u8], request: u32, file: Result<fs::Metadata, Problem>) -> Result<bool, Full> {
        self.path_bytes += path.len();
        if self.entries.len() == MAX_OUTPUT_FILES || self.path_bytes > MAX_OUTPUT_FILES_PATH_BYTES {
            return Err(Full);
        }
        let mut entry = self.entry(path, request);
        match file {
            // A controller accepts no longer path.
            _ if path.len() > MAX_OUTPUT_PATH_BYTES => entry.problem = Some(Problem::TooMany),
            Ok(metadata) => {
                (entry.size, entry.inode) = (metadata.len(), metadata.ino());
                entry.is_executable = metadata.mode() & 0o100 != 0;
                self.bytes += entry.size;
            }
            Err(problem) => entry.problem = Some(problem),
        }
        self.entries.push(entry);
        Ok(true)
    }

    /// Reports a problem with a request.
    pub(super) fn report(&mut self, path: &[u8], request: u32, problem: Problem) {
        let entry = Entry { problem: Some(problem), ..self.entry(path, request) };
        self.entries.push(entry);
    }

    pub(super) fn entry(&self, path: &[u8], request: u32) -> Entry {
        Entry {
            path: path.to_vec(),
            request,
            start: self.bytes,
            size: 0,
            inode: 0,
            is_executable: false,
            is_core: false,
            problem: None,
        }
    }
}
