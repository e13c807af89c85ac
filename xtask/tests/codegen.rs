//! The checked-in code is what `hop/v1/agent.proto` says. `HOP_CODEGEN=write` (set by `cargo xtask codegen`) writes it.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use prettyplease::unparse;

#[test]
fn the_generated_code_is_up_to_date() {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("proto");
    let generated = generate(&proto);
    let checked_in = proto.join("src/generated/hop.v1.rs");
    if std::env::var_os("HOP_CODEGEN").is_some_and(|mode| mode == "write") {
        fs::write(&checked_in, &generated).unwrap();
    }
    assert!(
        fs::read_to_string(&checked_in).unwrap_or_default() == generated,
        "{} is not what agent.proto says: run `cargo xtask codegen` and commit the result",
        checked_in.display()
    );
}

/// Compiles the proto with a compiler written in Rust, so that nobody needs protoc.
fn generate(proto: &Path) -> String {
    let files = protox::compile(["hop/v1/agent.proto"], [proto]).unwrap();
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .out_dir(out.path())
        // Both sides bring their own connection, and the agent answers calls with code of its own.
        .build_transport(false)
        .build_server(false)
        .client_mod_attribute("hop.v1", "#[cfg(feature = \"client\")]")
        // Chunks are handed on without a copy.
        .bytes(".hop.v1.BlobChunk.data")
        .bytes(".hop.v1.Output.data")
        .bytes(".hop.v1.OutputFile.data")
        .bytes(".hop.v1.Stdin.data")
        .compile_fds(files)
        .unwrap();
    let code = fs::read_to_string(out.path().join("hop.v1.rs")).unwrap();
    unparse(&syn::parse_file(&code).unwrap())
}
