//! Who means harm: strangers and controllers against an agent, and programs against their router.
//!
//! **Invariant** of each attack: another controller goes on as if nothing were, and the agent stays small.

#![allow(clippy::unwrap_used)]

mod client;
mod floods;
mod messages;
mod programs;
mod replay;
mod strangers;
mod target;
