//! What both sides of Hop must agree on.
//!
//! - [`v1`]: the messages of `hop/v1/agent.proto`, and how a controller calls its service.
//! - [`identity`]: the Ed25519 key of a side and the fingerprint that the other side pins.
//! - [`tls`]: TLS 1.3 between two identities, and nothing older, wider or dated.
//! - [`signal`]: the names under which signals travel.
//! - [`limits`]: numbers that both sides must know.
//! - [`output_path`]: by what output files are asked for.
//! - [`program_name`]: what a program may be called.

pub mod identity;
pub mod limits;
pub mod output_path;
pub mod program_name;
pub mod signal;
pub mod tls;

/// Messages and the controller's half of the service, generated from `hop/v1/agent.proto` by `cargo xtask codegen`.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    include!("generated/hop.v1.rs");
}
