//! The record of what a connection has sent to its controller, and the event that comes next.
//!
//! **Invariants:** a connection sends each byte and each change once; output files follow all output; and the outcome,
//! or the error that ended the job, comes last.

use crate::files::outputs::{Cursor, Piece};
use crate::job::session::Session;
use crate::job::session::encoder::Encoder;
use crate::job::session::messages::Event;
use crate::job::session::output_buffer::{OutputBuffer, OutputStream};
use crate::job::session::state::{Phase, State};

/// The record of what one connection has sent to the controller.
pub(super) struct SentState {
    /// The number of the connection.
    pub(super) connection: u64,
    pub(super) accepted: bool,
    pub(super) started: bool,
    /// How much of its input the program has taken, and whether it takes no more, as last sent.
    pub(super) stdin: (u64, bool),
    /// How many numbered signals were acknowledged.
    pub(super) signals: u64,
    /// The offsets at which the outputs continue.
    pub(super) outputs: [u64; 2],
    pub(super) files: Cursor,
    /// The last event was sent.
    pub(super) is_complete: bool,
}

impl SentState {
    /// The state of a new connection, whose outputs and output files continue there.
    pub(super) fn new(connection: u64, outputs: [u64; 2], files: Cursor) -> Self {
        Self {
            connection,
            accepted: false,
            started: false,
            stdin: (0, false),
            signals: 0,
            outputs,
            files,
            is_complete: false,
        }
    }

    /// The next event for the controller, which counts as sent.
    pub(super) fn next(&mut self, session: &Session, state: &State, encoder: &mut Encoder) -> Option<Event> {
        if state.connection != self.connection {
            self.is_complete = true;
            return Some(Event::TakenOver);
        }
        if !self.accepted && state.phase != Phase::Admitted {
            // A job that failed before it started was never accepted: its error is all that there is to send.
            let has_failed = state.final_result.as_ref().is_some_and(|last| last.is_err());
            self.accepted = true;
            self.signals = state.signals;
            if !has_failed || state.has_started {
                let needs = match state.phase {
                    Phase::Receiving => state.needs.clone(),
                    _ => Vec::new(),
                };
                let (job, stdin) = (session.job.clone(), session.stdin.received());
                let (outputs, signals) = (self.outputs, self.signals);
                return Some(Event::Accepted { job, needs, stdin, outputs, signals });
            }
        }
        // A controller that reattaches may be another process, which does not know that the input has ended. It must
        // learn that before it learns that the program runs, or it would send input of its own.
        let has_ended = self.connection > 1 && session.stdin.has_ended();
        let stdin = (state.stdin, state.stdin_closed || has_ended);
        if state.has_started && self.stdin != stdin {
            self.stdin = stdin;
            return Some(Event::StdinAck { offset: stdin.0, closed: stdin.1 });
        }
        if !self.started && state.has_started {
            self.started = true;
            return Some(Event::Started { has_terminal: session.ownership.has_terminal });
        }
        if self.accepted && self.signals != state.signals && state.final_result.is_none() {
            self.signals = state.signals;
            return Some(Event::SignalAck(state.signals));
        }
        if let Some((stream, offset, content)) = next_piece(&state.buffer, &mut self.outputs) {
            return Some(Event::Output { stream, offset, payload: encoder.encode(content) });
        }
        match &state.offer {
            Some(offer) => {
                if let Some(Piece { at, data, info, problem }) = offer.next(&mut self.files, state.stored) {
                    return Some(Event::File { at, info, problem, payload: encoder.encode_owned(data) });
                }
            }
            // No file of the job may be open when the controller learns that it has ended.
            None => self.files.close(),
        }
        let last = state.final_result.clone()?;
        self.is_complete = true;
        Some(Event::Ended(last))
    }
}

/// The next piece of output for a controller that has all before the offsets `delivered`, which advance to its end.
pub(super) fn next_piece<'a>(
    buffer: &'a OutputBuffer,
    delivered: &mut [u64; 2],
) -> Option<(OutputStream, u64, &'a [u8])> {
    let (stream, offset, data) = buffer.next(*delivered)?;
    delivered[stream as usize] = offset + data.len() as u64;
    Some((stream, offset, data))
}
