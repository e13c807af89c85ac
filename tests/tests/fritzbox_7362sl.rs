//! The behaviour suite on a virtual FRITZ!Box 7362 SL: OpenWrt 21, big endian, 128 MB.

mod behaviour;

const TARGET: hop_tests::Target = hop_tests::Target::Machine { profile: "fritzbox-7362sl", goarch: "mips" };
