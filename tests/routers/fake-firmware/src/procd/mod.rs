//! procd: services, the log, and ubus, by which programs talk to it.

pub mod json;
pub mod log;
mod respawn;
pub mod supervisor;
pub mod ubus;
