//! The agent of Hop: takes a program over the network into a router's RAM, runs it, and reports how it ended.
//!
//! From the outside in; each folder uses only those below it:
//!
//! - [`cli`]: the command line, and the commands that do not serve.
//! - [`daemon`]: the agent as a process. [`logging`]: its log.
//! - [`transport`]: connections. [`service`]: the gRPC service, between protobuf and the types below.
//! - [`job`]: jobs, and in [`job::session`] their streams across connections.
//! - [`access`]: who may connect. [`files`], [`store`], [`process`], [`system`]: the resources of jobs.
//! - `c_library`: replacements for functions of the C library, on a router.
//!
//! `docs/architecture.md` has the invariants.

pub mod access;
#[cfg(target_arch = "mips")]
mod c_library;
pub mod cli;
pub mod daemon;
pub mod files;
pub mod job;
pub mod logging;
pub mod process;
pub mod service;
pub mod store;
pub mod system;
pub mod transport;

#[cfg(target_arch = "mips")]
#[global_allocator]
static ALLOCATOR: system::allocator::Allocator = system::allocator::Allocator;
