//! A program that talks to its controller while another one eats all memory.

use std::io::Write;
use std::thread;

use hop_tests::{Target, VirtualRouter, fixture};

use super::figures::Figures;

/// Times that the memory is eaten.
const MEALS: u32 = 5;

/// The longest time from one ping to the next that the program may see, in milliseconds. It should be below a second,
/// which the table shows; the test fails only above five times as much, because the emulating machine has other work.
const LONGEST: u64 = 5000;

/// Pings a program without a pause while other programs eat the memory, each until the agent kills it.
pub fn run(target: Target, figures: &Figures) {
    let router = VirtualRouter::start(target);
    let (pinged, eater) = (fixture(target, "pinged"), fixture(target, "eat-memory"));
    let hop = || router.hop().args(["exec", "-r", "router"]);
    let mut running = hop().arg(&pinged).start();
    assert_eq!(running.line(), "ready\n");
    // Microseconds, by the program's own clock: from when it read a ping to when it had read the next one, so that the way of
    // an answer and of a ping is in it. The first one also has the start of the programs.
    let mut gaps = Vec::new();
    thread::scope(|scope| {
        let eating = scope.spawn(|| (0..MEALS).map(|_| hop().arg(&eater).run()).collect::<Vec<_>>());
        while !eating.is_finished() {
            writeln!(running.stdin.as_mut().unwrap(), "ping").unwrap();
            gaps.push(running.line().trim().parse::<u64>().unwrap());
        }
        for ran in eating.join().unwrap() {
            assert_eq!(ran.code, 137, "{}", ran.stderr());
            assert!(ran.stderr().contains("running out of memory"), "{}", ran.stderr());
        }
    });
    let ran = running.wait();
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("", "", 7));
    router.assert_serves_on();
    gaps.sort_unstable();
    let [median, longest] = [gaps.len() / 2, gaps.len() - 1].map(|index| gaps[index] / 1000);
    assert!(longest <= LONGEST, "it heard nothing for {longest} ms");
    figures.add("pings: answers while the memory was eaten five times", gaps.len());
    figures.add("pings: time from one to the next, median and longest", format!("{median} ms, {longest} ms"));
}
