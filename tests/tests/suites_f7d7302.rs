//! Tests of others on a virtual Belkin F7D7302: DD-WRT, little endian, 64 MB.

#![allow(clippy::unwrap_used)]

mod suites;

const TARGET: hop_tests::Target = hop_tests::Target::Machine { profile: "f7d7302", goarch: "mipsle" };
