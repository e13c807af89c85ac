//! Connections: listening, limits, TLS, HTTP/2, and how much a peer may send ahead.

pub mod acceptor;
pub mod connection_limits;
pub mod http2;
pub mod keepalive;
pub mod listener;
pub mod revocation;
