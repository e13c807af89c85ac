//! Errors of a call, before it reaches a job or from the job itself.

use crate::access::authorized_keys;
use crate::job::error as job;

/// Errors of a call, before it reaches a job or from the job itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// All connections are in use.
    #[error("{limit} controllers are connected already, and that is the limit")]
    TooManyConnections {
        /// Maximum number of connections.
        limit: u32,
    },
    /// The remaining connections are reserved for other controllers.
    #[error("this controller has {held} connections, and the last {reserved} of {limit} are for others")]
    TooManyConnectionsOfKey {
        /// Number of connections that this controller has.
        held: u32,
        /// Number of connections that are reserved for others.
        reserved: u32,
        /// Maximum number of connections.
        limit: u32,
    },
    /// An error of the job, or of something that it needs.
    #[error(transparent)]
    Job(#[from] job::Error),
    /// The list of authorized controllers cannot be changed.
    #[error(transparent)]
    KeyList(#[from] authorized_keys::Error),
}
