//! What needs no router but an agent of this machine: command lines, keys, streams.

#![allow(clippy::unwrap_used)]

mod agent;
mod command_line;
mod completions;
mod desk;
mod documents;
mod keys;
mod own_streams;
mod store;
mod terminal;
mod watch;
