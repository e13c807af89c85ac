//! The checked-in code is what `hop/v1/agent.proto` says. `HOP_CODEGEN=write` (set by `cargo xtask codegen`) writes it.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use prettyplease::unparse;
use tonic_prost_build::Builder;

#[test]
fn generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (builder, checked_in) in [
        (messages_and_client(), "proto/src/generated/hop.v1.rs"),
        (server(), "agent/src/service/generated/hop.v1.rs"),
    ] {
        let generated = generate(&root.join("proto"), builder);
        let checked_in = root.join(checked_in);
        if std::env::var_os("HOP_CODEGEN").is_some_and(|mode| mode == "write") {
            fs::write(&checked_in, &generated).unwrap();
        }
        assert!(
            fs::read_to_string(&checked_in).unwrap_or_default() == generated,
            "{} is not what agent.proto says: run `cargo xtask codegen` and commit the result",
            checked_in.display()
        );
    }
}

/// For both sides; the client's half behind a feature, because the agent carries none.
fn messages_and_client() -> Builder {
    tonic_prost_build::configure()
        .build_server(false)
        .client_mod_attribute("hop.v1", "#[cfg(feature = \"client\")]")
        // Chunks are handed on without a copy.
        .bytes(".hop.v1.BlobChunk.data")
        .bytes(".hop.v1.Output.data")
        .bytes(".hop.v1.OutputFile.data")
        .bytes(".hop.v1.Stdin.data")
}

/// For the agent alone, whose codec looks at a message before it is decoded.
fn server() -> Builder {
    tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::service::codec::Codec")
        .extern_path(".hop.v1", "::hop_proto::v1")
}

/// Compiles the proto with a compiler written in Rust, so that nobody needs protoc.
fn generate(proto: &Path, builder: Builder) -> String {
    let files = protox::compile(["hop/v1/agent.proto"], [proto]).unwrap();
    let out = tempfile::tempdir().unwrap();
    // Both sides bring their own connection.
    builder.build_transport(false).out_dir(out.path()).compile_fds(files).unwrap();
    let code = fs::read_to_string(out.path().join("hop.v1.rs")).unwrap();
    unparse(&syn::parse_file(&code).unwrap())
}
