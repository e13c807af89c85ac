//! The terminal and the standard streams of `hop` itself: what a user sees, types and signals.

pub mod printable;
pub mod progress;
pub mod signals;
pub mod stdio;
pub mod terminal;
