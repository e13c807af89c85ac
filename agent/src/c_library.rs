//! Replacements for functions of the C library and of its unwinder, on a router, to save space and time: the linker takes
//! these before it searches a library.
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

/// memcpy(3). That of zig's library copies a word in six instructions, wherever the two lie; this one copies it in three
/// if both are aligned, as almost always, and in four otherwise.
///
/// LLVM makes no call of `memcpy` out of loops in a function of this name.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    let (mut target, mut source, mut left) = (to, from, bytes);
    // Copies words, and moves on.
    macro_rules! copy {
        ($($word:literal)*, $read:ident, $write:ident) => {{
            let (reader, writer) = (source.cast::<u32>(), target.cast::<u32>());
            // All are read first: a 24Kc would wait for each word that is written at once.
            let words = [$(reader.add($word).$read()),*];
            $(writer.add($word).$write(words[$word]);)*
            let copied = 4 * words.len();
            (source, target, left) = (source.add(copied), target.add(copied), left - copied);
        }};
    }
    // SAFETY: the caller promises that `bytes` can be read and written, and `left` of them are left. Words are read and
    // written as aligned ones only after their addresses were checked.
    unsafe {
        if left >= 16 {
            // The first word goes to wherever it begins, and the next to the next address that is aligned.
            target.cast::<u32>().write_unaligned(source.cast::<u32>().read_unaligned());
            let skipped = (target as usize).wrapping_neg() % 4;
            (source, target, left) = (source.add(skipped), target.add(skipped), left - skipped);
            if source as usize % 4 == 0 {
                while left >= 32 {
                    copy!(0 1 2 3 4 5 6 7, read, write);
                }
                while left >= 4 {
                    copy!(0, read, write);
                }
            } else {
                while left >= 16 {
                    copy!(0 1 2 3, read_unaligned, write);
                }
            }
        }
        while left >= 4 {
            copy!(0, read_unaligned, write_unaligned);
        }
        while left > 0 {
            *target = *source;
            (source, target, left) = (source.add(1), target.add(1), left - 1);
        }
    }
    to
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
