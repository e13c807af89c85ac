//! A thousand runs, one after the other: an agent that serves for months must not grow.

use std::time::Instant;

use hop_tests::{Target, VirtualRouter, fixture, wait_until};
use rustix::process::Signal;

use super::figures::Figures;

/// Runs at the beginning and at the end whose program is sent.
const SENT: u32 = 50;

/// Runs after the first and before the last of those. Another job holds their program, so it is not sent again, which takes
/// most of a second on an emulated CPU.
const HELD: [u32; 4] = [50, 300, 300, 250];

/// What the agent may have grown by after the first hundred runs, in kB: less than a tenth of a kB a run. Until then it
/// allocates what it allocates once, and has had two jobs at a time.
const GROWTH: u64 = 64;

/// Runs a program a thousand times, and compares what the agent holds.
pub fn run(target: Target, figures: &Figures) {
    let router = VirtualRouter::start(target);
    let program = fixture(target, "counter");
    let hop = || router.hop().args(["exec", "-r", "router"]).arg(&program);
    // The time of each in milliseconds.
    let runs = |count: u32| {
        let since = Instant::now();
        for _ in 0..count {
            let ran = hop().args(["1", "0"]).run();
            assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("0\n", "", 7));
        }
        since.elapsed().as_millis() / u128::from(count)
    };
    let runs_beside_another = |count: u32| {
        let mut other = hop().args(["1", "1000000"]).start();
        assert_eq!(other.line(), "0\n");
        let each = runs(count);
        other.signal(Signal::TERM);
        assert_eq!(other.wait().code, 143);
        each
    };

    let sent = runs(SENT);
    let held = runs_beside_another(HELD[0]);
    let first = router.footprint();
    let mut looks = vec![first];
    for count in &HELD[1..] {
        runs_beside_another(*count);
        looks.push(router.footprint());
    }
    runs(SENT);
    router.wait_until_idle();
    // The end of a connection reaches the agent a moment after its `hop` has ended.
    wait_until("the connections are closed", || router.footprint().descriptors <= first.descriptors);
    let last = router.footprint();
    looks.push(last);
    router.assert_serves_on();
    assert!(last.memory <= first.memory + GROWTH, "{looks:?}");
    assert_eq!(last.children, 0, "no process is left");

    let memory: Vec<_> = looks.iter().map(|look| look.memory.to_string()).collect();
    figures.add("1000 runs: memory after 100, 400, 700, 950, 1000", format!("{} kB", memory.join(", ")));
    let descriptors = format!("{}, {}", first.descriptors, last.descriptors);
    figures.add("1000 runs: open files after 100, 1000", descriptors);
    figures.add("1000 runs: the most that it had in RAM", format!("{} kB", last.peak));
    figures.add("1000 runs: a run whose program is sent, is there", format!("{sent} ms, {held} ms"));
}
