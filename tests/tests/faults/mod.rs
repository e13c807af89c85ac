//! The fault matrix of `docs/reliability.md`: everything that can happen to a job, in every phase of its life, on a whole
//! virtual router. In each cell the outcome that is told is the true one, what was printed is what the program wrote or
//! its beginning, and afterwards nothing of the job is on the router.

mod cell;
mod fault;
mod phase;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use hop_tests::Target;
use libtest_mimic::{Arguments, Trial};

use self::fault::Fault;
use self::phase::Phase;

/// Cells at a time: most of their time is spent waiting.
const CELLS_AT_ONCE: usize = 4;

/// What was seen, in words for the table.
type Results = Arc<Mutex<BTreeMap<(Fault, Phase), String>>>;

/// Runs the cells that the command line asks for, and prints the table of what was seen.
pub fn main(target: Target) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(CELLS_AT_ONCE);
    let results = Results::default();
    let cells = Fault::ALL.into_iter().flat_map(|fault| Phase::ALL.map(|phase| (fault, phase)));
    let trials = cells.map(|(fault, phase)| {
        let results = results.clone();
        Trial::test(format!("faults::{fault}::{phase}"), move || {
            let seen = cell::run(target, fault, phase);
            results.lock().unwrap().insert((fault, phase), seen);
            Ok(())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    print(&results.lock().unwrap());
    conclusion.exit_code()
}

fn print(results: &BTreeMap<(Fault, Phase), String>) {
    if results.is_empty() {
        return;
    }
    let row = |first: &str, cells: [&str; 7]| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:22}")).collect();
        println!("{first:20}{}", cells.trim_end());
    };
    row("", Phase::ALL.map(Phase::name));
    for fault in Fault::ALL {
        row(fault.name(), Phase::ALL.map(|phase| results.get(&(fault, phase)).map_or("-", String::as_str)));
    }
}
