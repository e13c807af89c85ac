//! What is sent of content.

use bytes::{Bytes, BytesMut};

use crate::job::session::messages::Payload;
use crate::job::session::output_compressor::OutputCompressor;

/// Makes what is sent of content.
pub(super) struct Encoder {
    /// There is one if the controller accepts what it makes.
    pub(super) compressor: Option<OutputCompressor>,
    /// For what goes as it is: a buffer that was sent is used again.
    pub(super) plain: BytesMut,
}

impl Encoder {
    /// What is sent of content that is somebody else's.
    pub(super) fn encode(&mut self, content: &[u8]) -> Payload {
        self.compressed(content).unwrap_or_else(|| {
            self.plain.extend_from_slice(content);
            Payload { data: self.plain.split().freeze(), uncompressed_size: 0 }
        })
    }

    /// What is sent of content that is nobody else's.
    pub(super) fn encode_owned(&mut self, content: Bytes) -> Payload {
        self.compressed(&content).unwrap_or(Payload { data: content, uncompressed_size: 0 })
    }

    fn compressed(&mut self, content: &[u8]) -> Option<Payload> {
        // At most OUTPUT_CHUNK_BYTES.
        let uncompressed_size = content.len() as u32;
        self.compressor.as_mut()?.compress(content).map(|data| Payload { data, uncompressed_size })
    }
}
