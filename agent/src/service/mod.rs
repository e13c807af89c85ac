//! The gRPC service of the agent: decodes requests, calls the jobs and their sessions, and encodes responses.
//!
//! **Invariants:** nothing here opens a file of a job or starts a process; no layer below knows protobuf types; and a
//! message that breaks a rule of `agent.proto` is refused here, or by the module that counts what the rule limits.

mod agent_service;
pub mod bounds;
pub mod codec;
pub mod decode;
mod encode;
pub mod error;
pub mod receive_budget;
pub mod request_body;
pub mod status;

/// The server half of the service, generated from `hop/v1/agent.proto` by `cargo xtask codegen`.
#[allow(missing_docs, clippy::all)]
mod generated {
    include!("generated/hop.v1.rs");
}

pub use crate::service::agent_service::{Admission, ConnectionService};
