//! Formats that both sides of Hop read and that others defined, so that they are no part of the protocol.
//!
//! - [`meminfo`]: the memory that a Linux system has available for programs.
//! - [`relocation`]: adjusts the addresses in a program whose parts have moved.
//! - [`size`]: how both sides print a number of bytes.
//! - [`elf`] and [`segments`]: the properties of an executable file, and the part of it that the kernel loads; with the
//!   feature `elf`.

// Not stable in Rust. `cargo xtask build` allows it for the agents, as it does to build the standard library.
#![cfg_attr(target_arch = "mips", feature(optimize_attribute))]

#[cfg(feature = "elf")]
pub mod elf;
pub mod meminfo;
pub mod relocation;
#[cfg(feature = "elf")]
pub mod segments;
pub mod size;
