//! One connection of a controller to its job: the events that go to the controller.
//!
//! **Invariants:** a job has one attachment at a time, the newest, and the one before it tells its controller so; and a
//! new one continues where the controller says, if the session still has the output from there.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::time::Instant;

use crate::files::outputs::{Cursor, Position};
use crate::job::error::Error;
use crate::job::session::Session;
use crate::job::session::encoder::Encoder;
use crate::job::session::messages::Event;
use crate::job::session::output_buffer::OutputStream;
use crate::job::session::output_compressor::OutputCompressor;
use crate::job::session::requests::Requests;
use crate::job::session::sent_state::SentState;
use crate::job::session::state::Phase;

impl Session {
    /// Attaches a new connection, which replaces an older one. Each output continues at its offset in `delivered`, or
    /// with the first byte that no controller has acknowledged; of a job that has ended, with the first byte that the
    /// session has. Output files continue at `files`, or with the first one that the
    /// controller has not stored whole. Payloads are compressed if the controller `accepts_compressed`.
    ///
    /// # Errors
    /// [`Error::Protocol`] for an offset before the first buffered byte, or after the last.
    pub fn connect(
        self: &Arc<Self>,
        delivered: [Option<u64>; 2],
        files: Option<Position>,
        accepts_compressed: bool,
    ) -> Result<Attachment, Error> {
        let sent = self.state.with(|state| {
            let mut outputs = [0; 2];
            for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                let buffer = &state.buffer;
                let (start, end) = (buffer.start(stream), buffer.end(stream));
                let offset = match delivered[stream as usize] {
                    // A log may have dropped bytes that this controller does not have yet.
                    Some(offset) if buffer.is_log() => offset.max(start),
                    Some(offset) => offset,
                    // So that everybody who asks sees how the job ended.
                    None if state.phase == Phase::Ended => start,
                    None => buffer.unread_start(stream),
                };
                // Any offset will do: the controller gets the error that says so.
                let is_lost = state.lost_output().is_some();
                if !is_lost && !(start..=end).contains(&offset) {
                    return Err(Error::Protocol("output from an offset at which there is none"));
                }
                outputs[stream as usize] = offset;
            }
            state.connection += 1;
            // From now on a log drops nothing that this connection has still to send.
            state.buffer.set_reader(true);
            let files = Cursor::new(files.unwrap_or(Position { offset: 0, ..state.stored }));
            Ok(SentState::new(state.connection, outputs, files))
        })?;
        // So that the attachment before it tells its controller that it was taken over.
        self.state.notify_all();
        self.attached.update(|attached| attached.left = None);
        self.set_reader(true);
        let encoder = Encoder {
            compressor: accepts_compressed.then(OutputCompressor::default),
            plain: BytesMut::new(),
        };
        Ok(Attachment { session: self.clone(), sent, encoder })
    }

    /// Records that the connection with this number is gone.
    pub(super) fn disconnect(&self, number: u64) {
        if self.state.with(|state| state.connection) == number {
            self.attached.update(|attached| _ = attached.left.get_or_insert_with(Instant::now));
            self.set_reader(false);
        }
    }

    /// Records that the controller has left the connection with this number, which sends nothing more.
    pub(super) fn leave(&self, number: u64) {
        self.disconnect(number);
        self.state.update(|state| state.left = number);
    }
}

/// One connection of a controller to its job. Dropped before it has sent everything, it counts as broken.
pub struct Attachment {
    session: Arc<Session>,
    sent: SentState,
    encoder: Encoder,
}

impl Attachment {
    /// The other direction of the connection: the controller's requests.
    pub fn requests(&self) -> Requests {
        Requests { session: self.session.clone(), number: self.sent.connection, is_over: false }
    }

    /// The next event for the controller; `None` after the last, or when the controller has left.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let Self { session, sent, encoder } = self;
        let event = ready!(session.state.poll(context, |state| {
            if sent.is_complete || state.left == sent.connection {
                return Poll::Ready(None);
            }
            match sent.next(session, state, encoder) {
                // The job had ended before the fault reached it. Its output files go on only as they are acknowledged,
                // and acknowledgements of this connection are ignored.
                None if state.unheard == sent.connection && state.offer.is_some() => Poll::Ready(None),
                None => Poll::Pending,
                event => Poll::Ready(event),
            }
        }));
        if let Some(Event::Ended(last)) = &event
            && last.is_err()
            && !session.is_detached()
            && session.unread() == 0
        {
            // This error is the status of the call, which ends with it: the controller can discard nothing any more.
            session.release();
        }
        Poll::Ready(event)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if !self.sent.is_complete {
            self.session.disconnect(self.sent.connection);
        }
    }
}

#[cfg(test)]
impl Attachment {
    /// The next event for the controller.
    pub async fn recv(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }
}
