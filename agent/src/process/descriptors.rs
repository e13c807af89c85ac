//! The open files of this process, none of which a program may inherit.
//!
//! **Invariants:** a program has its three streams and no other descriptor, whatever the agent inherited from the
//! process that started it, and whatever a library opened without O_CLOEXEC.

use std::ffi::CStr;
use std::mem::MaybeUninit;

use rustix::fs::{Mode, OFlags, RawDir};

/// The first descriptor after the three streams.
const FIRST: libc::c_int = 3;

/// Number of descriptors to mark if /proc is not mounted: the default limit of a process.
const USUAL_LIMIT: libc::c_int = 1024;

/// close_range(2): mark instead of close. Linux 5.11.
const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;

/// Marks all but the three streams to be closed by the next execve(2). Safe between fork and exec: it makes system
/// calls, and allocates nothing.
pub fn close_all_on_exec() {
    // SAFETY: the call takes three numbers and touches no memory.
    let marked = unsafe {
        libc::syscall(libc::SYS_close_range, FIRST as libc::c_uint, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC)
    };
    // Older kernels do not have this call.
    if marked != 0 && mark_open().is_err() {
        for descriptor in FIRST..USUAL_LIMIT {
            mark(descriptor);
        }
    }
}

/// Marks the descriptors that /proc lists.
fn mark_open() -> rustix::io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(c"/proc/self/fd", flags, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        if let Some(descriptor) = number(entry?.file_name()).filter(|number| *number >= FIRST) {
            mark(descriptor);
        }
    }
    Ok(())
}

/// The number in a file name; `None` for `.` and `..`.
fn number(name: &CStr) -> Option<libc::c_int> {
    name.to_str().ok()?.parse().ok()
}

fn mark(descriptor: libc::c_int) {
    // SAFETY: the call takes numbers. It fails for a descriptor that is not open, and then there is nothing to mark.
    unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn descriptors_are_marked_without_close_range() {
        let file = File::open("/dev/null").unwrap();
        let flags = |file: &File| {
            // SAFETY: the descriptor is open.
            unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) }
        };
        // SAFETY: the descriptor is open.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) };
        assert_eq!(flags(&file), 0);
        mark_open().unwrap();
        assert_eq!(flags(&file), libc::FD_CLOEXEC);
        assert_eq!(number(c".."), None);
    }
}
