//! Why a call is refused before a job has to do with it, or by the job.

use crate::access::authorized_keys;
use crate::job::error as job;

/// Why a call is refused before a job has to do with it, or by the job.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// All places for connections are taken.
    #[error("{limit} controllers are connected already, and that is the limit")]
    TooManyConnections {
        /// How many may be connected at once.
        limit: u32,
    },
    /// The connections that are left are for other controllers.
    #[error("this controller has {held} connections, and the last {reserved} of {limit} are for others")]
    TooManyConnectionsOfKey {
        /// How many it has.
        held: u32,
        /// How many are kept for others.
        reserved: u32,
        /// How many there can be at once.
        limit: u32,
    },
    /// The job, or what it is made of.
    #[error(transparent)]
    Job(#[from] job::Error),
    /// The list of authorized controllers cannot be changed.
    #[error(transparent)]
    KeyList(#[from] authorized_keys::Error),
}
