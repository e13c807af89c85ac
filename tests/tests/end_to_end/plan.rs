//! What runs, in which order, how much of it at a time, and in which of two sets.
//!
//! **Invariants:** every test is in the set `All`; what is not in the set `Default` is marked as ignored, so `--include-ignored`
//! runs all tests, and `--ignored` those that a run without options left out.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};

use crate::{behaviour, enrolment, faults, hostile, soak, third_party, virtual_router};

/// Tests that run at a time for each CPU. An emulated router takes a whole CPU while it works; most tests wait half of their time.
const TESTS_PER_CPU: usize = 2;

/// Which command runs a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// `cargo xtask test`.
    Default,
    /// `cargo xtask test --all`.
    All,
}

/// A test that needs nothing but its name.
pub struct Case {
    pub name: &'static str,
    pub run: fn(),
}

/// Lists tests by their functions. The compiler warns of a function that no list has.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        [$($crate::plan::Case { name: stringify!($name), run: $name }),*]
    };
}

/// How long a test took that has ended.
struct Time {
    suite: String,
    name: String,
    duration: Duration,
}

/// The times of all tests that have ended.
type Times = Arc<Mutex<Vec<Time>>>;

/// The slowest tests that are named at the end.
const SLOWEST: usize = 12;

/// The tests, in the order in which they begin.
#[derive(Default)]
pub struct Plan {
    trials: Vec<Trial>,
    times: Times,
    reports: Vec<Box<dyn Fn()>>,
}

impl Plan {
    /// Adds a test of a suite. Its name is `SUITE::NAME`.
    pub fn add(&mut self, set: Set, suite: &str, name: &str, run: impl FnOnce() + Send + 'static) {
        let (times, suite, name) = (self.times.clone(), suite.to_owned(), name.to_owned());
        let trial = Trial::test(format!("{suite}::{name}"), move || {
            let since = Instant::now();
            run();
            times.lock().unwrap().push(Time { suite, name, duration: since.elapsed() });
            Ok(())
        });
        self.trials.push(trial.with_ignored_flag(set == Set::All));
    }

    /// Adds tests of a suite.
    pub fn add_cases(&mut self, set: Set, suite: &str, module: &str, cases: &'static [Case]) {
        for case in cases {
            self.add(set, suite, &format!("{module}::{}", case.name), case.run);
        }
    }

    /// Adds what is printed when all tests have ended.
    pub fn report(&mut self, report: impl Fn() + 'static) {
        self.reports.push(Box::new(report));
    }

    /// Prints how long the tests of each suite took together, and which tests took longest.
    fn print_times(&self) {
        let mut times = self.times.lock().unwrap();
        times.sort_by_key(|time| Reverse(time.duration));
        let mut suites = BTreeMap::<&str, (u32, Duration)>::new();
        for time in &*times {
            let (count, sum) = suites.entry(&time.suite).or_default();
            *count += 1;
            *sum += time.duration;
        }
        println!("{:>8} {:>5}  suite", "seconds", "tests");
        for (suite, (count, sum)) in suites {
            println!("{:8} {count:5}  {suite}", sum.as_secs());
        }
        println!("{:>8}  slowest tests", "seconds");
        for Time { suite, name, duration } in times.iter().take(SLOWEST) {
            println!("{:8.1}  {suite}::{name}", duration.as_secs_f64());
        }
    }
}

/// Runs the tests that the command line asks for.
pub fn run() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(cpus * TESTS_PER_CPU);
    let mut plan = Plan::default();
    // What takes longest begins first, so that nothing long runs alone at the end.
    third_party::plan(&mut plan);
    soak::plan(&mut plan);
    faults::plan(&mut plan);
    enrolment::plan(&mut plan);
    virtual_router::plan(&mut plan);
    hostile::plan(&mut plan);
    behaviour::plan(&mut plan);
    let mut trials = std::mem::take(&mut plan.trials);
    // libtest-mimic takes one filter. Here each of its words is to be in the name: `faults:: dir-505 upload`.
    if let Some(filter) = arguments.filter.take_if(|filter| filter.contains(' ')) {
        trials.retain(|trial| filter.split_whitespace().all(|word| trial.name().contains(word)));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        plan.reports.iter().for_each(|report| report());
        plan.print_times();
    }
    conclusion.exit_code()
}
