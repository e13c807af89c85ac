//! The protocol, the cryptography and the limits on which the agent and the controller agree.
//!
//! - [`v1`]: the messages of `hop/v1/agent.proto`, and the client of its service.
//! - [`identity`]: the Ed25519 key of each side, and the fingerprint that the other side pins.
//! - [`tls`]: TLS 1.3 between two identities, with one cipher suite, no older version and no certificates.
//! - [`signal`]: names of signals in messages.
//! - [`limits`]: limits and timeouts that both sides apply.
//! - [`output_path`]: paths and patterns by which a controller requests output files.
//! - [`program_name`]: valid names of programs.

pub mod identity;
pub mod limits;
pub mod output_path;
pub mod program_name;
pub mod signal;
pub mod tls;

/// Messages, and the client of the service, generated from `hop/v1/agent.proto` by `cargo xtask codegen`.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    include!("generated/hop.v1.rs");
}
