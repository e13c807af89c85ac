//! The soak suite on a virtual D-Link DIR-505: OpenWrt, big endian, 64 MB.

#![allow(clippy::unwrap_used)]

mod soak;

fn main() -> std::process::ExitCode {
    soak::main(hop_tests::Target::Machine { profile: "dir-505", goarch: "mips" })
}
