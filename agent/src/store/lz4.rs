//! LZ4 by the original library (github.com/lz4/lz4): decodes programs, which arrive as frames, and encodes output as
//! blocks.
//!
//! LZ4 takes a MIPS CPU a third of the instructions that zstd takes to decompress a program, and on a fast link the CPU
//! is the bottleneck. Instructions per decompressed byte of a Go program on MIPS32r2: this library 6.7, lz4_flex 0.14
//! with the frame parsed here 10.2, the agent's former own decoder 9.9. To compress the lines of a log: this library
//! 8.3, lz4_flex 11.6, the former own encoder 6.5.
//!
//! **Invariants:** the decoder refuses a frame that is not of the protocol's kind before it allocates memory for it,
//! and no input makes it write outside its buffer.

use std::ffi::{c_char, c_int};

use lz4_sys::{
    BlockChecksum, BlockMode, BlockSize, ContentChecksum, FrameType, LZ4F_createDecompressionContext,
    LZ4F_decompress, LZ4F_freeDecompressionContext, LZ4F_getFrameInfo, LZ4F_isError, LZ4FDecompressOptions,
    LZ4FDecompressionContext, LZ4FFrameInfo,
};

use crate::store::decoder::Sink;
use crate::store::error::Error;

/// LZ4F_VERSION of lz4frame.h.
const VERSION: u32 = 100;

/// Bytes of the header of a frame that gives neither a content size nor a dictionary.
const HEADER_BYTES: usize = 7;

/// Bytes of a decompressed block.
const BLOCK: usize = 64 * 1024;

/// Blocks in the buffer: the one that the library writes, and two that contain the 64 KiB before it, wherever it is.
const BLOCKS: usize = 3;

const MALFORMED: Error = Error::Protocol("no LZ4 frame of 64 KiB blocks without checksums");

/// Promises the library that decompressed data stays in place until it has decompressed 64 KiB more: it refers to that
/// data.
static STAYS: LZ4FDecompressOptions = LZ4FDecompressOptions { stable_dst: 1, reserved: [0; 3] };

/// Decompresses one frame, which arrives in pieces.
pub struct Lz4Decoder {
    context: LZ4FDecompressionContext,
    /// The part of the header that has arrived; None when it has been read.
    header: Option<Vec<u8>>,
    /// A ring of blocks.
    buffer: Vec<u8>,
    /// Position of the next block.
    end: usize,
    is_over: bool,
}

// SAFETY: the context is on the heap, and only this value has a pointer to it.
unsafe impl Send for Lz4Decoder {}

impl Lz4Decoder {
    /// Creates a decoder that expects the header.
    ///
    /// # Errors
    /// [`Error::NotStarted`] if there is too little memory.
    pub fn new() -> Result<Self, Error> {
        let mut context = LZ4FDecompressionContext(std::ptr::null_mut());
        // SAFETY: the library writes a pointer to the new context to `context`.
        let code = unsafe { LZ4F_createDecompressionContext(&mut context, VERSION) };
        if is_error(code) {
            return Err(Error::NotStarted(std::io::ErrorKind::OutOfMemory.into()));
        }
        let header = Some(Vec::with_capacity(HEADER_BYTES));
        Ok(Self { context, header, buffer: vec![0; BLOCKS * BLOCK], end: 0, is_over: false })
    }

    /// True when the frame has ended.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Decompresses the complete part of the data, and passes it to `sink`.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the data is not such a frame, or continues after its end; and the errors of `sink`.
    pub fn decode(&mut self, mut data: &[u8], sink: &mut Sink<'_>) -> Result<(), Error> {
        if let Some(header) = &mut self.header {
            let (first, rest) = data.split_at(data.len().min(HEADER_BYTES - header.len()));
            header.extend_from_slice(first);
            data = rest;
            if header.len() < HEADER_BYTES {
                return Ok(());
            }
            self.read_header()?;
        }
        loop {
            if self.is_over {
                return if data.is_empty() { Ok(()) } else { Err(MALFORMED) };
            }
            if self.end + BLOCK > self.buffer.len() {
                self.end = 0;
            }
            let (mut count, mut used) = (BLOCK, data.len());
            // SAFETY: the library writes at most `count` bytes after `end`, where the buffer has space for a block, and
            // reads at most `used` bytes; the data that it wrote before, and refers to, is still in place.
            let code = unsafe {
                let to = self.buffer.as_mut_ptr().add(self.end);
                LZ4F_decompress(self.context, to, &mut count, data.as_ptr(), &mut used, &STAYS)
            };
            if is_error(code) {
                return Err(MALFORMED);
            }
            self.is_over = code == 0;
            data = &data[used..];
            sink(&self.buffer[self.end..self.end + count])?;
            self.end += count;
            if count == 0 && data.is_empty() && !self.is_over {
                return Ok(());
            }
        }
    }

    /// Reads the header, and refuses a frame that would take more memory or time than the protocol allows.
    fn read_header(&mut self) -> Result<(), Error> {
        let header = self.header.take().unwrap_or_default();
        let mut info = LZ4FFrameInfo {
            block_size_id: BlockSize::Default,
            block_mode: BlockMode::Linked,
            content_checksum_flag: ContentChecksum::NoChecksum,
            frame_type: FrameType::Frame,
            content_size: 0,
            dict_id: 0,
            block_checksum_flag: BlockChecksum::NoBlockChecksum,
        };
        let mut used = header.len();
        // SAFETY: the library reads at most `used` bytes, and writes only valid values to `info`.
        let code = unsafe { LZ4F_getFrameInfo(self.context, &mut info, header.as_ptr(), &mut used) };
        let is_good = !is_error(code)
            && used == HEADER_BYTES
            && matches!(info.frame_type, FrameType::Frame)
            && matches!(info.block_size_id, BlockSize::Max64KB)
            && matches!(info.content_checksum_flag, ContentChecksum::NoChecksum)
            && matches!(info.block_checksum_flag, BlockChecksum::NoBlockChecksum);
        if is_good { Ok(()) } else { Err(MALFORMED) }
    }
}

impl Drop for Lz4Decoder {
    fn drop(&mut self) {
        // SAFETY: the library created the context, and nothing uses it again. The call cannot fail.
        unsafe { LZ4F_freeDecompressionContext(self.context) };
    }
}

fn is_error(code: usize) -> bool {
    // SAFETY: the function only compares the number.
    unsafe { LZ4F_isError(code) != 0 }
}

unsafe extern "C" {
    // Functions of lz4.h that lz4-sys does not declare.
    fn LZ4_sizeofState() -> c_int;
    fn LZ4_compress_fast_extState(
        state: *mut u64,
        source: *const c_char,
        target: *mut c_char,
        source_bytes: c_int,
        target_bytes: c_int,
        acceleration: c_int,
    ) -> c_int;
}

/// Compresses blocks independently of each other.
#[derive(Debug)]
pub struct Lz4Encoder {
    /// The library's hash table, with the alignment that it requires.
    state: Vec<u64>,
}

impl Default for Lz4Encoder {
    fn default() -> Self {
        // SAFETY: the function only returns a number.
        let bytes = unsafe { LZ4_sizeofState() };
        Self { state: vec![0; usize::try_from(bytes).unwrap_or(0).div_ceil(size_of::<u64>())] }
    }
}

impl Lz4Encoder {
    /// Compresses `data` into `block`. Returns the number of compressed bytes, or `None` if they do not fit.
    pub fn encode(&mut self, data: &[u8], block: &mut [u8]) -> Option<usize> {
        let lengths = (c_int::try_from(data.len()).ok()?, c_int::try_from(block.len()).ok()?);
        // SAFETY: the state has the size that the library demands, and an alignment of eight bytes; the library reads
        // and writes no more bytes than the two lengths say.
        let length = unsafe {
            LZ4_compress_fast_extState(
                self.state.as_mut_ptr(),
                data.as_ptr().cast(),
                block.as_mut_ptr().cast(),
                lengths.0,
                lengths.1,
                1,
            )
        };
        usize::try_from(length).ok().filter(|length| *length > 0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A block is stored as it is if this bit of its length is set.
    const STORED: u32 = 1 << 31;

    /// A magic number; version 1, no checksums, no dictionary, blocks that refer to each other; blocks of 64 KiB; and a
    /// checksum of these two.
    const HEADER: [u8; HEADER_BYTES] = [0x04, 0x22, 0x4d, 0x18, 0x40, 0x40, 0xc0];

    fn unpack(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool), Error> {
        let mut decoder = Lz4Decoder::new()?;
        let mut all = Vec::new();
        for piece in pieces {
            decoder.decode(piece, &mut |data| {
                all.extend_from_slice(data);
                Ok(())
            })?;
        }
        Ok((all, decoder.is_over()))
    }

    fn framed(block: &[u8]) -> Vec<u8> {
        [&(block.len() as u32).to_le_bytes(), block].concat()
    }

    #[test]
    fn frames_decode_at_any_piece_length() {
        // "abc", then 9 bytes from 3 before, then the five literals with which a block ends at least.
        let block = framed(b"\x35abc\x03\0\x50.last");
        let frame = [&HEADER[..], &block, &[0; 4]].concat();
        for cut in 0..frame.len() {
            let (unpacked, is_over) = unpack(&[&frame[..cut], &frame[cut..]]).unwrap();
            assert_eq!((&unpacked[..], is_over), (&b"abcabcabcabc.last"[..], true));
        }
        assert!(matches!(unpack(&[&frame, b"x"]), Err(Error::Protocol(_))), "nothing follows");
        assert!(!unpack(&[&frame[..frame.len() - 1]]).unwrap().1);
    }

    #[test]
    fn blocks_may_reference_previous_blocks() {
        let first = [&(BLOCK as u32 | STORED).to_le_bytes()[..], &vec![7; BLOCK]].concat();
        let second = framed(b"\x00\xff\xff\x50.last");
        let both: Vec<u8> = [first, second].concat();
        let pieces: Vec<&[u8]> = std::iter::once(&HEADER[..]).chain([&both[..]; 10]).collect();
        let (unpacked, _) = unpack(&pieces).unwrap();
        assert_eq!(unpacked.len(), 10 * (BLOCK + 9));
        assert_eq!(unpacked.iter().filter(|byte| **byte != 7).count(), 50);
    }

    #[test]
    fn every_kind_of_sequence_decodes() {
        let mut state = 1_u32;
        // A number below a limit, by Marsaglia's xorshift, which needs no crate.
        let mut random = |limit: usize| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as usize % limit
        };
        for _ in 0..200 {
            let (mut block, mut plain) = (Vec::new(), Vec::new());
            while plain.len() < BLOCK - 1000 && block.len() < BLOCK - 1000 {
                // Mostly short lengths, and all boundary values.
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
    fn malformed_frame_is_refused() {
        let bad: [&[u8]; 6] = [
            // Literals beyond the block, and beyond the limit.
            &[0x50, b'a'],
            &[&[0xf0], &[255; 300][..], &[0]].concat(),
            // From before the first byte, and from 0 before.
            &[0x10, b'a', 2, 0, 0x00],
            &[0x10, b'a', 0, 0, 0x00],
            // Cut off in its length, and after a match.
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
            header[6] = (xxhash_rust::xxh32::xxh32(&header[4..6], 0) >> 8) as u8;
            assert!(matches!(unpack(&[&header]), Err(Error::Protocol(_))), "{index} {byte}");
        }
    }
}
