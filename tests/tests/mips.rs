//! The behaviour suite with the big-endian agent and programs, under qemu-user.

mod behaviour;

const STAGE: hop_tests::Stage = hop_tests::Stage::Mips;
