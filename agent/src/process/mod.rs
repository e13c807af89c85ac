//! Processes of programs: started, found wherever they hide, and killed.

pub mod cgroup;
pub mod child;
pub mod descriptors;
pub mod error;
pub mod pty;
pub mod reaper;
pub mod user;
