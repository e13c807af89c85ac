//! What the agent has of its own in place of the C library's, on a router.
//!
//! The linker takes what is here before it looks into a library. What must stay true: each function does all that its manual
//! page says, because whoever calls it is not only the agent but the Rust and the C library too; `hopd --self-test` tries them.

use std::alloc::{GlobalAlloc, Layout, System};
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

/// zig's allocator, but for realloc(3), which copies with a memcpy of zig's own: seven times what ours takes, and the buffers of
/// messages grow; and for calloc(3), which sets each byte by itself.
struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// From here on it maps memory for each block, and moves it without a copy.
const LARGE: usize = 32 * 1024;

/// Bytes that it puts in front of each block.
const HEADER_BYTES: usize = 8;

// SAFETY: the system's, or what `GlobalAlloc` does by itself.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the same as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the same as the caller's.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Blocks are of sizes that are powers of two: one that has room stays where it is.
        let has_room = (layout.size() + HEADER_BYTES).next_power_of_two() >= size + HEADER_BYTES;
        if has_room || layout.size() >= LARGE {
            // SAFETY: the same as the caller's.
            return unsafe { System.realloc(block, layout, size) };
        }
        // SAFETY: the caller gives a size that fits a layout, and a block of at least that of the old one, which is less here.
        unsafe {
            let larger = System.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !larger.is_null() {
                block.copy_to_nonoverlapping(larger, layout.size());
                System.dealloc(block, layout);
            }
            larger
        }
    }
}
