//! The behaviour suite with the little-endian agent and programs, under qemu-user.

mod behaviour;

const STAGE: hop_tests::Stage = hop_tests::Stage::Mipsle;
