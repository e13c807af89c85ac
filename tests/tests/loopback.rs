//! The behaviour suite with this machine's own agent and programs.

mod behaviour;

const TARGET: hop_tests::Target = hop_tests::Target::Host;
