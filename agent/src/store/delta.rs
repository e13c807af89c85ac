//! Decodes a delta: instructions that build a blob from another one, the base. `docs/protocol.md` has the format.
//!
//! **Invariants:** the decoder copies nothing from outside the base, and its memory has a bound, whatever the
//! instructions say: one buffer, and the list of moves.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use hop_formats::relocation::{CONTENT_BITS, Content, LONGEST, Relocation};

use crate::store::decoder::Sink;
use crate::store::error::Error;
use crate::store::relocation::Head;

/// Bytes that are read from the base at once.
const BUFFER_BYTES: usize = 32 * 1024;

/// Least free capacity of the buffer for a read from the base. An incomplete item at the end of a read waits for the
/// next one, so a read must be longer than the longest item.
const MIN_CAPACITY: usize = 2 * LONGEST;

/// Byte order of the addresses in a program.
const BIG_ENDIAN: bool = cfg!(target_endian = "big");

/// The error for every malformed delta.
pub const MALFORMED: Error = Error::Protocol("a delta that does not fit its base");

/// Decodes instructions, which arrive in pieces.
pub struct DeltaDecoder {
    base: File,
    base_bytes: u64,
    /// Offset in the base of the next byte to copy.
    at: u64,
    /// Bytes of this copy that the decoder has not read from the base yet.
    unread: u64,
    /// Bytes of this copy of which the instructions have not said yet whether they are as in the base, or differ.
    open: u64,
    /// New bytes that follow the copy.
    extra: u64,
    /// The kind of content of the copy, the relocation of the program, and the parser of the latter.
    content: Content,
    relocation: Option<Relocation>,
    head: Head,
    /// Holds `filled` bytes of the copy, of which the first `done` are relocated.
    buffer: Vec<u8>,
    filled: usize,
    done: usize,
    step: Step,
    number: Number,
}

/// The next item of the input.
#[derive(Clone, Copy)]
enum Step {
    /// The list of moves.
    Head,
    /// The length of a copy, the number of new bytes after it, and its distance from the end of the last copy.
    Copy,
    Extra,
    Seek,
    /// Bytes that are as in the base.
    Same,
    /// Bytes that differ.
    Different,
    /// This many differences.
    Differences(u64),
    /// This many bytes that are not in the base.
    New(u64),
}

/// A number in base 128, the lowest digits first; every byte but the last has its highest bit set.
#[derive(Default)]
struct Number {
    value: u64,
    digits: u32,
}

impl Number {
    /// Adds a byte; returns the number after its last one.
    fn push(&mut self, byte: u8) -> Result<Option<u64>, Error> {
        let shift = self.digits * 7;
        // 9 digits are 63 bits, more than any file has bytes.
        if shift > 56 {
            return Err(MALFORMED);
        }
        self.value |= u64::from(byte & 0x7f) << shift;
        self.digits += 1;
        if byte & 0x80 != 0 {
            return Ok(None);
        }
        let value = self.value;
        *self = Self::default();
        Ok(Some(value))
    }
}

/// Decodes a number whose lowest bit is its sign.
pub fn signed(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

impl DeltaDecoder {
    /// Expects the first instruction or, if `relocates`, the list of moves.
    pub fn new(base: File, base_bytes: u64, relocates: bool) -> Self {
        Self {
            base,
            base_bytes,
            at: 0,
            unread: 0,
            open: 0,
            extra: 0,
            content: Content::Bytes,
            relocation: None,
            head: Head::default(),
            buffer: vec![0; BUFFER_BYTES],
            filled: 0,
            done: 0,
            step: if relocates { Step::Head } else { Step::Copy },
            number: Number::default(),
        }
    }

    /// Applies the next instructions, and passes the bytes that result to `sink`.
    ///
    /// # Errors
    /// [`Error::Protocol`] for an instruction that does not fit the base, [`Error::Io`] if the base cannot be read, and
    /// the errors of `sink`.
    pub fn patch(&mut self, mut data: &[u8], sink: &mut Sink<'_>) -> Result<(), Error> {
        while let Some(first) = data.first() {
            match self.step {
                Step::Differences(left) => {
                    self.fill(sink)?;
                    let here = self.filled - self.done;
                    let count = here.min(data.len()).min(usize::try_from(left).unwrap_or(here));
                    let (differences, rest) = data.split_at(count);
                    for (byte, difference) in self.buffer[self.done..self.filled].iter_mut().zip(differences)
                    {
                        *byte = byte.wrapping_add(*difference);
                    }
                    self.done += count;
                    data = rest;
                    self.go_on(Step::Differences(left - count as u64));
                }
                Step::New(left) => {
                    self.flush_if_full(sink)?;
                    let capacity = BUFFER_BYTES - self.filled;
                    let count = capacity.min(data.len()).min(usize::try_from(left).unwrap_or(capacity));
                    let (new, rest) = data.split_at(count);
                    self.buffer[self.filled..][..count].copy_from_slice(new);
                    self.filled += count;
                    self.done += count;
                    data = rest;
                    self.go_on(Step::New(left - count as u64));
                }
                step => {
                    let byte = *first;
                    data = &data[1..];
                    if let Some(number) = self.number.push(byte)? {
                        self.apply(step, number, sink)?;
                    }
                }
            }
        }
        // Between two instructions, everything in the buffer is done; within a copy, the rest comes with the next
        // piece.
        if self.done == self.filled { self.flush_for(BUFFER_BYTES, sink) } else { Ok(()) }
    }

    /// Goes to the next step, or to the one after it if that one has nothing to do.
    fn go_on(&mut self, step: Step) {
        self.step = match step {
            Step::Differences(0) if self.open > 0 => Step::Same,
            Step::Differences(0) | Step::Same if self.open == 0 => self.after_copy(),
            Step::New(0) => Step::Copy,
            step => step,
        };
    }

    fn after_copy(&self) -> Step {
        if self.extra > 0 { Step::New(self.extra) } else { Step::Copy }
    }

    fn apply(&mut self, step: Step, number: u64, sink: &mut Sink<'_>) -> Result<(), Error> {
        match step {
            Step::Head => {
                if let Some(relocation) = self.head.push(number)? {
                    self.relocation = Some(relocation);
                    self.step = Step::Copy;
                }
            }
            Step::Copy => {
                let mut length = number;
                if self.relocation.is_some() {
                    let content = number as usize % (1 << CONTENT_BITS);
                    self.content = *Content::ALL.get(content).ok_or(MALFORMED)?;
                    length >>= CONTENT_BITS;
                }
                (self.open, self.unread) = (length, length);
                self.step = Step::Extra;
            }
            Step::Extra => {
                self.extra = number;
                self.step = Step::Seek;
            }
            Step::Seek => {
                let distance = signed(number);
                let at = self.at.checked_add_signed(distance).ok_or(MALFORMED)?;
                let end = at.checked_add(self.open).filter(|end| *end <= self.base_bytes);
                end.ok_or(MALFORMED)?;
                self.at = at;
                self.go_on(Step::Same);
            }
            Step::Same => {
                self.open = self.open.checked_sub(number).ok_or(MALFORMED)?;
                self.pass(number, sink)?;
                self.step = if self.open == 0 { self.after_copy() } else { Step::Different };
            }
            Step::Different => {
                self.open = self.open.checked_sub(number).ok_or(MALFORMED)?;
                self.go_on(Step::Differences(number));
            }
            Step::Differences(_) | Step::New(_) => unreachable!("these are no numbers"),
        }
        Ok(())
    }

    /// Passes on bytes of the copy as they are in the base.
    fn pass(&mut self, mut count: u64, sink: &mut Sink<'_>) -> Result<(), Error> {
        while count > 0 {
            self.fill(sink)?;
            let here = self.filled - self.done;
            let passed = usize::try_from(count).unwrap_or(here).min(here);
            self.done += passed;
            count -= passed as u64;
        }
        Ok(())
    }

    /// Makes sure that the buffer has bytes of the copy that are not done yet.
    fn fill(&mut self, sink: &mut Sink<'_>) -> Result<(), Error> {
        if self.done < self.filled {
            return Ok(());
        }
        self.flush_for(MIN_CAPACITY, sink)?;
        let capacity = BUFFER_BYTES - self.filled;
        let mut count = usize::try_from(self.unread).unwrap_or(capacity).min(capacity);
        let piece = &mut self.buffer[self.filled..][..count];
        let read = self.base.read_exact_at(piece, self.at);
        read.map_err(Error::io("read", Path::new("the base of a delta")))?;
        if let Some(relocation) = &self.relocation {
            // Words are counted from the beginning of the base.
            let odd = (self.at.wrapping_neg() % 4) as usize;
            if let Some(words) = piece.get_mut(odd..) {
                let followed = odd + relocation.follow::<BIG_ENDIAN>(self.content, words);
                if (count as u64) < self.unread {
                    count = followed;
                }
            }
        }
        self.filled += count;
        self.at += count as u64;
        self.unread -= count as u64;
        Ok(())
    }

    /// Passes on the bytes that are done if the buffer is full.
    fn flush_if_full(&mut self, sink: &mut Sink<'_>) -> Result<(), Error> {
        self.flush_for(1, sink)
    }

    fn flush_for(&mut self, bytes: usize, sink: &mut Sink<'_>) -> Result<(), Error> {
        if BUFFER_BYTES - self.filled < bytes {
            sink(&self.buffer[..self.filled])?;
            (self.filled, self.done) = (0, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use hop_formats::relocation::{Move, Moves};

    use super::*;

    fn patch(base: &[u8], pieces: &[&[u8]]) -> Result<Vec<u8>, Error> {
        patch_with(base, pieces, false)
    }

    fn patch_with(base: &[u8], pieces: &[&[u8]], relocates: bool) -> Result<Vec<u8>, Error> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(base).unwrap();
        let mut decoder = DeltaDecoder::new(file, base.len() as u64, relocates);
        let mut all = Vec::new();
        for piece in pieces {
            decoder.patch(piece, &mut |data| {
                all.extend_from_slice(data);
                Ok(())
            })?;
        }
        Ok(all)
    }

    #[test]
    fn deltas_decode_at_any_piece_length() {
        let base = b"0123456789";
        let delta: &[u8] = &[
            // 4 bytes from offset 2, of which the second and third differ, then 2 new ones.
            4, 2, 4, 1, 2, 1, 255, 1, b'a', b'b', //
            // 3 bytes from 5 before the end of that copy, all unchanged, and no new ones.
            3, 0, 9, 3, //
            // An empty copy, then 1 new byte.
            0, 1, 0, b'!',
        ];
        assert_eq!(patch(base, &[delta]).unwrap(), b"2435ab123!");
        for cut in 0..delta.len() {
            assert_eq!(patch(base, &[&delta[..cut], &delta[cut..]]).unwrap(), b"2435ab123!");
        }
    }

    #[test]
    fn output_larger_than_buffer_is_whole() {
        let base: Vec<u8> = (0..3 * BUFFER_BYTES).map(|index| (index / 251) as u8).collect();
        // 3 × 32768 = 98304 bytes, of which the last but one differs.
        let delta = [0x80, 0x80, 0x06, 0, 0, 0xfe, 0xff, 0x05, 1, 1, 1];
        let mut expected = base.clone();
        expected[3 * BUFFER_BYTES - 2] += 1;
        assert_eq!(patch(&base, &[&delta]).unwrap(), expected);
    }

    /// Encodes numbers as in a delta.
    fn numbers(numbers: &[u64]) -> Vec<u8> {
        let mut written = Vec::new();
        for mut number in numbers.iter().copied() {
            while number >= 0x80 {
                written.push(number as u8 | 0x80);
                number >>= 7;
            }
            written.push(number as u8);
        }
        written
    }

    #[test]
    fn relocated_addresses_are_followed() {
        // lui and addiu for 0x300100, and its address; and once more, so that each falls on the end of some buffer.
        let words = (0..BUFFER_BYTES as u32).map(|index| match index % 7 {
            0 | 4 => 0x3c01_0030,
            1 | 5 => 0x2424_0100,
            _ => 0x30_0000 + index % 0x100,
        });
        let base: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
        // 0x300000 and the 256 addresses after it have moved by 0x8010; no place has moved.
        let moves = [1, 0x30_0000, 0x101, 2 * 0x8010];
        let moved = Move { from: 0x30_0000, length: 0x101, by: 0x8010 };
        let relocation = Relocation { moves: Moves::new(vec![moved]).unwrap(), ..Relocation::default() };
        for (number, content) in Content::ALL.into_iter().enumerate() {
            for from in 0..4 {
                let length = base.len() - from - 6;
                let mut expected = base[from..from + length].to_vec();
                relocation.follow::<BIG_ENDIAN>(content, &mut expected[(4 - from) % 4..]);
                assert!(number == 0 || expected != base[from..from + length], "{content:?}");
                let copy = [(length << 3 | number) as u64, 0, 2 * from as u64, length as u64];
                let delta = numbers(&[&moves[..], &[0; 12], &copy].concat());
                assert!(patch_with(&base, &[&delta], true).unwrap() == expected, "{content:?} from {from}");
                let bytes: Vec<&[u8]> = delta.chunks(1).collect();
                assert!(patch_with(&base, &bytes, true).unwrap() == expected, "{content:?} from {from}");
            }
        }
    }

    #[test]
    fn copies_outside_base_are_refused() {
        let bad: [&[u8]; 5] = [
            // A copy beyond the base's end; one before its beginning; more unchanged and more different bytes than the
            // copy has.
            &[11, 0, 0],
            &[1, 0, 1],
            &[4, 0, 0, 5],
            &[4, 0, 0, 1, 4],
            // A number without an end.
            &[0xff; 10],
        ];
        for delta in bad {
            assert!(matches!(patch(b"0123456789", &[delta]), Err(Error::Protocol(_))), "{delta:?}");
        }
    }
}
