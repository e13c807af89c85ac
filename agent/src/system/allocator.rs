//! The agent's allocator on a router: the C library's, with a `realloc` and a `calloc` that copy and clear by the word.
//!
//! zig builds its C library for size, and its `realloc` and `calloc` take five and four instructions for each byte: 6 %
//! of a first run, most of it for buffers that grow.
//!
//! **Invariants:** everything comes from the C library's `malloc`, and goes back to its `free`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

/// Alignment in bytes that `malloc` gives to every allocation.
const MALLOC_ALIGN: usize = 8;

/// An allocation of more bytes than this is a mapping of its own, which the kernel moves without copying it (mremap(2)):
/// zig's allocator serves smaller ones out of slabs.
const SLAB: usize = 64 * 1024;

/// The C library's allocator, faster.
pub struct Allocator;

// SAFETY: `System` allocates and frees everything. A block that `realloc` returns is either a new one or the old one,
// which then has at least the new size.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the block has this size.
        unsafe {
            let block = System.alloc(layout);
            if !block.is_null() {
                ptr::write_bytes(block, 0, layout.size());
            }
            block
        }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.align() <= MALLOC_ALIGN {
            // SAFETY: `System` has the block from `malloc`, because of its alignment.
            let usable = unsafe { libc::malloc_usable_size(old.cast()) };
            // A shorter one keeps its block, unless that would waste more than half of it.
            if size <= usable && size > usable / 2 {
                return old;
            }
            if usable > SLAB && size > SLAB {
                // SAFETY: `malloc` made the block, which has not been freed.
                return unsafe { libc::realloc(old.cast(), size).cast() };
            }
        }
        // SAFETY: the caller promises that the size, rounded up to the alignment, is no more than `isize::MAX`. Both blocks
        // have the bytes that are copied.
        unsafe {
            let new = System.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(old, new, size.min(layout.size()));
                System.dealloc(old, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a pattern into a block of each size in turn, and finds it again after the block was resized.
    fn resize(sizes: &[usize], align: usize) {
        let layout = |size| Layout::from_size_align(size, align).expect("a valid layout");
        // SAFETY: each block is used with the size and the alignment that it was allocated with, and freed once.
        unsafe {
            let mut block = Allocator.alloc_zeroed(layout(sizes[0]));
            assert!((0..sizes[0]).all(|index| *block.add(index) == 0));
            for pair in sizes.windows(2) {
                let [old, new] = pair else { unreachable!() };
                (0..*old).for_each(|index| *block.add(index) = (index * 7 + old) as u8);
                block = Allocator.realloc(block, layout(*old), *new);
                assert_eq!(block as usize % align, 0);
                assert!((0..*old.min(new)).all(|index| *block.add(index) == (index * 7 + old) as u8));
            }
            Allocator.dealloc(block, layout(sizes[sizes.len() - 1]));
        }
    }

    #[test]
    fn resized_blocks_keep_their_content() {
        const SIZES: [usize; 13] =
            [1, 8, 9, 4096, 4000, 1000, 70_000, 300_000, 200_000, 65_536, 100, 99, 65_537];
        for align in [1, 8, 64] {
            resize(&SIZES, align);
        }
    }
}
