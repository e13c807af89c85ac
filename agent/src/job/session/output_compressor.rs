//! Packs output on its way to a controller: one LZ4 block a piece (LZ4 Block Format Description,
//! github.com/lz4/lz4/tree/dev/doc).
//!
//! A byte on the wire costs a MIPS CPU 30 instructions for ciphers and TCP, and to pack one that the program wrote costs 8, so
//! text, of which a third is left, pays. What must stay true: every block unpacks to what was packed, by any decoder; what does
//! not become smaller by an eighth goes as it is, and costs next to nothing in the long run.

use bytes::{Bytes, BytesMut};
use hop_proto::limits::OUTPUT_CHUNK_BYTES;

/// Shorter pieces go as they are: what they would save is less than what it costs to clear the table.
const LEAST: usize = 512;

/// Pieces that are left alone at most, when those that were tried did not become smaller: a MiB of what takes a full piece each.
const LONGEST_PAUSE: u32 = 64;

/// Where four bytes were seen last, by their hash. The positions of a chunk fit into 16 bits.
const TABLE: usize = 4096;
const HASH_BITS: u32 = 12;

/// Knuth's multiplicative hash.
const HASH: u32 = 2_654_435_761;

/// Bytes that a repetition has at least.
const REPETITION: usize = 4;

/// By the format, no repetition begins in the last 12 bytes, and none goes into the last 5.
const NO_BEGINNING: usize = 12;
const NO_REPETITION: usize = 5;

/// What a length in a token means that goes on behind it.
const LONG: usize = 15;

/// Bytes of the longest sequence that is written by few comparisons: its token, literals, distance, one byte of length.
const SEQUENCE: usize = 1 + (LONG - 1) + 2 + 1;

/// Positions that are tried, in fours, before the steps become longer: the more of them, the less is missed, and the longer it
/// takes to see that nothing is to be found.
const PATIENCE: usize = 2;

/// Packs what one connection sends.
#[derive(Debug, Default)]
pub struct Packer {
    /// Room for the table; none until it is needed.
    table: Vec<u16>,
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
        if self.table.is_empty() {
            self.table = vec![0; TABLE];
        }
        let most = data.len() - data.len() / 8;
        let table = self.table.first_chunk_mut()?;
        let room = std::mem::take(&mut self.room).try_into_mut();
        let mut room = room.unwrap_or_else(|_| BytesMut::zeroed(OUTPUT_CHUNK_BYTES));
        let length = encode(data, table, &mut room[..most]);
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

/// Packs at least [`NO_BEGINNING`] bytes, and at most 65,536, into `block`; gives how many it takes, or `None` if there may be no
/// room.
///
/// Greedy, as LZ4's own fast encoder: the first repetition that is found is taken as long as it is. For speed: half of what
/// packing saves would be lost here.
#[cfg_attr(target_arch = "mips", optimize(speed))]
fn encode(data: &[u8], table: &mut [u16; TABLE], block: &mut [u8]) -> Option<usize> {
    // A position that was not written says 0, where there are bytes to compare with as anywhere before `at`.
    table.fill(0);
    let last = data.len().checked_sub(NO_BEGINNING)?;
    let end = data.len() - NO_REPETITION;
    let (mut anchor, mut at, mut to) = (0, 1, 0);
    'all: loop {
        let (mut step, mut fours) = (1, 0);
        let from = 'found: loop {
            if at + 4 * step > last {
                break 'all;
            }
            // Without a comparison for each.
            macro_rules! try_position {
                () => {
                    // SAFETY: `at` is at most `last`, behind which there are 12 bytes; and what is in the table is 0, or was `at`
                    // before.
                    let here = unsafe { word(data, at) };
                    let place = &mut table[(here.wrapping_mul(HASH) >> (u32::BITS - HASH_BITS)) as usize];
                    let from = usize::from(*place);
                    *place = at as u16;
                    // SAFETY: as above.
                    if unsafe { word(data, from) } == here {
                        break 'found from;
                    }
                    at += step;
                };
            }
            try_position!();
            try_position!();
            try_position!();
            try_position!();
            fours += 1;
            step = 1 + fours / PATIENCE;
        };
        let distance = at - from;
        let literals = at - anchor;
        at = repeated_until(data, at + REPETITION, distance, end);
        let more = at - anchor - literals - REPETITION;
        if literals < LONG && more < LONG + 255 {
            let sequence: &mut [u8; SEQUENCE] = block.get_mut(to..)?.first_chunk_mut()?;
            // SAFETY: the literals end before `last`, and here are up to 8 bytes more than they, or 5 if they are more than 8.
            unsafe {
                copy_word(data, anchor, sequence, 1);
                copy_word(data, anchor + 4, sequence, 5);
                if literals > 8 {
                    copy_word(data, anchor + 8, sequence, 9);
                    copy_word(data, anchor + 10, sequence, 11);
                }
            }
            sequence[1 + literals] = distance as u8;
            sequence[2 + literals] = (distance >> 8) as u8;
            to += 3 + literals;
            if more < LONG {
                sequence[0] = (literals << 4 | more) as u8;
            } else {
                sequence[0] = (literals << 4 | LONG) as u8;
                sequence[3 + literals] = (more - LONG) as u8;
                to += 1;
            }
        } else {
            let token = to;
            to = put_literals(&data[anchor..anchor + literals], block, to)?;
            block.get_mut(to..to + 2)?.copy_from_slice(&(distance as u16).to_le_bytes());
            block[token] |= more.min(LONG) as u8;
            to = put_length(more, block, to + 2)?;
        }
        anchor = at;
    }
    put_literals(&data[anchor..], block, to)
}

/// Where the bytes at `at` and those `distance` before cease to be the same; at most `end`.
#[inline(always)]
fn repeated_until(data: &[u8], mut at: usize, distance: usize, end: usize) -> usize {
    while at + 16 <= end {
        let from = at - distance;
        macro_rules! compare {
            ($offset:literal) => {
                // SAFETY: `from` is before `at`, behind which there are 16 bytes.
                let different = unsafe { word(data, at + $offset) ^ word(data, from + $offset) };
                if different != 0 {
                    return at + $offset + same_bytes(different);
                }
            };
        }
        compare!(0);
        compare!(4);
        compare!(8);
        compare!(12);
        at += 16;
    }
    while at < end && data[at] == data[at - distance] {
        at += 1;
    }
    at
}

/// Bytes at the beginning of two words that are the same, by where their bits differ.
#[inline(always)]
fn same_bytes(different: u32) -> usize {
    let bits = match cfg!(target_endian = "big") {
        true => different.leading_zeros(),
        false => different.trailing_zeros(),
    };
    (bits / 8) as usize
}

/// Four bytes, at whatever address: two instructions (lwl, lwr).
///
/// # Safety
/// They are in `data`.
#[inline(always)]
unsafe fn word(data: &[u8], at: usize) -> u32 {
    debug_assert!(at + size_of::<u32>() <= data.len());
    // SAFETY: the caller says so.
    unsafe { data.as_ptr().add(at).cast::<u32>().read_unaligned() }
}

/// Copies four bytes, at whatever addresses.
///
/// # Safety
/// They are in `data`, and `to` is so far from the end of `sequence`.
#[inline(always)]
unsafe fn copy_word(data: &[u8], at: usize, sequence: &mut [u8; SEQUENCE], to: usize) {
    debug_assert!(to + size_of::<u32>() <= SEQUENCE);
    // SAFETY: the caller says so.
    unsafe { sequence.as_mut_ptr().add(to).cast::<u32>().write_unaligned(word(data, at)) }
}

/// Writes a token and the literals behind it.
fn put_literals(literals: &[u8], block: &mut [u8], to: usize) -> Option<usize> {
    *block.get_mut(to)? = (literals.len().min(LONG) << 4) as u8;
    let to = put_length(literals.len(), block, to + 1)?;
    let end = to + literals.len();
    block.get_mut(to..end)?.copy_from_slice(literals);
    Some(end)
}

/// Writes what of a length is not in its token.
fn put_length(length: usize, block: &mut [u8], mut to: usize) -> Option<usize> {
    let Some(mut rest) = length.checked_sub(LONG) else { return Some(to) };
    loop {
        *block.get_mut(to)? = rest.min(255) as u8;
        to += 1;
        if rest < 255 {
            return Some(to);
        }
        rest -= 255;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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

    fn encoded(data: &[u8]) -> Option<Vec<u8>> {
        // Room for what does not become smaller, and what may be written over.
        let (mut table, mut block) = ([7; TABLE], vec![0; data.len() + data.len() / 255 + 64]);
        let length = encode(data, &mut table, &mut block)?;
        block.truncate(length);
        Some(block)
    }

    #[test]
    fn every_block_unpacks_to_what_was_packed() {
        let mut state = 1;
        let any: Vec<_> = (0..500).map(|_| random(&mut state, OUTPUT_CHUNK_BYTES)).collect();
        for length in (0..=300).chain(any).chain([OUTPUT_CHUNK_BYTES; 100]) {
            let data = content(&mut state, length);
            match encoded(&data) {
                Some(block) => assert!(unpack(&block) == data, "{length} bytes"),
                None => assert!(length < NO_BEGINNING),
            }
        }
    }

    #[test]
    fn nothing_is_written_beyond_the_room_that_there_is() {
        let mut state = 5;
        for _ in 0..200 {
            let data = content(&mut state, 2000);
            let Some(block) = encoded(&data) else { continue };
            for room in (0..block.len()).step_by(7) {
                assert_eq!(encode(&data, &mut [0; TABLE], &mut vec![0; room]), None);
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
