//! Chooses the next message that a session sends to the agent.

use hop_proto::v1::{Start, run_request};

use super::{Session, Stage};

impl Session<'_> {
    /// Whether there is something to send.
    pub(super) fn has_message(&self) -> bool {
        match self.stage {
            Stage::Asked | Stage::Encoding => false,
            Stage::Sending => true,
            Stage::Sent => {
                self.signals.has_next()
                    || self.outputs.ack_is_due()
                    || self.files.ack_is_due()
                    || self.start_is_due()
            }
            Stage::Started => {
                self.signals.has_next()
                    || self.outputs.ack_is_due()
                    || self.files.ack_is_due()
                    || self.window.is_some()
                    || self.input.has_next()
            }
        }
    }

    /// Whether the program waits for its turn, which has come.
    pub(super) fn start_is_due(&self) -> bool {
        !self.start_sent && self.slot.as_ref().is_some_and(|slot| slot.is_acquired())
    }

    /// The next message.
    pub(super) fn next_message(&mut self) -> Option<run_request::Message> {
        if self.stage == Stage::Sending {
            let chunk = self.first.as_mut().and_then(|(_, uploads)| uploads.next()?.next_chunk());
            self.send_on();
            return chunk.map(run_request::Message::Blob);
        }
        if let Some(signal) = self.signals.next_signal() {
            return Some(run_request::Message::Signal(signal));
        }
        if self.start_is_due() {
            self.start_sent = true;
            return Some(run_request::Message::Start(Start {}));
        }
        if let Some(ack) = self.outputs.next_ack() {
            return Some(run_request::Message::OutputAck(ack));
        }
        if let Some(ack) = self.files.next_ack() {
            return Some(run_request::Message::FileAck(ack));
        }
        if self.stage != Stage::Started {
            return None;
        }
        let window = self.window.take().map(run_request::Message::WindowSize);
        window.or_else(|| self.input.next_message().map(run_request::Message::Stdin))
    }
}
