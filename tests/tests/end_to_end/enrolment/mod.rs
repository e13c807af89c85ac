//! Enrolment over ssh, on whole virtual routers: the two ways, on all five profiles; every step that can fail; and what the
//! firmware does afterwards.

mod failures;
mod firmware;
mod install_modes;
mod owner;
mod planted;
mod sharing;

use crate::plan::{Plan, Set};

/// Adds the tests.
pub fn plan(plan: &mut Plan) {
    let modules = [
        ("firmware", firmware::ALL),
        ("planted", planted::ALL),
        ("sharing", sharing::ALL),
        ("failures", failures::ALL),
        ("install_modes", install_modes::ALL),
    ];
    for (module, cases) in modules {
        plan.add_cases(Set::All, "enrolment", module, cases);
    }
}
