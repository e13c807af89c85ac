//! Enrolment over ssh, on whole virtual routers: the two ways, on all five profiles; and every step that can fail.

#![allow(clippy::unwrap_used)]

mod failures;
mod owner;
mod planted;
mod sharing;
mod ways;
