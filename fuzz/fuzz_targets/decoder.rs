//! What a program is sent as: what nobody would send, and what `hop` sends.
#![no_main]

use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hop::{delta, packing};
use hop_proto::limits::OUTPUT_CHUNK_BYTES;
use hopd::decoder::{Decoder, Encoding};
use hopd::delta::Patcher;
use hopd::error::Error;
use hopd::packer::Packer;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

/// Bytes that are taken at most, as an upload takes no more than was announced.
const ANNOUNCED: usize = 1 << 20;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    /// In pieces of so many bytes.
    Zstd(u8, &'a [u8]),
    Lz4(u8, &'a [u8]),
    /// Instructions for a base.
    Delta(u8, &'a [u8], &'a [u8]),
    /// Two programs.
    Programs(u8, &'a [u8], &'a [u8]),
    /// Output that an agent packs, so many times over, and the controller unpacks.
    Output(u8, &'a [u8]),
    /// Output as nobody packs it.
    Packed(u16, &'a [u8]),
}

fuzz_target!(|input: Input<'_>| match input {
    Input::Zstd(piece, data) => decode(Encoding::Zstd, piece, data),
    Input::Lz4(piece, data) => decode(Encoding::Lz4, piece, data),
    Input::Delta(piece, base, data) => drop(patch(piece, base, data)),
    Input::Programs(piece, base, program) => {
        let deadline = Instant::now() + Duration::from_secs(60);
        let delta = delta::between(base, program, deadline).expect("there is time");
        assert!(patch(piece, base, &delta).expect("it fits its base") == program);
    }
    Input::Output(times, output) => {
        let mut output = output.repeat(usize::from(times) + 1);
        output.truncate(OUTPUT_CHUNK_BYTES);
        if let Some(packed) = Packer::default().pack(&output) {
            let unpacked = packing::unpack(packed, output.len() as u32).expect("it is honest");
            assert!(unpacked == output);
        }
    }
    Input::Packed(size, data) => {
        if let Ok(unpacked) = packing::unpack(Bytes::copy_from_slice(data), size.into()) {
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
            if taken > ANNOUNCED { Err(Error::Gone) } else { Ok(()) }
        });
        if decoded.is_err() {
            return;
        }
    }
}

fn patch(piece: u8, base: &[u8], delta: &[u8]) -> Result<Vec<u8>, Error> {
    let mut patcher = Patcher::new(file(base), base.len() as u64);
    let mut program = Vec::new();
    for data in delta.chunks(usize::from(piece) + 1) {
        patcher.patch(data, &mut |data| {
            program.extend_from_slice(data);
            if program.len() > ANNOUNCED { Err(Error::Gone) } else { Ok(()) }
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
