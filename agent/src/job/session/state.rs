//! The state of a session: the job's phase, everything that its controllers can still receive, and whether one is
//! attached.

use std::time::Duration;

use hop_proto::identity::Fingerprint;
use tokio::time::Instant;

use crate::files::outputs::{ArtifactSet, Position};
use crate::job::error::Error;
use crate::job::session::messages::FinalResult;
use crate::job::session::output_buffer::OutputBuffer;
use crate::store::receiver::Need;

/// The phase of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The agent looks for its blobs in the cache.
    Admitted,
    /// Blobs are missing.
    Receiving,
    /// All blobs have arrived.
    Complete,
    /// The program runs.
    Running,
    /// The outcome is known.
    Ended,
}

/// What a job waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The controller is to send the program or its input files.
    Upload,
    /// The controller is to let the program start.
    Start,
    /// A controller is to read output: the program has filled a window.
    Output,
    /// A controller is to fetch the output files.
    Artifacts,
}

/// Everything that a controller can receive of a job.
pub(super) struct State {
    /// The key of the job's controller.
    pub(super) owner: Fingerprint,
    pub(super) phase: Phase,
    /// The blobs that are missing.
    pub(super) needs: Vec<Need>,
    /// The number of the newest connection, which has the job.
    pub(super) connection: u64,
    /// The number of the last connection whose controller has left.
    pub(super) left: u64,
    /// The number of the last connection whose controller has broken a rule. Its requests are ignored.
    pub(super) unheard: u64,
    pub(super) has_started: bool,
    pub(super) buffer: OutputBuffer,
    /// How many bytes of its input the program has taken.
    pub(super) stdin: u64,
    pub(super) stdin_closed: bool,
    /// How many numbered signals have arrived. Each reaches the job once, even if its connection breaks.
    pub(super) signals: u64,
    /// The output files of the job, while the controller can fetch them.
    pub(super) offer: Option<ArtifactSet>,
    /// The controller has stored the output files up to this position.
    pub(super) stored: Position,
    pub(super) final_result: Option<FinalResult>,
    /// When the job ended.
    pub(super) ended: Option<Instant>,
}

impl State {
    /// The error of a job whose output was discarded.
    pub(super) fn lost_output(&self) -> Option<Error> {
        match self.final_result.as_deref()? {
            Err(Error::OutputLost { bytes, ending }) => {
                Some(Error::OutputLost { bytes: *bytes, ending: ending.clone() })
            }
            _ => None,
        }
    }
}

/// Whether a controller is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    /// When the last one left; `None` while one is attached.
    pub(super) left: Option<Instant>,
    /// How long the controller may be away; `None` without limit.
    pub(super) linger: Option<Duration>,
    /// The job was released: no controller wants it, or its output, any more.
    pub(super) is_released: bool,
}
