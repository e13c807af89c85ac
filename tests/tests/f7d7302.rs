//! The behaviour suite on a virtual Belkin F7D7302: DD-WRT with kernel 3.10, little endian, 64 MB.

mod behaviour;

const TARGET: hop_tests::Target = hop_tests::Target::Machine { profile: "f7d7302", goarch: "mipsle" };
