//! The behaviour suite on a virtual TP-Link Archer A6: OpenWrt with apk and cgroups, big endian, 128 MB.

mod behaviour;

const STAGE: hop_tests::Stage = hop_tests::Stage::Machine { profile: "archer-a6", goarch: "mips" };
