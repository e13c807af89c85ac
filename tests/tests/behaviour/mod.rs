//! How Hop behaves, whatever the router is made of. Each file that includes this names its target.

#![allow(clippy::unwrap_used)]

mod connections;
mod cores;
mod endings;
mod exhaustion;
mod go_test;
mod kept;
mod limits;
mod links;
mod output_files;
mod programs;
mod protocol;
mod streams;
mod terminal;
mod transfer;
