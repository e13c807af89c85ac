//! Files that a program finds, and those that it leaves.

pub mod core_dump;
pub mod error;
pub mod inputs;
pub mod output_search;
pub mod outputs;
