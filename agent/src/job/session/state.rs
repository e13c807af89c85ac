//! What a controller can hear of a job, and whether it is there.

use hop_proto::identity::Fingerprint;
use tokio::time::Instant;

use crate::error::Error;
use crate::files::outputs::{ArtifactSet, Position};
use crate::job::session::messages::FinalResult;
use crate::job::session::output_buffer::OutputBuffer;
use crate::store::receiver::Need;

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is looked for in the disk cache.
    Admitted,
    /// Blobs are still to be received.
    Receiving,
    /// All that is needed is here.
    Complete,
    /// The program runs.
    Running,
    /// The outcome is known.
    Ended,
}

/// What a controller can hear.
pub(super) struct State {
    /// The key of its controller.
    pub(super) owner: Fingerprint,
    pub(super) phase: Phase,
    /// What is still to be received.
    pub(super) needs: Vec<Need>,
    /// Whose turn it is: the number of the newest connection.
    pub(super) connection: u64,
    /// The last one whose controller has left.
    pub(super) left: u64,
    /// The last one whose controller has broken a rule, and is not heard any more.
    pub(super) unheard: u64,
    pub(super) has_started: bool,
    pub(super) buffer: OutputBuffer,
    /// How much of its input the program has taken.
    pub(super) stdin: u64,
    pub(super) stdin_closed: bool,
    /// How many numbered signals have come. Each goes to the job once, whatever becomes of its connection.
    pub(super) signals: u64,
    /// The files that it has left, while they can be had.
    pub(super) offer: Option<ArtifactSet>,
    /// Before this, the controller has them.
    pub(super) stored: Position,
    pub(super) final_result: Option<FinalResult>,
    /// Since when that is known.
    pub(super) ended: Option<Instant>,
}

impl State {
    /// What is said of output that was given up.
    pub(super) fn lost_output(&self) -> Option<Error> {
        match self.final_result.as_deref()? {
            Err(Error::OutputLost { bytes, ending }) => {
                Some(Error::OutputLost { bytes: *bytes, ending: ending.clone() })
            }
            _ => None,
        }
    }
}

/// Whether a controller is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    /// Since when there is none.
    pub(super) left: Option<Instant>,
    /// Nobody wants the job, or what is left of it, any more.
    pub(super) is_released: bool,
}
