//! Functions of the C library and of its unwinder that the agent has of its own, on a router, for their size: the linker takes what
//! is here before it looks into a library.
//!
//! **Invariants:** each function keeps to its manual page as far as it is called: the Rust library calls them too.

use std::ffi::{c_char, c_int, c_void};

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

/// `_URC_END_OF_STACK` of the unwinder's interface (Itanium C++ ABI, exception handling, section 1.2).
const END_OF_STACK: c_int = 5;

/// Walks no stack: an agent has no tables for that, so libunwind would find nothing with 45 kB of code. The Rust library's own
/// report of a panic names it, and the agent does not print that one.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_: *const c_void, _: *mut c_void) -> c_int {
    END_OF_STACK
}

/// The rest of the unwinder that the Rust library names: it is called for a frame of the stack, and there is none.
macro_rules! for_no_frame {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> usize {
            0
        }
    )*};
}

for_no_frame! {
    _Unwind_FindEnclosingFunction _Unwind_GetCFA _Unwind_GetDataRelBase _Unwind_GetIP _Unwind_GetIPInfo
    _Unwind_GetLanguageSpecificData _Unwind_GetRegionStart _Unwind_GetTextRelBase _Unwind_SetGR _Unwind_SetIP
}
