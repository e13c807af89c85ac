//! What the plugin writes and the benchmark reads.

use std::sync::atomic::AtomicU64;

/// How many blocks of a guest can be told apart, a power of two. A router that has done all that is measured here has
/// executed some 100,000.
pub const RECORDS: usize = 1 << 19;

/// One block of instructions that are executed one after another. Empty while its length is 0.
#[repr(C)]
pub struct Record {
    /// Where it is in the guest's memory, as its process sees it.
    pub address: AtomicU64,
    /// How many instructions it has.
    pub length: AtomicU64,
    /// How often it was executed.
    pub executions: AtomicU64,
}
