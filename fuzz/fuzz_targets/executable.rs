//! A file that may be a program: read by the controller before it uploads it, and by the agent before it starts it.
#![no_main]

use hop_formats::elf;
use hopd::system::host::{TARGET, can_execute};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let starts_well = can_execute(&file[..file.len().min(64)]);
    let Ok(executable) = elf::read(file) else { return };
    let elf::Target { class, data, machine } = executable.target;
    // The agent accepts every program that the controller uploads because it is for this machine.
    let is_ours = (class, data, machine) == (TARGET.class, TARGET.data, TARGET.machine);
    assert_eq!(starts_well, is_ours, "{executable:?}");
    assert!(executable.isa.is_none() || machine == 8, "{executable:?}");
});
