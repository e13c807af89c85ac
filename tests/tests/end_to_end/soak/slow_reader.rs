//! Much output, and a reader that stops again and again: every byte arrives, the program waits, and the agent stays small.

use std::time::Instant;

use hop_proto::limits::OUTPUT_WINDOW_BYTES;
use hop_tests::{Target, VirtualRouter, wait_until};
use serde_json::Value;

use super::figures::Figures;

/// What the program writes: 100 MiB, in blocks.
const BLOCKS: u32 = 1600;
const BLOCK_BYTES: usize = 64 * 1024;

/// Times that the reader stops.
const STOPS: u32 = 16;

/// What the agent may hold at any of the stops more than before the program, in kB: the window of the output, twice while
/// its buffer grows, and the buffers of the two connections that there are then.
const HELD: u64 = 1024;

/// Reads the output in parts, and looks at the agent when it can get rid of nothing more.
pub fn run(target: Target, figures: &Figures) {
    let router = VirtualRouter::start(target);
    router.assert_serves_on();
    let before = router.footprint();
    let start = Instant::now();
    let mut running = router.exec("blocks").arg(BLOCKS.to_string()).start();
    let mut held = 0;
    let mut block = vec![0; BLOCK_BYTES];
    let mut expected: Vec<u8> = (0..BLOCK_BYTES).map(|i| i as u8).collect();
    for number in 0..BLOCKS {
        if number % (BLOCKS / STOPS) == BLOCKS / STOPS / 2 {
            wait_until("the window is full", || unread(&router) == u64::from(OUTPUT_WINDOW_BYTES));
            held = held.max(router.footprint().memory);
        }
        running.read(&mut block);
        expected[..4].copy_from_slice(&number.to_be_bytes());
        assert!(block == expected, "block {number} comes whole, after the one before it");
    }
    let ran = running.wait();
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("", "", 0));
    let took = start.elapsed();
    router.assert_serves_on();
    let after = router.footprint();
    assert!(
        held <= before.memory + HELD,
        "the agent held {held} kB while it waited, and {} before",
        before.memory
    );
    figures.add(
        "slow reader: bytes, and stops of the reader",
        format!("{}, {STOPS}", BLOCKS as usize * BLOCK_BYTES),
    );
    figures.add("slow reader: time", format!("{} s", took.as_secs()));
    for (when, kilobytes) in [("before", before.memory), ("at the stops", held), ("afterwards", after.memory)]
    {
        figures.add(format!("slow reader: memory of the agent {when}"), format!("{kilobytes} kB"));
    }
    figures.add("slow reader: the most that it had in RAM", format!("{} kB", after.peak));
}

/// Bytes of the only job's output that the agent keeps.
fn unread(router: &VirtualRouter) -> u64 {
    let ran = router.hop().args(["ps", "-r", "router", "--json"]).run();
    assert_eq!(ran.code, 0, "{}", ran.stderr());
    let jobs: Value = serde_json::from_slice(&ran.stdout).unwrap();
    jobs[0]["unread"].as_u64().unwrap()
}
