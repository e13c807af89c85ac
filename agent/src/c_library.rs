//! What the agent has of its own in place of the C library's, on a router.
//!
//! The linker takes what is here before it looks into a library. What must stay true: each function does all that its manual
//! page says, because whoever calls it is not only the agent but the Rust and the C library too; `hopd --self-test` tries them.

use std::arch::global_asm;
use std::ffi::{c_char, c_int};

// zig's memcpy takes six instructions for a word. This was a third of all that the agent did while a program was sent.
global_asm!(include_str!("c_library.s"), BIG = const cfg!(target_endian = "big") as u32);

/// pthread_setname_np(3), without the path to other threads, by which musl brings `printf` in: 10 kB. Rust names a thread only
/// from within.
#[unsafe(no_mangle)]
extern "C" fn pthread_setname_np(thread: libc::pthread_t, name: *const c_char) -> c_int {
    // SAFETY: the caller gives a string that ends with a zero byte, of which the kernel reads 16 bytes at most (prctl(2)).
    unsafe {
        if thread != libc::pthread_self() {
            return libc::ENOSYS;
        }
        libc::prctl(libc::PR_SET_NAME, name);
    }
    0
}
