//! Hop under attack: strangers and controllers against an agent, and a router against `hop`.
//!
//! **Invariant** of each attack on a router: another controller goes on as if nothing were, and the agent stays small.

#![allow(clippy::unwrap_used)]

mod attacked_router;
mod client;
mod floods;
mod lying_router;
mod messages;
mod replay;
mod router_against_hop;
mod strangers;
