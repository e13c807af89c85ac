//! The soak suite on a virtual Belkin F7D7302: DD-WRT, little endian, 64 MB.

#![allow(clippy::unwrap_used)]

mod soak;

fn main() -> std::process::ExitCode {
    soak::main(hop_tests::Target::Machine { profile: "f7d7302", goarch: "mipsle" })
}
