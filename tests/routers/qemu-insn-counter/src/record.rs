//! The file that the plugin writes and the benchmark reads.

use std::sync::atomic::AtomicU64;

/// The capacity of the table in blocks, a power of two. A router that ran all rows of the benchmark has executed some 100,000
/// blocks.
pub const RECORDS: usize = 1 << 19;

/// One block of instructions that are executed one after another. Empty while its length is 0.
#[repr(C)]
pub struct Record {
    /// Its virtual address in the guest.
    pub address: AtomicU64,
    /// Its length in instructions.
    pub length: AtomicU64,
    /// The number of its executions.
    pub executions: AtomicU64,
}
