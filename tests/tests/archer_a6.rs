//! The behaviour suite on a virtual TP-Link Archer A6: OpenWrt with apk and cgroups, big endian, 128 MB.

mod behaviour;

const TARGET: hop_tests::Target = hop_tests::Target::Machine { profile: "archer-a6", goarch: "mips" };
