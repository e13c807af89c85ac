//! Hop under attack: what a peer that breaks the rules on purpose achieves, which is to be refused.

#![allow(clippy::unwrap_used)]

mod lying_router;
mod router_against_hop;
