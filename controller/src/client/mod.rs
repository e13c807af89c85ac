//! The connection to an agent: TCP or ssh, TLS, HTTP/2, reconnecting, and connections that several commands share.

pub mod capabilities;
pub mod connection;
mod error;
pub mod failure;
pub mod mux;
pub mod observed;
pub mod reconnect;
pub mod ssh;
pub mod transport;

pub use self::error::Error;
