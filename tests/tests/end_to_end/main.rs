//! Hop from end to end: the real `hop`, the real `hopd`, on this machine and on whole virtual routers.
//!
//! All suites are one program, so that tests of one suite run while those of another wait, whole virtual routers are booted once
//! for all, and there is one thing to link. [`plan`] says what runs, in which order, and what only `cargo xtask test --all` runs.

#![allow(clippy::unwrap_used)]

#[macro_use]
mod plan;

mod behaviour;
mod enrolment;
mod faults;
mod hostile;
mod soak;
mod third_party;
mod virtual_router;

fn main() -> std::process::ExitCode {
    plan::run()
}
