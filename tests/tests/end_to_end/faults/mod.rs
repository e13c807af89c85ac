//! The fault matrix of `docs/reliability.md`: every fault that can happen to a job, in every phase of its life, on a
//! whole virtual router. In each cell, `hop` reports the true outcome and prints the output of the program or its
//! beginning, and afterwards nothing of the job is on the router.

mod cell;
mod fault;
mod phase;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use hop_tests::Target;

use crate::plan::{Plan, Set};

use self::fault::Fault;
use self::phase::Phase;

/// The results of the cells, as text for the table.
type Results = Arc<Mutex<BTreeMap<(Fault, Phase), String>>>;

/// The virtual routers of the matrix, one of each endianness.
const TARGETS: [Target; 2] = [Target::DIR_505, Target::F7D7302];

/// Adds the cells, and the table of their results.
pub fn plan(plan: &mut Plan) {
    for target in TARGETS {
        let suite = format!("faults::{}", target.name());
        let results = Results::default();
        for (fault, phase) in Fault::ALL.into_iter().flat_map(|fault| Phase::ALL.map(|phase| (fault, phase)))
        {
            let results = results.clone();
            plan.add(Set::All, &suite, &format!("{fault}::{phase}"), move || {
                let seen = cell::run(target, fault, phase);
                results.lock().unwrap().insert((fault, phase), seen);
            });
        }
        plan.report(move || print(target, &results.lock().unwrap()));
    }
}

fn print(target: Target, results: &BTreeMap<(Fault, Phase), String>) {
    if results.is_empty() {
        return;
    }
    let row = |first: &str, cells: [&str; 7]| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:22}")).collect();
        println!("{first:20}{}", cells.trim_end());
    };
    row(target.name(), Phase::ALL.map(Phase::name));
    for fault in Fault::ALL {
        row(fault.name(), Phase::ALL.map(|phase| results.get(&(fault, phase)).map_or("-", String::as_str)));
    }
}
