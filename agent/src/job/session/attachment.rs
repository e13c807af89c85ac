//! One connection of a controller to its job: what the job says.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::time::Instant;

use crate::error::Error;
use crate::files::outputs::{Cursor, Position};
use crate::job::session::Session;
use crate::job::session::encoder::Encoder;
use crate::job::session::messages::Event;
use crate::job::session::output_buffer::OutputStream;
use crate::job::session::output_compressor::OutputCompressor;
use crate::job::session::requests::Requests;
use crate::job::session::sent_state::SentState;

impl Session {
    /// A new connection to the job, in place of an older one. It tells what comes after `had` of each output; of an output
    /// without such an offset, all that is kept. Output files go on at `files`; without that, with the first one that is not
    /// stored whole. What it sends is compressed if the controller `accepts_compressed`.
    ///
    /// # Errors
    /// [`Error::Protocol`] for an offset before what was acknowledged, or behind what was written.
    pub fn connect(
        self: &Arc<Self>,
        delivered: [Option<u64>; 2],
        files: Option<Position>,
        accepts_compressed: bool,
    ) -> Result<Attachment, Error> {
        let sent = self.state.with(|state| {
            let mut outputs = [0; 2];
            for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                let (start, end) = (state.buffer.start(stream), state.buffer.end(stream));
                let offset = delivered[stream as usize].unwrap_or(start);
                // It is told that there is none any more.
                let is_lost = state.lost_output().is_some();
                if !is_lost && !(start..=end).contains(&offset) {
                    return Err(Error::Protocol("output from an offset at which there is none"));
                }
                outputs[stream as usize] = offset;
            }
            state.connection += 1;
            let files = Cursor::new(files.unwrap_or(Position { offset: 0, ..state.stored }));
            Ok(SentState::of(state.connection, outputs, files))
        })?;
        // The one before it is to tell that.
        self.state.notify_all();
        self.attached.update(|attached| attached.left = None);
        let encoder = Encoder {
            compressor: accepts_compressed.then(OutputCompressor::default),
            plain: BytesMut::new(),
        };
        Ok(Attachment { session: self.clone(), sent, encoder })
    }

    /// The connection with this number is gone.
    pub(super) fn disconnect(&self, number: u64) {
        if self.state.with(|state| state.connection) == number {
            self.attached.update(|attached| _ = attached.left.get_or_insert_with(Instant::now));
        }
    }

    /// The controller has left by the connection with this number, and hears nothing more on it.
    pub(super) fn leave(&self, number: u64) {
        self.disconnect(number);
        self.state.update(|state| state.left = number);
    }
}

/// One connection of a controller to its job. When it is dropped, the controller is gone, unless it has heard everything.
pub struct Attachment {
    session: Arc<Session>,
    sent: SentState,
    encoder: Encoder,
}

impl Attachment {
    /// Where the controller's requests go.
    pub fn requests(&self) -> Requests {
        Requests { session: self.session.clone(), number: self.sent.connection, is_over: false }
    }

    /// The next thing that the controller has not heard; nothing when there is nothing more to say, or nobody to say it to.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let Self { session, sent, encoder } = self;
        session.state.poll(context, |state| {
            if sent.is_complete || state.left == sent.connection {
                return Poll::Ready(None);
            }
            match sent.next(session, state, encoder) {
                // The job had ended before it heard of that, and what it has left goes on only as it is acknowledged.
                None if state.unheard == sent.connection && state.offer.is_some() => Poll::Ready(None),
                None => Poll::Pending,
                event => Poll::Ready(event),
            }
        })
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
    /// The next thing that the controller has not heard.
    pub async fn recv(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }
}
