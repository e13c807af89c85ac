//! Enrolment over ssh, on whole virtual routers: the two ways, on all five profiles; every step that can fail; and what the
//! firmware does afterwards.

mod failures;
mod firmware;
mod install_modes;
mod owner;
mod planted;
mod sharing;

use crate::plan::{Plan, Set};

/// What a run without `--all` tries of it: the two ways, on one firmware with procd, big endian, and on the one without.
const DEFAULT: [&str; 4] = [
    "until_reboot_on_a_dir_505",
    "install_on_a_dir_505",
    "until_reboot_on_an_f7d7302",
    "install_on_an_f7d7302",
];

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
        for case in cases {
            let set = if DEFAULT.contains(&case.name) { Set::Default } else { Set::All };
            plan.add(set, "enrolment", &format!("{module}::{}", case.name), case.run);
        }
    }
}
