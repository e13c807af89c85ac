//! The router: its memory and other resources, its description, its file systems; and the runtime.

pub mod allocator;
pub mod error;
pub mod fs_remove;
pub mod fs_walk;
pub mod host;
pub mod memory;
pub mod oom_kills;
pub mod pressure;
pub mod resources;
pub mod runtime;
pub mod time;
