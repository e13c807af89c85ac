//! Formats that both sides of Hop read and that others defined, so that they are no part of the protocol.
//!
//! - [`meminfo`]: how much memory a system can give to programs.
//! - [`relocation`]: addresses in a program of which parts have moved.
//! - [`elf`] and [`segments`]: what an executable file is, and which part of it the kernel loads; with the feature `elf`.

// Not stable in Rust; the compiler of the agents is told to take it, as its library is built by it.
#![cfg_attr(target_arch = "mips", feature(optimize_attribute))]

#[cfg(feature = "elf")]
pub mod elf;
pub mod meminfo;
pub mod relocation;
#[cfg(feature = "elf")]
pub mod segments;
