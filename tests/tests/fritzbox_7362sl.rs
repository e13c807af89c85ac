//! The behaviour suite on a virtual FRITZ!Box 7362 SL: OpenWrt 21, big endian, 128 MB.

mod behaviour;

const STAGE: hop_tests::Stage = hop_tests::Stage::Machine { profile: "fritzbox-7362sl", goarch: "mips" };
