//! The agent as a process: it starts, logs, is supervised, and shuts down in order.

pub mod pid_file;
pub mod serve;
pub mod supervisor;
