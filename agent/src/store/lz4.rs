//! Unpacks an LZ4 frame of blocks of 64 KiB, without checksums and dictionary (LZ4 Frame Format and LZ4 Block Format
//! Descriptions, github.com/lz4/lz4/tree/dev/doc).
//!
//! To unpack a program costs a MIPS CPU a third of what zstd costs, and on a fast link it is the CPU that all wait for. What
//! must stay true: no input reads or writes elsewhere than in the buffer, or makes it grow.

use crate::store::decoder::Sink;
use crate::store::error::Error;

/// What a frame begins with: its magic number; version 1, no checksums, no dictionary, whatever the blocks refer to; blocks of
/// 64 KiB; and a checksum of these two, which is not looked at.
const HEADER_BYTES: usize = 7;
const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
const DESCRIPTOR: u8 = 0x40;
/// The bit of the descriptor that says that no block refers to another one.
const INDEPENDENT: u8 = 0x20;
const BLOCKS_OF_64_KIB: u8 = 0x40;

/// Bytes of a block when it is unpacked.
const BLOCK: usize = 64 * 1024;

/// How far back a block can refer.
const HISTORY: usize = 64 * 1024;

/// Blocks that are unpacked side by side before the history is moved to the front.
const BLOCKS: usize = 3;

/// Bytes of the length in front of a block, little endian.
const LENGTH_BYTES: usize = 4;

/// A block is stored as it is if this bit of its length is set.
const STORED: u32 = 1 << 31;

/// Bytes that are copied at once: most pieces are shorter, and what is too much is written over.
const STEP: usize = 16;

/// Bytes of the longest sequence that is unpacked by few comparisons: its token, a step of literals, and its distance.
const SEQUENCE: usize = 1 + STEP + 2;

/// Bytes that such a sequence may write: a step of literals, of which 14 count, and two steps of repetition behind them.
const WRITTEN: usize = 14 + 2 * STEP;

const MALFORMED: Error = Error::Protocol("no LZ4 frame of 64 KiB blocks without checksums");

/// Unpacks one frame, which comes in pieces.
pub struct Unpacker {
    /// What is here of the header or the next block.
    pending: Vec<u8>,
    /// The history, and blocks behind it.
    buffer: Vec<u8>,
    /// Where the next block goes.
    end: usize,
    part: Part,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Header,
    Block,
    Nothing,
}

/// Waits for the header.
impl Default for Unpacker {
    fn default() -> Self {
        let buffer = vec![0; HISTORY + BLOCKS * BLOCK + STEP];
        Self { pending: Vec::new(), buffer, end: 0, part: Part::Header }
    }
}

impl Unpacker {
    /// True when the frame has ended.
    pub fn is_over(&self) -> bool {
        self.part == Part::Nothing
    }

    /// Unpacks what is complete, and hands it over.
    ///
    /// # Errors
    /// [`Error::Protocol`] for what is no such frame, or follows it; and those of `sink`.
    pub fn unpack(&mut self, data: &[u8], sink: &mut Sink<'_>) -> Result<(), Error> {
        if self.pending.is_empty() {
            let left = self.unpack_parts(data, sink)?;
            self.pending.extend_from_slice(&data[data.len() - left..]);
        } else {
            // The same memory each time: what is here of a block, and the piece that completes it.
            let mut joined = std::mem::take(&mut self.pending);
            joined.extend_from_slice(data);
            let left = self.unpack_parts(&joined, sink)?;
            joined.drain(..joined.len() - left);
            self.pending = joined;
        }
        Ok(())
    }

    /// Unpacks what is complete; gives how many bytes are left.
    fn unpack_parts(&mut self, data: &[u8], sink: &mut Sink<'_>) -> Result<usize, Error> {
        let mut rest = data;
        while let Some(after) = self.next_part(rest, sink)? {
            rest = after;
        }
        Ok(rest.len())
    }

    /// Unpacks what comes first, if it is complete; gives what follows.
    fn next_part<'a>(&mut self, data: &'a [u8], sink: &mut Sink<'_>) -> Result<Option<&'a [u8]>, Error> {
        match self.part {
            Part::Header => {
                let Some((header, rest)) = data.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
                let [magic @ .., descriptor, blocks, _] = header;
                if *magic != MAGIC || descriptor & !INDEPENDENT != DESCRIPTOR || *blocks != BLOCKS_OF_64_KIB {
                    return Err(MALFORMED);
                }
                self.part = Part::Block;
                Ok(Some(rest))
            }
            Part::Block => {
                let Some((length, rest)) = data.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
                let length = u32::from_le_bytes(*length);
                if length == 0 {
                    self.part = Part::Nothing;
                    return Ok(Some(rest));
                }
                let (is_stored, bytes) = (length & STORED != 0, (length & !STORED) as usize);
                // What does not become smaller is stored.
                if bytes > BLOCK {
                    return Err(MALFORMED);
                }
                let Some((block, rest)) = rest.split_at_checked(bytes) else { return Ok(None) };
                self.take_block(block, is_stored, sink)?;
                Ok(Some(rest))
            }
            Part::Nothing if data.is_empty() => Ok(None),
            Part::Nothing => Err(MALFORMED),
        }
    }

    fn take_block(&mut self, block: &[u8], is_stored: bool, sink: &mut Sink<'_>) -> Result<(), Error> {
        if self.end > HISTORY + (BLOCKS - 1) * BLOCK {
            self.buffer.copy_within(self.end - HISTORY..self.end, 0);
            self.end = HISTORY;
        }
        let limit = self.end + BLOCK;
        let end = match is_stored {
            true => store(block, &mut self.buffer[..limit], self.end),
            false => decode(block, &mut self.buffer[..limit + STEP], self.end, limit),
        };
        let end = end.ok_or(MALFORMED)?;
        sink(&self.buffer[self.end..end])?;
        self.end = end;
        Ok(())
    }
}

fn store(block: &[u8], buffer: &mut [u8], at: usize) -> Option<usize> {
    let end = at + block.len();
    buffer.get_mut(at..end)?.copy_from_slice(block);
    Some(end)
}

/// Unpacks a block to `at`, at most up to `limit`, behind which there are [`STEP`] bytes that may be written over. Gives
/// where it ends; `None` if it is no block.
///
/// For speed: a quarter of a first run's CPU was here.
#[cfg_attr(target_arch = "mips", optimize(speed))]
fn decode(block: &[u8], buffer: &mut [u8], at: usize, limit: usize) -> Option<usize> {
    let (mut from, mut to) = (0, at);
    loop {
        // Nine of ten have no other length than that in the token, and the end of both buffers is far.
        if let Some(sequence) = block.get(from..).and_then(<[u8]>::first_chunk)
            && to + WRITTEN <= limit
            && let Some((used, written)) = decode_short(sequence, buffer, to)
        {
            from += used;
            to += written;
            continue;
        }
        let token = *block.get(from)?;
        from += 1;
        let literals = length(block, &mut from, token >> 4)?;
        if literals > limit - to || literals > block.len() - from {
            return None;
        }
        match block.get(from..from + STEP) {
            Some(step) if literals <= STEP => buffer[to..to + STEP].copy_from_slice(step),
            _ => buffer[to..to + literals].copy_from_slice(&block[from..from + literals]),
        }
        from += literals;
        to += literals;
        if from == block.len() {
            return Some(to);
        }
        let distance = usize::from(u16::from_le_bytes([*block.get(from)?, *block.get(from + 1)?]));
        from += 2;
        let count = length(block, &mut from, token & 15)?.checked_add(4)?;
        if distance == 0 || distance > to || count > limit - to {
            return None;
        }
        repeat(buffer, to, distance, count);
        to += count;
    }
}

/// Unpacks a sequence to `to`, if its lengths are in its token and it repeats nothing of itself. Gives how many bytes it
/// took, and how many it gave.
///
/// Half of the sequences of a Go program have up to 4 literals, and a third none; six of ten repeat up to 8 bytes.
#[inline(always)]
fn decode_short(sequence: &[u8; SEQUENCE], buffer: &mut [u8], to: usize) -> Option<(usize, usize)> {
    let token = sequence[0];
    let (literals, count) = (usize::from(token >> 4), usize::from(token & 15) + 4);
    let distance = usize::from(sequence[1 + literals]) | usize::from(sequence[2 + literals]) << 8;
    if literals == 15 || count == 15 + 4 || distance < count {
        return None;
    }
    let source = (to + literals).checked_sub(distance)?;
    let written: &mut [u8; WRITTEN] = buffer.get_mut(to..)?.first_chunk_mut()?;
    written[..4].copy_from_slice(&sequence[1..5]);
    if literals > 4 {
        written[4..STEP].copy_from_slice(&sequence[5..1 + STEP]);
    }
    let step: [u8; STEP] = *buffer.get(source..)?.first_chunk()?;
    let written: &mut [u8; WRITTEN] = buffer.get_mut(to..)?.first_chunk_mut()?;
    written[literals..literals + 8].copy_from_slice(&step[..8]);
    if count > 8 {
        written[literals + 8..literals + STEP].copy_from_slice(&step[8..]);
        if count > STEP {
            repeat(buffer, to + literals + STEP, distance, count - STEP);
        }
    }
    Some((3 + literals, literals + count))
}

/// A length whose first four bits are in a token.
#[inline(always)]
fn length(block: &[u8], from: &mut usize, bits: u8) -> Option<usize> {
    let mut length = usize::from(bits);
    if bits == 15 {
        loop {
            let more = *block.get(*from)?;
            *from += 1;
            // At most 255 for each byte of a block, so it does not overflow.
            length += usize::from(more);
            if more != 255 {
                break;
            }
        }
    }
    Some(length)
}

/// Writes `count` bytes at `to` that are those `distance` before, which may be among those that this writes.
#[inline(always)]
fn repeat(buffer: &mut [u8], to: usize, distance: usize, count: usize) {
    let from = to - distance;
    if distance >= STEP {
        let mut done = 0;
        while done < count {
            let mut step = [0; STEP];
            step.copy_from_slice(&buffer[from + done..from + done + STEP]);
            buffer[to + done..to + done + STEP].copy_from_slice(&step);
            done += STEP;
        }
    } else {
        for index in 0..count {
            buffer[to + index] = buffer[from + index];
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HEADER: [u8; HEADER_BYTES] = [0x04, 0x22, 0x4d, 0x18, DESCRIPTOR, BLOCKS_OF_64_KIB, 0];

    fn unpack(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool), Error> {
        let mut unpacker = Unpacker::default();
        let mut all = Vec::new();
        for piece in pieces {
            unpacker.unpack(piece, &mut |data| {
                all.extend_from_slice(data);
                Ok(())
            })?;
        }
        Ok((all, unpacker.is_over()))
    }

    fn framed(block: &[u8]) -> Vec<u8> {
        [&(block.len() as u32).to_le_bytes(), block].concat()
    }

    #[test]
    fn literals_and_repetitions_come_out_however_the_pieces_are_cut() {
        // "abc", then 9 bytes from 3 before, then "!".
        let block = framed(&[0x35, b'a', b'b', b'c', 3, 0, 0x10, b'!']);
        let frame = [&HEADER[..], &block, &[0; 4]].concat();
        for cut in 0..frame.len() {
            let (unpacked, is_over) = unpack(&[&frame[..cut], &frame[cut..]]).unwrap();
            assert_eq!((&unpacked[..], is_over), (&b"abcabcabcabc!"[..], true));
        }
        assert!(matches!(unpack(&[&frame, b"x"]), Err(Error::Protocol(_))), "nothing follows");
        assert!(!unpack(&[&frame[..frame.len() - 1]]).unwrap().1);
    }

    #[test]
    fn a_block_can_refer_to_the_ones_before_it() {
        let first = [&(BLOCK as u32 | STORED).to_le_bytes()[..], &vec![7; BLOCK]].concat();
        let second = framed(&[0x00, 0xff, 0xff, 0x10, b'!']);
        let both: Vec<u8> = [first, second].concat();
        let pieces: Vec<&[u8]> = std::iter::once(&HEADER[..]).chain([&both[..]; 10]).collect();
        let (unpacked, _) = unpack(&pieces).unwrap();
        assert_eq!(unpacked.len(), 10 * (BLOCK + 5));
        assert_eq!(unpacked.iter().filter(|byte| **byte != 7).count(), 10);
    }

    #[test]
    fn sequences_of_every_kind_come_out_as_the_format_says() {
        let mut state = 1_u32;
        // A number below a limit, by a generator that needs no crate (Marsaglia's xorshift).
        let mut random = |limit: usize| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as usize % limit
        };
        for _ in 0..200 {
            let (mut block, mut plain) = (Vec::new(), Vec::new());
            while plain.len() < BLOCK - 1000 && block.len() < BLOCK - 1000 {
                // Mostly such as are short, and all borders.
                let mut length = || {
                    let limit = [3, 16, 17, 300][random(4)];
                    random(limit)
                };
                let (literals, count) = (length().max(plain.is_empty().into()), 4 + length());
                let text: Vec<u8> = (0..literals).map(|_| random(256) as u8).collect();
                plain.extend_from_slice(&text);
                let limit = [1, 20, 300, BLOCK][random(4)];
                let distance = 1 + random(limit.min(plain.len()));
                for _ in 0..count {
                    plain.push(plain[plain.len() - distance]);
                }
                let more = |length: usize| match length.checked_sub(15) {
                    Some(rest) => [vec![255; rest / 255], vec![(rest % 255) as u8]].concat(),
                    None => Vec::new(),
                };
                block.push((literals.min(15) << 4 | (count - 4).min(15)) as u8);
                block.extend([more(literals), text].concat());
                block.extend((distance as u16).to_le_bytes());
                block.extend(more(count - 4));
            }
            block.extend(b"\x50.last");
            plain.extend(b".last");
            let (unpacked, _) = unpack(&[&HEADER, &framed(&block)]).unwrap();
            assert!(unpacked == plain);
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let bad: [&[u8]; 6] = [
            // Literals beyond the block, and beyond the limit.
            &[0x50, b'a'],
            &[&[0xf0], &[255; 300][..], &[0]].concat(),
            // From before the first byte, and from 0 before.
            &[0x10, b'a', 2, 0, 0x00],
            &[0x10, b'a', 0, 0, 0x00],
            // Cut off in its length, and behind a repetition.
            &[0x1f, b'a', 1, 0],
            &[0x10, b'a', 1, 0],
        ];
        for block in bad {
            assert!(matches!(unpack(&[&HEADER, &framed(block)]), Err(Error::Protocol(_))), "{block:?}");
        }
        let too_long = (BLOCK as u32 + 1).to_le_bytes();
        assert!(matches!(unpack(&[&HEADER, &too_long]), Err(Error::Protocol(_))));
        for (index, byte) in [(0, 5), (4, 0x44), (4, 0x80), (5, 0x50)] {
            let mut header = HEADER;
            header[index] = byte;
            assert!(matches!(unpack(&[&header]), Err(Error::Protocol(_))), "{index} {byte}");
        }
    }
}
