//! Compresses the output that goes to a controller: one LZ4 block for each piece (LZ4 Block Format Description,
//! github.com/lz4/lz4/tree/dev/doc).
//!
//! A byte on the wire costs a MIPS CPU 30 instructions for ciphers and TCP, and compressing a byte costs 8: so
//! compression pays for text, which shrinks to a third.
//!
//! **Invariants:** any LZ4 decoder decompresses a block to its input; and output that does not shrink by an eighth is
//! sent uncompressed, and in the long run costs next to nothing.

use bytes::{Bytes, BytesMut};
use hop_proto::limits::OUTPUT_CHUNK_BYTES;

use crate::store::lz4::Lz4Encoder;

/// Minimum size of a piece to compress: shorter ones would save less than clearing the encoder's table costs.
const MIN_BYTES: usize = 512;

/// Maximum number of pieces that are sent uncompressed before the next attempt: a MiB of full pieces.
const MAX_PAUSE: u32 = 64;

/// The compressor of one connection.
#[derive(Debug, Default)]
pub struct OutputCompressor {
    /// `None` until the first attempt.
    encoder: Option<Lz4Encoder>,
    /// The buffer of the last block, which is used again once no message refers to it.
    block: Bytes,
    /// Length of the last pause, in pieces that are sent uncompressed; 0 if the last attempt succeeded.
    pause: u32,
    /// Pieces of the current pause that are left.
    left: u32,
}

impl OutputCompressor {
    /// A block that decompresses to `data`, a piece of at most [`OUTPUT_CHUNK_BYTES`]; `None` to send it uncompressed.
    pub fn compress(&mut self, data: &[u8]) -> Option<Bytes> {
        if !(MIN_BYTES..=OUTPUT_CHUNK_BYTES).contains(&data.len()) {
            return None;
        }
        if self.left > 0 {
            self.left -= 1;
            return None;
        }
        let most = data.len() - data.len() / 8;
        let encoder = self.encoder.get_or_insert_default();
        let last = std::mem::take(&mut self.block).try_into_mut();
        let mut block = last.unwrap_or_else(|_| BytesMut::zeroed(OUTPUT_CHUNK_BYTES));
        let length = encoder.encode(data, &mut block[..most]);
        self.block = block.freeze();
        match length {
            Some(length) => {
                self.pause = 0;
                Some(self.block.slice(..length))
            }
            None => {
                self.pause = (2 * self.pause).clamp(1, MAX_PAUSE);
                self.left = self.pause;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// By the format, no match begins in the last 12 bytes, and none reaches into the last 5.
    const LAST_MATCH_BYTES: usize = 12;
    const LAST_LITERAL_BYTES: usize = 5;

    /// Decompresses a block by the description of the format, with no code of this crate.
    fn decompress(block: &[u8]) -> Vec<u8> {
        let (mut plain, mut at) = (Vec::new(), 0);
        // Where the last match begins and ends.
        let mut last = None;
        let length = |bits: u8, at: &mut usize| {
            let mut length = usize::from(bits);
            let mut more = bits == 15;
            while more {
                length += usize::from(block[*at]);
                more = block[*at] == 255;
                *at += 1;
            }
            length
        };
        loop {
            let token = block[at];
            at += 1;
            let literals = length(token >> 4, &mut at);
            plain.extend_from_slice(&block[at..at + literals]);
            at += literals;
            if at == block.len() {
                assert_eq!(token & 15, 0, "the last sequence has no match");
                if let Some((begin, end)) = last {
                    // Decoders that copy in words rely on it.
                    assert!(
                        begin + LAST_MATCH_BYTES <= plain.len() && end + LAST_LITERAL_BYTES <= plain.len()
                    );
                }
                return plain;
            }
            let distance = usize::from(u16::from_le_bytes([block[at], block[at + 1]]));
            at += 2;
            let begin = plain.len();
            for _ in 0..length(token & 15, &mut at) + 4 {
                plain.push(plain[plain.len() - distance]);
            }
            assert!(distance > 0 && distance <= begin);
            last = Some((begin, plain.len()));
        }
    }

    /// Bytes by a generator that needs no crate (Marsaglia's xorshift), below a limit.
    fn random(state: &mut u32, limit: usize) -> usize {
        *state ^= *state << 13;
        *state ^= *state >> 17;
        *state ^= *state << 5;
        *state as usize % limit
    }

    /// Content of a length: from random bytes to runs, by the number of letters and how often an earlier part comes
    /// again.
    fn content(state: &mut u32, length: usize) -> Vec<u8> {
        let letters = [1, 2, 20, 256][random(state, 4)];
        let (again, longest) = ([1, 3, 1000][random(state, 3)], [5, 30, 20_000][random(state, 3)]);
        let mut content = Vec::new();
        while content.len() < length {
            if content.is_empty() || random(state, again) > 0 {
                content.push(random(state, letters) as u8);
                continue;
            }
            let distance = 1 + random(state, content.len());
            for _ in 0..random(state, longest) {
                content.push(content[content.len() - distance]);
            }
        }
        content.truncate(length);
        content
    }

    fn encoded(data: &[u8]) -> Vec<u8> {
        // Large enough for incompressible data.
        let mut block = vec![0; data.len() + data.len() / 255 + 64];
        let length = Lz4Encoder::default().encode(data, &mut block).unwrap();
        block.truncate(length);
        block
    }

    #[test]
    fn blocks_decompress_to_their_input() {
        let mut state = 1;
        let any: Vec<_> = (0..500).map(|_| random(&mut state, OUTPUT_CHUNK_BYTES)).collect();
        for length in (0..=300).chain(any).chain([OUTPUT_CHUNK_BYTES; 100]) {
            let data = content(&mut state, length);
            assert!(decompress(&encoded(&data)) == data, "{length} bytes");
        }
    }

    #[test]
    fn encoder_respects_the_buffer_size() {
        let mut state = 5;
        for _ in 0..200 {
            let data = content(&mut state, 2000);
            let block = encoded(&data);
            for size in (0..block.len()).step_by(7) {
                assert_eq!(Lz4Encoder::default().encode(&data, &mut vec![0; size]), None);
            }
        }
    }

    #[test]
    fn incompressible_output_pauses_compression() {
        let mut state = 3;
        let noise: Vec<u8> = (0..OUTPUT_CHUNK_BYTES).map(|_| random(&mut state, 256) as u8).collect();
        let text = b"level=INFO msg=\"all is well\"\n".repeat(OUTPUT_CHUNK_BYTES / 29);
        let mut compressor = OutputCompressor::default();
        let packed = compressor.compress(&text).unwrap();
        assert!(packed.len() < text.len() / 50 && decompress(&packed) == text);
        assert_eq!(compressor.compress(&text[..MIN_BYTES - 1]), None);
        for pause in [1, 2, 4, 8, 16, 32, 64, 64] {
            assert_eq!(compressor.compress(&noise), None);
            for _ in 0..pause {
                assert_eq!(compressor.compress(&text), None, "within a pause of {pause}");
            }
        }
        assert!(compressor.compress(&text).is_some());
        assert_eq!(compressor.compress(&noise), None);
        assert!(
            compressor.compress(&text).is_none() && compressor.compress(&text).is_some(),
            "a short pause again"
        );
    }

    #[test]
    fn blocks_stay_valid_and_buffers_are_reused() {
        let texts = [b"one line and ", b"and one more "].map(|words| words.repeat(1000));
        let mut compressor = OutputCompressor::default();
        let blocks = [&texts[0], &texts[1]].map(|text| compressor.compress(text).unwrap());
        assert!(decompress(&blocks[0]) == texts[0] && decompress(&blocks[1]) == texts[1]);
        let place = blocks[1].as_ptr();
        drop(blocks);
        assert_eq!(compressor.compress(&texts[0]).unwrap().as_ptr(), place);
    }
}
