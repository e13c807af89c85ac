//! The soak suite of `docs/reliability.md`: much of everything, on a whole virtual router of 64 MB. What is promised is
//! asserted; what was measured is printed as well, in a table at the end.

mod at_once;
mod figures;
mod one_by_one;
mod pings;
mod slow_reader;

use std::process::ExitCode;

use hop_tests::Target;
use libtest_mimic::{Arguments, Trial};

use self::figures::Figures;

/// A test: what happens on a router, and what was measured.
type Test = fn(Target, &Figures);

const ALL: [(&str, Test); 5] = [
    ("a_thousand_runs_leave_the_agent_as_it_was", one_by_one::run),
    ("eight_at_once_all_run", at_once::eight),
    ("fifty_at_once_each_run_or_are_refused", at_once::fifty),
    ("every_byte_comes_through_a_slow_reader_and_the_agent_stays_small", slow_reader::run),
    ("a_program_goes_on_answering_while_another_eats_the_memory", pings::run),
];

/// Runs the tests that the command line asks for, and prints the table of what was measured.
pub fn main(target: Target) -> ExitCode {
    let arguments = Arguments::from_args();
    let figures = Figures::default();
    let trials = ALL.map(|(name, test)| {
        let figures = figures.clone();
        Trial::test(format!("soak::{name}"), move || {
            test(target, &figures);
            Ok(())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.into());
    figures.print();
    conclusion.exit_code()
}
