//! Packs output on its way to a controller: one LZ4 block a piece (LZ4 Block Format Description,
//! github.com/lz4/lz4/tree/dev/doc).
//!
//! A byte on the wire costs a MIPS CPU 30 instructions for ciphers and TCP, and to pack one that the program wrote costs 8, so
//! text, of which a third is left, pays. What must stay true: every block unpacks to what was packed, by any decoder; what does
//! not become smaller by an eighth goes as it is, and costs next to nothing in the long run.

use bytes::{Bytes, BytesMut};
use hop_proto::limits::OUTPUT_CHUNK_BYTES;

use crate::store::lz4::Lz4Encoder;

/// Shorter pieces go as they are: what they would save is less than what it costs to clear the table.
const LEAST: usize = 512;

/// Pieces that are left alone at most, when those that were tried did not become smaller: a MiB of what takes a full piece each.
const LONGEST_PAUSE: u32 = 64;

/// Packs what one connection sends.
#[derive(Debug, Default)]
pub struct Packer {
    /// None until it is needed.
    encoder: Option<Lz4Encoder>,
    /// Room for a block. The one before is in it, which has been written into a message by then.
    room: Bytes,
    /// Pieces that are left alone after the next one that does not become smaller.
    pause: u32,
    /// And that are still to be left alone.
    left: u32,
}

impl Packer {
    /// A block that unpacks to `data`, a piece of at most [`OUTPUT_CHUNK_BYTES`]; `None` if it is to go as it is.
    pub fn pack(&mut self, data: &[u8]) -> Option<Bytes> {
        if !(LEAST..=OUTPUT_CHUNK_BYTES).contains(&data.len()) {
            return None;
        }
        if self.left > 0 {
            self.left -= 1;
            return None;
        }
        let most = data.len() - data.len() / 8;
        let encoder = self.encoder.get_or_insert_default();
        let room = std::mem::take(&mut self.room).try_into_mut();
        let mut room = room.unwrap_or_else(|_| BytesMut::zeroed(OUTPUT_CHUNK_BYTES));
        let length = encoder.encode(data, &mut room[..most]);
        self.room = room.freeze();
        match length {
            Some(length) => {
                self.pause = 0;
                Some(self.room.slice(..length))
            }
            None => {
                self.pause = (2 * self.pause).clamp(1, LONGEST_PAUSE);
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

    /// By the format, no repetition begins in the last 12 bytes, and none goes into the last 5.
    const NO_BEGINNING: usize = 12;
    const NO_REPETITION: usize = 5;

    /// What a block unpacks to, by the description of the format and nothing of this crate.
    fn unpack(block: &[u8]) -> Vec<u8> {
        let (mut plain, mut at) = (Vec::new(), 0);
        // Where the last repetition begins, and ends.
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
                assert_eq!(token & 15, 0, "the last sequence has no repetition");
                if let Some((begin, end)) = last {
                    // Decoders that copy more than they should rely on it.
                    assert!(begin + NO_BEGINNING <= plain.len() && end + NO_REPETITION <= plain.len());
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

    /// Content of a length: from random bytes to runs, by the number of letters and how often an earlier part comes again.
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
        // Room for what does not become smaller.
        let mut block = vec![0; data.len() + data.len() / 255 + 64];
        let length = Lz4Encoder::default().encode(data, &mut block).unwrap();
        block.truncate(length);
        block
    }

    #[test]
    fn every_block_unpacks_to_what_was_packed() {
        let mut state = 1;
        let any: Vec<_> = (0..500).map(|_| random(&mut state, OUTPUT_CHUNK_BYTES)).collect();
        for length in (0..=300).chain(any).chain([OUTPUT_CHUNK_BYTES; 100]) {
            let data = content(&mut state, length);
            assert!(unpack(&encoded(&data)) == data, "{length} bytes");
        }
    }

    #[test]
    fn nothing_is_written_beyond_the_room_that_there_is() {
        let mut state = 5;
        for _ in 0..200 {
            let data = content(&mut state, 2000);
            let block = encoded(&data);
            for room in (0..block.len()).step_by(7) {
                assert_eq!(Lz4Encoder::default().encode(&data, &mut vec![0; room]), None);
            }
        }
    }

    #[test]
    fn what_becomes_smaller_is_packed_and_what_does_not_is_left_alone_longer_and_longer() {
        let mut state = 3;
        let noise: Vec<u8> = (0..OUTPUT_CHUNK_BYTES).map(|_| random(&mut state, 256) as u8).collect();
        let text = b"level=INFO msg=\"all is well\"\n".repeat(OUTPUT_CHUNK_BYTES / 29);
        let mut packer = Packer::default();
        let packed = packer.pack(&text).unwrap();
        assert!(packed.len() < text.len() / 50 && unpack(&packed) == text);
        assert_eq!(packer.pack(&text[..LEAST - 1]), None);
        for pause in [1, 2, 4, 8, 16, 32, 64, 64] {
            assert_eq!(packer.pack(&noise), None);
            for _ in 0..pause {
                assert_eq!(packer.pack(&text), None, "within a pause of {pause}");
            }
        }
        assert!(packer.pack(&text).is_some());
        assert_eq!(packer.pack(&noise), None);
        assert!(packer.pack(&text).is_none() && packer.pack(&text).is_some(), "a short pause again");
    }

    #[test]
    fn a_block_stays_as_it_is_while_the_next_is_packed_and_its_room_is_used_again() {
        let texts = [b"one line and ", b"and one more "].map(|words| words.repeat(1000));
        let mut packer = Packer::default();
        let blocks = [&texts[0], &texts[1]].map(|text| packer.pack(text).unwrap());
        assert!(unpack(&blocks[0]) == texts[0] && unpack(&blocks[1]) == texts[1]);
        let place = blocks[1].as_ptr();
        drop(blocks);
        assert_eq!(packer.pack(&texts[0]).unwrap().as_ptr(), place);
    }
}
