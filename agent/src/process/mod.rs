//! Processes of programs: starts them, finds all of them, and kills them.

pub mod cgroup;
pub mod child;
pub mod descriptors;
pub mod error;
mod exit_wait;
pub mod pty;
pub mod reaper;
pub mod user;
