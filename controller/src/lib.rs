//! The controller of Hop: builds a Go program, sends it to a router, and behaves like the program.
//!
//! From the outside in:
//!
//! - [`cli`]: the command line. [`commands`]: what each command does.
//! - [`outcome`]: how a job ended, as exit code and as status file. [`error`]: everything that can go wrong, with its hint.
//!   [`failure`]: what of it the agent says.
//! - [`go`], [`program`], [`elf`], [`segments`]: from a package to a file that can run on the router.
//! - [`connection`], [`transport`], [`observed`], [`link`]: to the agent, and to it again. [`session`]: one job there.
//! - [`keeper`]: a connection that outlives the command which made it.
//! - [`blob`], [`packing`], [`packed`], [`delta`], [`sent`]: what goes to a router, what it is sent as, and what was sent before.
//! - [`enrolment`], [`ssh`]: how a router and this controller come to know each other's keys.
//! - [`output_files`], [`staged_file`]: the files that a program leaves, on their way to here.
//! - [`output`], [`stdin`], [`interrupt`], [`progress`], [`terminal`]: what a person sees and types. [`stdio`]: the three streams
//!   themselves. [`printable`]: foreign text, made fit for them.
//! - [`home`], [`inventory`], [`virtual_router`], [`embedded`]: what Hop keeps on this machine.

pub mod blob;
pub mod build_info;
pub mod cli;
pub mod commands;
pub mod connection;
pub mod delta;
pub mod elf;
pub mod embedded;
pub mod enrolment;
pub mod error;
pub mod failure;
pub mod file_lock;
pub mod go;
pub mod go_exec;
pub mod home;
pub mod input_tree;
pub mod interrupt;
pub mod inventory;
pub mod keeper;
pub mod link;
pub mod module;
pub mod observed;
pub mod outcome;
pub mod output;
pub mod output_files;
pub mod packed;
pub mod packing;
pub mod printable;
pub mod probe;
pub mod program;
pub mod progress;
pub mod segments;
pub mod sent;
pub mod session;
pub mod ssh;
pub mod staged_file;
pub mod stdin;
pub mod stdio;
pub mod terminal;
pub mod transport;
pub mod turn;
pub mod virtual_router;
