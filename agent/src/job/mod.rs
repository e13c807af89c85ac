//! Jobs: one run of a program each, from its admission to its outcome.

pub mod artifacts;
pub mod environment;
pub mod error;
pub mod execute;
pub mod job_log;
pub mod oom_guard;
pub mod outcome;
pub mod registry;
pub mod running;
pub mod session;
pub mod spec;
pub mod upload;
pub mod workspace;
