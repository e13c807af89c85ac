//! Translates between the protocol and the jobs: decodes requests, calls the jobs and their sessions, and encodes what those say.
//!
//! **Invariants:** nothing here touches a file or a process, and nothing below knows a message. A message that breaks the rules of
//! `agent.proto` is refused here or by the module that counts.

mod agent_service;
pub mod bounds;
pub mod codec;
pub mod decode;
mod encode;
pub mod receive_budget;
pub mod request_body;
pub mod status;

/// The server half of the service, generated from `hop/v1/agent.proto` by `cargo xtask codegen`.
#[allow(missing_docs, clippy::all)]
mod generated {
    include!("generated/hop.v1.rs");
}

pub use crate::service::agent_service::{Admission, ConnectionService};
