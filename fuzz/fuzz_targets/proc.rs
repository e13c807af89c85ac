//! Files of /proc about the system and about the router's processes, whose names programs choose.
#![no_main]

use hop_formats::meminfo;
use hopd::process::reaper;
use hopd::system::memory::{Memory, RESERVE};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let memory = Memory(meminfo::Memory::parse(&text, &text, &text));
    assert!(memory.spare(0) <= memory.least().saturating_sub(RESERVE));

    reaper::parse(7, bytes);
    // A program may give itself any name, and the reaper still reads the other fields correctly.
    let stat = [b"7 (", bytes, b") Z 5 6 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 321 0\n"].concat();
    let process = reaper::Process {
        pid: 7,
        parent: 5,
        group: 6,
        is_zombie: true,
        resident: 321,
        threads: 1,
        started: 0,
    };
    assert_eq!(reaper::parse(7, &stat), Some(process));
});
