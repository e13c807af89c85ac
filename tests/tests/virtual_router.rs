//! The virtual router itself, where a fault of it would look like one of Hop.

#![allow(clippy::unwrap_used)]

use hop_tests::Machine;

/// The lines of its second interrupt controller that wait for levels, as QEMU shows them: 10 and 11, which PCI's are.
const LEVELS_OF_PCI: &str = "elcr=0c";

/// A card that shares a line of edges with another device is forgotten sooner or later, and with it the network.
#[test]
fn devices_that_share_an_interrupt_are_all_served() {
    for profile in ["rut955", "f7d7302"] {
        let machine = Machine::boot(profile);
        let assert_levels = || {
            let said = machine.monitor().human("info pic").unwrap();
            let second = said.lines().find(|line| line.trim_start().starts_with("pic1:"));
            assert!(second.is_some_and(|line| line.contains(LEVELS_OF_PCI)), "{profile}: {said}");
        };
        assert_levels();
        machine.machine().reset().unwrap();
        assert_levels();
    }
}
