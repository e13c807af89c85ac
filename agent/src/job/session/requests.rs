//! The requests that one connection of a controller makes of its job.
//!
//! **Invariants:** nothing that a replaced connection asks has an effect; each numbered signal reaches the job once;
//! and only a connection that was half-closed, not one that broke, ends the standard input.

use std::sync::Arc;

use crate::files::outputs::ArtifactSet;
use crate::job::error::Error;
use crate::job::session::Session;
use crate::job::session::messages::{JobCommand, Request};
use crate::job::session::output_buffer::OutputStream;
use crate::job::session::state::Phase;

impl Session {
    /// Handles a request of a connection. Returns false if the controller leaves by it.
    pub(super) async fn handle_request(&self, connection: u64, request: Request) -> Result<bool, Error> {
        let can_hear_more = self.state.with(|state| state.has_started || state.phase == Phase::Ended);
        match request {
            Request::Stdin { .. } | Request::Acknowledge { .. } | Request::Stored(_) if !can_hear_more => {
                return Err(Error::Protocol("the program has not started yet"));
            }
            Request::Stdin { offset, data, end } => self.stdin.push(offset, &data, end)?,
            Request::Acknowledge { stream, offset, closed } => {
                self.acknowledge(stream, offset, closed);
            }
            Request::Chunk(chunk) => self.send_command(connection, JobCommand::Chunk(chunk)).await,
            Request::Signal { number, signal } => {
                if self.count_signal(number)? {
                    self.send_command(connection, JobCommand::Signal(signal)).await;
                }
            }
            Request::Resize(size) => self.send_command(connection, JobCommand::Resize(size)).await,
            Request::Start => self.send_command(connection, JobCommand::Start).await,
            Request::Stored(position) => {
                self.state.update(|state| {
                    // The files may have been withdrawn.
                    let end = state.offer.as_ref().map(ArtifactSet::end).unwrap_or_default();
                    state.stored = state.stored.max(position.min(end));
                });
            }
            Request::Discard => {
                self.release();
                return Ok(false);
            }
            Request::Detach { run_on } => {
                if run_on {
                    self.run_on();
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn acknowledge(&self, stream: OutputStream, offset: u64, closed: bool) {
        // No task waits for the buffer to become smaller.
        let written = self.state.with(|state| {
            state.buffer.acknowledge(stream, offset);
            state.buffer.end(stream)
        });
        self.output(stream).update(|control| {
            // An offset beyond the end does not acknowledge what the program writes later, or nothing would bound the
            // buffer.
            control.acknowledged = control.acknowledged.max(offset.min(written));
            control.closed |= closed;
        });
    }

    /// True if this signal has not arrived before, and so must reach the job.
    fn count_signal(&self, number: u64) -> Result<bool, Error> {
        let signals = self.state.with(|state| state.signals);
        match number {
            0 => return Ok(true),
            _ if number <= signals => return Ok(false),
            _ if number > signals + 1 => return Err(Error::Protocol("a signal is missing before this one")),
            _ => {}
        }
        self.state.update(|state| state.signals = number);
        Ok(true)
    }
}

/// The requests of one connection. Dropped before it is over, the connection counts as broken.
pub struct Requests {
    pub(super) session: Arc<Session>,
    pub(super) number: u64,
    pub(super) is_over: bool,
}

impl Requests {
    /// Handles a request. Returns false if later ones are ignored: the controller has left, has broken a rule, or has a
    /// newer connection.
    pub async fn handle(&mut self, request: Request) -> bool {
        if self.is_taken_over() {
            return false;
        }
        match self.session.handle_request(self.number, request).await {
            Ok(true) => true,
            Ok(false) => {
                self.is_over = true;
                self.session.leave(self.number);
                false
            }
            Err(fault) => {
                self.stop(fault).await;
                false
            }
        }
    }

    /// The controller has half-closed the stream: standard input ends, and events go on.
    pub fn finish(mut self) {
        if !self.is_taken_over() {
            self.is_over = true;
            self.session.stdin.end();
        }
    }

    /// The controller broke a rule: the job fails with this error, and later requests are ignored.
    pub async fn fail(mut self, fault: Error) {
        if !self.is_taken_over() {
            self.stop(fault).await;
        }
    }

    /// True if a newer connection has the job. This one stays open for the event that says so.
    fn is_taken_over(&mut self) -> bool {
        let is_taken_over = self.session.state.with(|state| state.connection) != self.number;
        self.is_over |= is_taken_over;
        is_taken_over
    }

    async fn stop(&mut self, fault: Error) {
        // Without this, dropping it counts as a broken connection, which is right for `Error::Gone`.
        if !matches!(fault, Error::Gone) {
            self.is_over = true;
            self.session.send_command(self.number, JobCommand::Fault(fault)).await;
            // The controller receives the error; its later requests are ignored.
            self.session.disconnect(self.number);
            self.session.state.update(|state| state.unheard = self.number);
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        if !self.is_over {
            self.session.leave(self.number);
        }
    }
}
