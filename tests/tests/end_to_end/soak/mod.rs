//! The soak suite of `docs/reliability.md`: much of everything, on a whole virtual router of 64 MB. What is promised is
//! asserted; what was measured is printed as well, in a table at the end.

mod at_once;
mod figures;
mod one_by_one;
mod pings;
mod slow_reader;

use hop_tests::Target;

use crate::plan::{Plan, Set};

use self::figures::Figures;

/// A test: what happens on a router, and what was measured.
type Test = fn(Target, &Figures);

const ALL: [(&str, Test); 5] = [
    ("thousand_runs_leave_no_growth", one_by_one::run),
    ("eight_at_once_all_run", at_once::eight),
    ("fifty_at_once_run_or_are_refused", at_once::fifty),
    ("slow_reader_gets_every_byte", slow_reader::run),
    ("program_answers_while_memory_is_eaten", pings::run),
];

/// The virtual routers on which it happens, one of each endianness.
const TARGETS: [Target; 2] = [Target::DIR_505, Target::F7D7302];

/// Adds the tests, and the table of what was measured.
pub fn plan(plan: &mut Plan) {
    for target in TARGETS {
        let figures = Figures::default();
        for (name, test) in ALL {
            let figures = figures.clone();
            plan.add(Set::All, &format!("soak::{}", target.name()), name, move || test(target, &figures));
        }
        plan.report(move || figures.print(target.name()));
    }
}
