//! Building the agents, with the toolchain for MIPS, and `hop`.

pub mod agents;
pub mod cache;
pub mod dist;
pub mod toolchain;
