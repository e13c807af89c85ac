//! The behaviour suite on a virtual Teltonika RUT955: RutOS, big endian, 128 MB.

mod behaviour;

const STAGE: hop_tests::Stage = hop_tests::Stage::Machine { profile: "rut955", goarch: "mips" };
