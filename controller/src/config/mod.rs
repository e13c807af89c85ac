//! Hop's state on this machine: its directories, the inventory of routers, and locks.

pub mod enrolment;
mod error;
pub mod file_lock;
pub mod home;
pub mod inventory;

pub use self::error::Error;
