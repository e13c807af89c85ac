//! The behaviour suite on a virtual Teltonika RUT955: RutOS, big endian, 128 MB.

mod behaviour;

const TARGET: hop_tests::Target = hop_tests::Target::Machine { profile: "rut955", goarch: "mips" };
