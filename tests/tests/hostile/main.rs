//! Who means harm: strangers and controllers against an agent, and programs against their router.

#![allow(clippy::unwrap_used)]

mod programs;
