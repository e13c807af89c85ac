//! The agent of Hop: takes a program over the network into a router's RAM, runs it, and reports how it ended.
//!
//! From the outside in:
//!
//! - [`options`], [`log`], [`self_test`], [`print`]: the command line and what it can ask for.
//! - [`supervisor`], [`pid_file`]: an agent that is watched where nothing else watches.
//! - [`server`]: starts the agent, and ends it in order. [`listener`], [`acceptor`]: where controllers come in, TLS, and who may.
//!   [`connection_limits`]: how many. [`refusal_log`]: who may not. [`http2`], [`keepalive`]: their connections, and
//!   when one is given up. [`receive_budget`], [`bounds`]: how much they may send at a time.
//! - [`key_file`], [`authorized_keys`], [`safe_path`], [`directory_lock`], [`revocation`]: who may connect, and what becomes of who may not any more.
//! - [`cipher`]: what its TLS seals and opens with.
//! - [`service`]: translates between the protocol and the modules below; touches no file and no process. [`codec`]: how its requests
//!   are decoded. [`status`]: what each error is to gRPC.
//! - [`jobs`], [`job`], [`job_directory`], [`running`], [`outcome`], [`job_log`]: all jobs; one run of a program, from its admission to its outcome.
//! - [`link`], [`tape`]: what stands between a job and its controller while connections come and go. [`board`]: what wakes those which wait
//!   for either. [`packer`]: output on its way.
//! - [`input_tree`]: the files that a program finds. [`output_files`], [`core_file`], [`handover`]: those that it leaves.
//! - [`child`], [`descriptors`], [`family`], [`cgroup`], [`user`]: the program's processes, all of them. [`input`], [`output`], [`terminal`]: its streams.
//! - [`reception`], [`decoder`], [`delta`], [`relocation`], [`lz4`]: a program that arrives, whatever it is sent as.
//! - [`store`], [`shelf`], [`tree`], [`memory`], [`guard`], [`machine`]: the files in RAM, the RAM, the router.
//! - [`error`]: everything that can go wrong, in one type; [`time`]: moments that may never come; [`task`]: the runtime.
//! - `c_library`: what takes the place of the C library's, on a router.
//!
//! What must stay true is in `docs/architecture.md`.

// Assembler is not stable in Rust for MIPS; the compiler of the agents is told to take it, as its library is built by it.
#![cfg_attr(target_arch = "mips", feature(asm_experimental_arch, optimize_attribute))]

pub mod acceptor;
pub mod arguments;
pub mod authorized_keys;
pub mod board;
pub mod bounds;
#[cfg(target_arch = "mips")]
mod c_library;
pub mod cgroup;
pub mod child;
pub mod cipher;
pub mod codec;
pub mod connection_limits;
pub mod core_file;
pub mod decoder;
pub mod delta;
pub mod descriptors;
pub mod directory_lock;
pub mod error;
pub mod family;
pub mod guard;
pub mod handover;
pub mod http2;
pub mod input;
pub mod input_tree;
pub mod job;
pub mod job_directory;
pub mod job_log;
pub mod jobs;
pub mod keepalive;
pub mod key_file;
pub mod link;
pub mod listener;
pub mod log;
pub mod lz4;
pub mod machine;
pub mod memory;
pub mod options;
pub mod outcome;
pub mod output;
pub mod output_files;
pub mod packer;
pub mod pid_file;
pub mod print;
pub mod receive_budget;
pub mod reception;
pub mod refusal_log;
pub mod relocation;
pub mod resources;
pub mod revocation;
pub mod running;
pub mod safe_path;
pub mod self_test;
pub mod server;
pub mod service;
pub mod shelf;
pub mod status;
pub mod store;
pub mod supervisor;
pub mod tape;
pub mod task;
pub mod terminal;
pub mod time;
pub mod tree;
pub mod user;

/// The server half of the service, generated from `hop/v1/agent.proto` by `cargo xtask codegen`.
#[allow(missing_docs, clippy::all)]
mod generated {
    include!("generated/hop.v1.rs");
}
