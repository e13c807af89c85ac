//! LZ4 by its own library (github.com/lz4/lz4): a program that arrives as a frame, and output that goes as blocks.
//!
//! To decompress a program costs a MIPS CPU a third of what zstd costs, and on a fast link it is the CPU that all wait for. In
//! instructions a byte that comes out, of a Go program on MIPS32r2: this 6.7, lz4_flex 0.14 with the frame parsed here 10.2, and
//! the decoder that the agent had of its own 9.9. To compress lines of a log: this 8.3, lz4_flex 11.6, its own 6.5.
//!
//! **Invariants:** a frame other than those that the protocol names is refused before memory is taken for it; no input is written
//! elsewhere than into the buffer.

use std::ffi::{c_char, c_int};

use lz4_sys::{
    BlockChecksum, BlockMode, BlockSize, ContentChecksum, FrameType, LZ4F_createDecompressionContext,
    LZ4F_decompress, LZ4F_freeDecompressionContext, LZ4F_getFrameInfo, LZ4F_isError, LZ4FDecompressOptions,
    LZ4FDecompressionContext, LZ4FFrameInfo,
};

use crate::store::decoder::Sink;
use crate::store::error::Error;

/// LZ4F_VERSION.
const VERSION: u32 = 100;

/// Bytes of a frame's header that names neither its size nor a dictionary.
const HEADER_BYTES: usize = 7;

/// Bytes of a block when it is decompressed.
const BLOCK: usize = 64 * 1024;

/// Blocks in the buffer: one that is written, and those in which 64 KiB before it are, wherever it is.
const BLOCKS: usize = 3;

const MALFORMED: Error = Error::Protocol("no LZ4 frame of 64 KiB blocks without checksums");

/// What was decompressed stays where it is until 64 KiB more have been: the library refers to it there.
static STAYS: LZ4FDecompressOptions = LZ4FDecompressOptions { stable_dst: 1, reserved: [0; 3] };

/// Decompresses one frame, which comes in pieces.
pub struct Lz4Decoder {
    context: LZ4FDecompressionContext,
    /// What is here of the header; nothing when it was read.
    header: Option<Vec<u8>>,
    /// A ring of blocks.
    buffer: Vec<u8>,
    /// Where the next block goes.
    end: usize,
    is_over: bool,
}

// SAFETY: the context is on the heap, and nobody else has it.
unsafe impl Send for Lz4Decoder {}

impl Lz4Decoder {
    /// Waits for the header.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new() -> Result<Self, Error> {
        let mut context = LZ4FDecompressionContext(std::ptr::null_mut());
        // SAFETY: the library writes the context to where it is.
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

    /// Decompresses what is complete, and hands it over.
    ///
    /// # Errors
    /// [`Error::Protocol`] for what is no such frame, or follows it; and those of `sink`.
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
            // SAFETY: the library writes at most `count` bytes behind `end`, where there is room for a block, and reads at
            // most `used`; what it has written before, and refers to, is still there.
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

    /// Reads the header, and refuses what would take more memory or time than the protocol says.
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
        // SAFETY: the library reads at most `used` bytes, and writes to `info` what its types can be.
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
        // SAFETY: it was made by the library, and is not used again. There is nothing that could fail.
        unsafe { LZ4F_freeDecompressionContext(self.context) };
    }
}

fn is_error(code: usize) -> bool {
    // SAFETY: it only looks at the number.
    unsafe { LZ4F_isError(code) != 0 }
}

unsafe extern "C" {
    // Of lz4.h, but not of lz4-sys.
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

/// Compresses blocks, one by one.
#[derive(Debug)]
pub struct Lz4Encoder {
    /// The library's table, aligned as it wants it.
    state: Vec<u64>,
}

impl Default for Lz4Encoder {
    fn default() -> Self {
        // SAFETY: it only gives a number.
        let bytes = unsafe { LZ4_sizeofState() };
        Self { state: vec![0; usize::try_from(bytes).unwrap_or(0).div_ceil(size_of::<u64>())] }
    }
}

impl Lz4Encoder {
    /// Compresses `data` into `block`; gives how many bytes it takes, or `None` if there is no room.
    pub fn encode(&mut self, data: &[u8], block: &mut [u8]) -> Option<usize> {
        let lengths = (c_int::try_from(data.len()).ok()?, c_int::try_from(block.len()).ok()?);
        // SAFETY: the state is as large as the library says and at a multiple of eight; it reads and writes no more bytes than
        // there are.
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

    /// A magic number; version 1, no checksums, no dictionary, blocks that refer to each other; blocks of 64 KiB; and a checksum
    /// of these two.
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
    fn literals_and_repetitions_come_out_however_the_pieces_are_cut() {
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
    fn a_block_can_refer_to_the_ones_before_it() {
        let first = [&(BLOCK as u32 | STORED).to_le_bytes()[..], &vec![7; BLOCK]].concat();
        let second = framed(b"\x00\xff\xff\x50.last");
        let both: Vec<u8> = [first, second].concat();
        let pieces: Vec<&[u8]> = std::iter::once(&HEADER[..]).chain([&both[..]; 10]).collect();
        let (unpacked, _) = unpack(&pieces).unwrap();
        assert_eq!(unpacked.len(), 10 * (BLOCK + 9));
        assert_eq!(unpacked.iter().filter(|byte| **byte != 7).count(), 50);
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
            header[6] = (xxhash_rust::xxh32::xxh32(&header[4..6], 0) >> 8) as u8;
            assert!(matches!(unpack(&[&header]), Err(Error::Protocol(_))), "{index} {byte}");
        }
    }
}
