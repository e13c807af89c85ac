//! What a controller has heard by a connection, and what comes next.

use crate::files::outputs::{Cursor, Piece};
use crate::job::session::Session;
use crate::job::session::encoder::Encoder;
use crate::job::session::messages::Event;
use crate::job::session::output_buffer::{OutputBuffer, OutputStream};
use crate::job::session::state::{Phase, State};

/// What the controller has heard by a connection.
pub(super) struct SentState {
    /// The number of that one.
    pub(super) connection: u64,
    pub(super) accepted: bool,
    pub(super) started: bool,
    /// How much of its input the program has taken, and whether it takes no more.
    pub(super) stdin: (u64, bool),
    /// How many numbered signals are here.
    pub(super) signals: u64,
    /// Where the outputs go on.
    pub(super) outputs: [u64; 2],
    pub(super) files: Cursor,
    /// Everything: nothing follows.
    pub(super) is_complete: bool,
}

impl SentState {
    /// Nothing yet, by a connection that goes on there.
    pub(super) fn of(connection: u64, outputs: [u64; 2], files: Cursor) -> Self {
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

    pub(super) fn next(&mut self, session: &Session, state: &State, encoder: &mut Encoder) -> Option<Event> {
        if state.connection != self.connection {
            self.is_complete = true;
            return Some(Event::TakenOver);
        }
        if !self.accepted && state.phase != Phase::Admitted {
            // An error says by itself that there was nothing to accept, unless there is more to say before it.
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
        // Whoever comes back may be somebody else, who does not know that the input has ended. It must not hear first that
        // the program runs: it would send its own.
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
            // Nothing of a job is held when its end is told.
            None => self.files.close(),
        }
        let last = state.final_result.clone()?;
        self.is_complete = true;
        Some(Event::Ended(last))
    }
}

/// The next piece for whoever has what is before `had` of each output; it counts as had then.
pub(super) fn next_piece<'a>(
    buffer: &'a OutputBuffer,
    delivered: &mut [u64; 2],
) -> Option<(OutputStream, u64, &'a [u8])> {
    let (stream, offset, data) = buffer.next(*delivered)?;
    delivered[stream as usize] = offset + data.len() as u64;
    Some((stream, offset, data))
}
