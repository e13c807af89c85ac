//! Hop under attack: strangers and controllers against an agent, and a router against `hop`.
//!
//! **Invariant** of each attack on a router: another controller goes on as if nothing were, and the agent stays small.

mod attacked_router;
mod client;
mod floods;
mod lying_router;
mod messages;
mod replay;
mod router_against_hop;
mod strangers;

use crate::plan::{Plan, Set};

/// Adds the tests.
pub fn plan(plan: &mut Plan) {
    let modules = [
        ("strangers", strangers::ALL),
        ("floods", floods::ALL),
        ("messages", messages::ALL),
        ("replay", replay::ALL),
        ("router_against_hop", router_against_hop::ALL),
    ];
    for (module, cases) in modules {
        plan.add_cases(Set::Default, "hostile", module, cases);
    }
}
