//! An old kernel's table of system calls: a seccomp filter which answers ENOSYS to every number after the last that the
//! old kernel had. It is put on before anything else is started and changes nothing else: no `no_new_privs`, no kills.

use std::io;

/// Hides every system call above `last` from this process and all that it starts.
pub fn hide_above(last: u32) -> io::Result<()> {
    let filter = filter(last);
    let program =
        libc::sock_fprog { len: filter.len() as libc::c_ushort, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, which lives until the call has returned, and writes to nothing.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The only architecture of a 32-bit kernel is its own, so the number alone decides; it is the first word of what a filter
/// sees.
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
    fn the_filter_lets_the_last_call_pass_and_refuses_the_next() {
        let filter = filter(4348);
        assert_eq!(filter[1].k, 4348);
        assert_eq!((filter[1].jt, filter[1].jf), (0, 1));
        assert_eq!(filter[2].k & 0xffff, libc::ENOSYS as u32);
    }
}
