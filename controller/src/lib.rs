//! The controller of Hop: builds a Go program, sends it to a router, and behaves like the program.
//!
//! From the outside in:
//!
//! - [`cli`]: the command line. [`commands`]: what each command does.
//! - [`virtual_router`]: routers under QEMU. [`enrolment`]: how a router and this controller come to know each other's keys.
//! - [`golang`]: from a package to a program for a router. [`session`]: one job on a router.
//! - [`inputs`]: files that go with a program. [`program`]: executables. [`transfer`]: what is sent for them. [`client`]: the connection to an agent.
//! - [`console`]: the terminal and the standard streams. [`config`]: what Hop keeps on this machine.

pub mod cli;
pub mod client;
pub mod commands;
pub mod config;
pub mod console;
pub mod enrolment;
pub mod golang;
pub mod inputs;
pub mod path_error;
pub mod program;
pub mod session;
pub mod transfer;
pub mod virtual_router;
