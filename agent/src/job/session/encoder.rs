//! Turns output into the payload of an event: compressed if the controller accepts that and it saves something.

use bytes::{Bytes, BytesMut};

use crate::job::session::messages::Payload;
use crate::job::session::output_compressor::OutputCompressor;

/// Encodes the payloads of one connection.
pub(super) struct Encoder {
    /// `None` if the controller does not accept compressed output.
    pub(super) compressor: Option<OutputCompressor>,
    /// The buffer for payloads that are not compressed. It is used again once a payload was sent.
    pub(super) plain: BytesMut,
}

impl Encoder {
    /// The payload of borrowed content.
    pub(super) fn encode(&mut self, content: &[u8]) -> Payload {
        self.compressed(content).unwrap_or_else(|| {
            self.plain.extend_from_slice(content);
            Payload { data: self.plain.split().freeze(), uncompressed_size: 0 }
        })
    }

    /// The payload of owned content, which is not copied unless it is compressed.
    pub(super) fn encode_owned(&mut self, content: Bytes) -> Payload {
        self.compressed(&content).unwrap_or(Payload { data: content, uncompressed_size: 0 })
    }

    fn compressed(&mut self, content: &[u8]) -> Option<Payload> {
        // At most OUTPUT_CHUNK_BYTES.
        let uncompressed_size = content.len() as u32;
        self.compressor.as_mut()?.compress(content).map(|data| Payload { data, uncompressed_size })
    }
}
