//! An old kernel's table of system calls: a seccomp filter that answers ENOSYS to every number after the last one of the old
//! kernel.
//!
//! **Invariants:** it is installed before any other process starts, and changes nothing else: no `no_new_privs`, no kills.

use std::io;

/// Hides every system call above `last` from this process and its children.
pub fn hide_above(last: u32) -> io::Result<()> {
    let filter = filter(last);
    let program =
        libc::sock_fprog { len: filter.len() as libc::c_ushort, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, which lives until the call has returned, and writes to nothing.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The filter decides by the number alone, because a 32-bit kernel has one architecture. The number is the first field of
/// `seccomp_data`.
fn filter(last: u32) -> [libc::sock_filter; 4] {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 0, 1, last),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_call_passes_and_the_next_fails() {
        let filter = filter(4348);
        assert_eq!(filter[1].k, 4348);
        assert_eq!((filter[1].jt, filter[1].jf), (0, 1));
        assert_eq!(filter[2].k & 0xffff, libc::ENOSYS as u32);
    }
}
