//! The behaviour suite with this machine's own agent and programs.

mod behaviour;

const STAGE: hop_tests::Stage = hop_tests::Stage::Host;
