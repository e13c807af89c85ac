//! Replacements for functions of the C library and of its unwinder, on a router, to save space: the linker takes these
//! before it searches a library.
//!
//! **Invariants:** each function does what its manual page says as far as it is called: the Rust library calls them
//! too.

use std::ffi::{c_char, c_int, c_void};

/// pthread_setname_np(3) for the calling thread only. musl's function names other threads through a path, for which it
/// links `printf`, 10 kB; Rust names a thread only from within.
#[unsafe(no_mangle)]
extern "C" fn pthread_setname_np(thread: libc::pthread_t, name: *const c_char) -> c_int {
    // SAFETY: the caller passes a zero-terminated string, of which the kernel reads at most 16 bytes (prctl(2)).
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

/// Walks no stack: an agent has no unwind tables, so libunwind would find nothing, with 45 kB of code. Only the Rust
/// library's own report of a panic refers to it, which the agent does not print.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_: *const c_void, _: *mut c_void) -> c_int {
    END_OF_STACK
}

/// The other functions of the unwinder that the Rust library refers to: each is called for a stack frame, and there is
/// none.
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
