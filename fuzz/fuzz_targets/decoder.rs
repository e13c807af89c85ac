//! Decodes blobs: input that nobody would send, and encodings that `hop` sends.
#![no_main]

use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hop::transfer::delta;
use hop::transfer::encode;
use hop_proto::limits::OUTPUT_CHUNK_BYTES;
use hopd::job::session::output_compressor::OutputCompressor;
use hopd::store::decoder::{Decoder, Encoding};
use hopd::store::delta::DeltaDecoder;
use hopd::store::error::Error;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

/// Maximum number of decoded bytes, as an upload has an announced size.
const ANNOUNCED: usize = 1 << 20;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    /// In pieces of this many bytes.
    Zstd(u8, &'a [u8]),
    Lz4(u8, &'a [u8]),
    /// Instructions for a base, with or without a list of moves before them.
    Delta(u8, bool, &'a [u8], &'a [u8]),
    /// Two programs.
    Programs(u8, &'a [u8], &'a [u8]),
    /// Two programs for MIPS.
    Mips(u8, Mips<'a>, Mips<'a>),
    /// Output that an agent compresses, repeated this many times, and the controller decompresses.
    Output(u8, &'a [u8]),
    /// Input that no encoder produces.
    Packed(u16, &'a [u8]),
}

/// A program for MIPS, whose headers may be wrong.
#[derive(Arbitrary, Debug)]
struct Mips<'a> {
    /// For each of two segments: a number that is added to its offset in the file, and one to its size.
    segments: [[u16; 2]; 2],
    /// Changes to Go's tables: the index of a word, and its new value.
    go: Option<[(u8, u16); 4]>,
    code: &'a [u8],
    data: &'a [u8],
}

fuzz_target!(|input: Input<'_>| match input {
    Input::Zstd(piece, data) => decode(Encoding::Zstd, piece, data),
    Input::Lz4(piece, data) => decode(Encoding::Lz4, piece, data),
    Input::Delta(piece, is_relocated, base, data) => drop(patch(piece, is_relocated, base, data)),
    Input::Programs(piece, base, program) => {
        let delta = delta::write(base, program, &copies(base, program));
        assert!(patch(piece, false, base, &delta).expect("it fits its base") == program);
    }
    Input::Mips(piece, base, program) => {
        let (base, program) = (base.program(), program.program());
        let deadline = Instant::now() + Duration::from_secs(60);
        if let Some(delta) = delta::write_relocated(&base, &program, &copies(&base, &program), deadline) {
            assert!(patch(piece, true, &base, &delta).expect("it fits its base") == program);
        }
    }
    Input::Output(times, output) => {
        let mut output = output.repeat(usize::from(times) + 1);
        output.truncate(OUTPUT_CHUNK_BYTES);
        if let Some(packed) = OutputCompressor::default().compress(&output) {
            let unpacked = encode::decompress(packed, output.len() as u32).expect("it is honest");
            assert!(unpacked == output);
        }
    }
    Input::Packed(size, data) => {
        if let Ok(unpacked) = encode::decompress(Bytes::copy_from_slice(data), size.into()) {
            assert!(size == 0 || unpacked.len() == usize::from(size));
        }
    }
});

fn decode(encoding: Encoding, piece: u8, data: &[u8]) {
    let mut decoder = Decoder::new(encoding, None).expect("memory");
    let mut taken = 0;
    for data in data.chunks(usize::from(piece) + 1) {
        let decoded = decoder.decode(data, &mut |data| {
            taken += data.len();
            if taken > ANNOUNCED { Err(Error::DigestMismatch) } else { Ok(()) }
        });
        if decoded.is_err() {
            return;
        }
    }
}

fn copies(base: &[u8], program: &[u8]) -> Vec<delta::Copy> {
    let deadline = Instant::now() + Duration::from_secs(60);
    delta::find(base, program, deadline).expect("there is time")
}

impl Mips<'_> {
    /// Builds it in little endian, the byte order of the agents that are fuzzed: instructions at 0x1000, data at
    /// 0x10000.
    fn program(&self) -> Vec<u8> {
        const HEADERS: u32 = 52 + 2 * 32;
        let mut data = self.go.map(go_tables).unwrap_or_default();
        data.extend_from_slice(self.data);
        let code_bytes = self.code.len() as u32;
        let parts =
            [(HEADERS, 0x1000, code_bytes, 5), (HEADERS + code_bytes, 0x1_0000, data.len() as u32, 6)];
        let mut words =
            vec![0x464c_457f, 0x0001_0101, 0, 0, 0x0008_0002, 1, 0x1000, 52, 0, 0, 0x0020_0034, 2, 0];
        for ((at, address, bytes, flags), [further, more]) in parts.into_iter().zip(self.segments) {
            let (at, bytes) = (at + u32::from(further), bytes.saturating_add_signed(i32::from(more as i16)));
            words.extend([1, at, address, address, bytes, bytes, flags, 4]);
        }
        words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .chain(self.code.iter().copied())
            .chain(data)
            .collect()
    }
}

/// Plausible tables of Go at 0x10000: a header, their addresses, an index of two functions, and these.
fn go_tables(changes: [(u8, u16); 4]) -> Vec<u8> {
    const HEADER_WORDS: usize = 10;
    const MODULE_WORDS: usize = 41;
    let mut words = vec![0; HEADER_WORDS];
    words[..3].copy_from_slice(&[0xffff_fff1, 0x0404_0000, 2]);
    let names = 4 * (HEADER_WORDS + MODULE_WORDS) as u32;
    let functions = names + 8;
    (words[5], words[8], words[9]) = (names, names, functions);
    words.resize(HEADER_WORDS + MODULE_WORDS, 0x1000);
    (words[HEADER_WORDS], words[HEADER_WORDS + 1]) = (0x1_0000, 0x1_0000 + names);
    // The names, the index, and two functions without offsets.
    words.extend([0x0000_0061, 0x0000_0062, 0, 20, 16, 64, 32]);
    words.extend([[0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0], [16, 4, 0, 0, 1, 1, 1, 0, 0, 0, 0]].concat());
    for (word, by) in changes {
        let index = usize::from(word) % words.len();
        words[index] = u32::wrapping_add(words[index], by.into());
    }
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn patch(piece: u8, is_relocated: bool, base: &[u8], delta: &[u8]) -> Result<Vec<u8>, Error> {
    let mut patcher = DeltaDecoder::new(file(base), base.len() as u64, is_relocated);
    let mut program = Vec::new();
    for data in delta.chunks(usize::from(piece) + 1) {
        patcher.patch(data, &mut |data| {
            program.extend_from_slice(data);
            if program.len() > ANNOUNCED { Err(Error::DigestMismatch) } else { Ok(()) }
        })?;
    }
    Ok(program)
}

/// A file in memory.
fn file(content: &[u8]) -> File {
    // SAFETY: the name is a string, and the descriptor is nobody else's.
    let mut file = unsafe { File::from_raw_fd(libc::memfd_create(c"base".as_ptr(), 0)) };
    file.write_all(content).expect("memory");
    file
}
