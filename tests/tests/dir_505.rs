//! The behaviour suite on a virtual D-Link DIR-505: OpenWrt, big endian, 64 MB.

mod behaviour;

const STAGE: hop_tests::Stage = hop_tests::Stage::Machine { profile: "dir-505", goarch: "mips" };
