//! What the agent tells of a session without an attachment: in the list of jobs, and to a reader of the output.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use crate::job::session::output_buffer::OutputStream;
use crate::job::session::sent_state::next_piece;
use crate::job::session::state::{Phase, Wait};
use crate::job::session::stdout::Control;
use crate::job::session::{FinalResult, Session};

impl Session {
    /// Bytes of buffered output that no controller has acknowledged.
    pub fn unread(&self) -> u64 {
        self.state.with(|state| state.buffer.unread())
    }

    /// Bytes of output that the job's log has dropped unread; `None` for a job without a log.
    pub fn dropped(&self) -> Option<u64> {
        self.state.with(|state| state.buffer.is_log().then(|| state.buffer.dropped()))
    }

    /// The outcome of the job, or its error, if it has ended.
    pub fn final_result(&self) -> Option<FinalResult> {
        self.state.with(|state| state.final_result.clone())
    }

    /// What the job waits for, if it waits for something.
    pub fn waits_for(&self) -> Option<Wait> {
        let window = self.ownership.output_window;
        let flow = [OutputStream::Stdout, OutputStream::Stderr]
            .map(|stream| (stream, self.output(stream).with(|control| *control)));
        self.state.with(|state| match state.phase {
            Phase::Receiving => Some(Wait::Upload),
            Phase::Complete => Some(Wait::Start),
            Phase::Running => {
                let is_full = |(stream, control): &(OutputStream, Control)| {
                    !control.drops && state.buffer.end(*stream) >= control.acknowledged.saturating_add(window)
                };
                flow.iter().any(is_full).then_some(Wait::Output)
            }
            Phase::Ended if state.offer.is_some() => Some(Wait::Artifacts),
            Phase::Admitted | Phase::Ended => None,
        })
    }

    /// Polls for the next piece of buffered output after the offsets `delivered`, which advance to the end of that
    /// piece. `None` when the job has ended and there is no more.
    pub fn poll_piece(
        &self,
        context: &mut Context<'_>,
        delivered: &mut [u64; 2],
    ) -> Poll<Option<(OutputStream, u64, Bytes)>> {
        self.state.poll(context, |state| match next_piece(&state.buffer, delivered) {
            Some((stream, offset, data)) => Poll::Ready(Some((stream, offset, Bytes::copy_from_slice(data)))),
            None if state.final_result.is_none() => Poll::Pending,
            None => Poll::Ready(None),
        })
    }

    /// Where each output ends now.
    pub fn output_ends(&self) -> [u64; 2] {
        self.state
            .with(|state| [OutputStream::Stdout, OutputStream::Stderr].map(|stream| state.buffer.end(stream)))
    }

    /// True if no byte behind the offsets `delivered` and before `ends` is buffered.
    pub fn has_no_output_between(&self, delivered: [u64; 2], ends: [u64; 2]) -> bool {
        let streams = [OutputStream::Stdout, OutputStream::Stderr];
        self.state.with(|state| {
            let starts = streams.map(|stream| state.buffer.start(stream));
            (0..2).all(|stream| delivered[stream].max(starts[stream]) >= ends[stream])
        })
    }

    /// The offsets at which the output of the last `age` begins; without one, all that is buffered.
    pub fn output_since(&self, age: Option<Duration>) -> [u64; 2] {
        self.state.with(|state| age.map_or([0; 2], |age| state.buffer.since(age)))
    }
}
