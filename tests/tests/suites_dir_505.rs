//! Tests of others on a virtual D-Link DIR-505: OpenWrt, big endian, 64 MB.

#![allow(clippy::unwrap_used)]

mod suites;

const TARGET: hop_tests::Target = hop_tests::Target::Machine { profile: "dir-505", goarch: "mips" };
