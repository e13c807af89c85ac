//! Enrolment over ssh, on whole virtual routers: the two ways, on all five profiles; every step that can
//! fail; and what the firmware does afterwards.

#![allow(clippy::unwrap_used)]

mod failures;
mod firmware;
mod owner;
mod planted;
mod sharing;
mod ways;
