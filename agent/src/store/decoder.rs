//! Decodes blobs from the encodings in which controllers send them.
//!
//! **Invariants:** the decoder decodes input as it arrives, in bounded memory; and malformed input is an error, never a
//! wait for more.

use std::sync::Arc;

use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use crate::store::blob::Blob;
use crate::store::delta::DeltaDecoder;
use crate::store::error::Error;
use crate::store::lz4::Lz4Decoder;

/// The largest window of a zstd frame that the agent accepts, as a power of two: 512 KiB, which the decoder holds in
/// memory.
const MAX_WINDOW_LOG: u32 = 19;

/// Bytes that the decoder passes on at a time.
const OUTPUT_BYTES: usize = 32 * 1024;

/// The encoding of a blob on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// The blob itself.
    Identity,
    /// One zstd frame (RFC 8878).
    Zstd,
    /// One LZ4 frame.
    Lz4,
    /// Instructions for [`DeltaDecoder`], in one zstd frame.
    Delta,
    /// A delta like [`Encoding::Delta`], preceded by the list of moves.
    RelocatedDelta,
}

/// Decodes one blob.
pub enum Decoder {
    /// Passes the input on.
    Identity,
    /// Decompresses zstd.
    Zstd(Inflater),
    /// Decompresses LZ4.
    Lz4(Lz4Decoder),
    /// Decompresses zstd, and applies the instructions that result.
    Delta(Inflater, Box<DeltaDecoder>),
}

/// Receives decoded bytes.
pub type Sink<'a> = dyn FnMut(&[u8]) -> Result<(), Error> + 'a;

impl Decoder {
    /// Creates a decoder of this encoding; for a delta, against `base`.
    ///
    /// # Errors
    /// [`Error::Protocol`] for a delta without a base, [`Error::Io`] if the base cannot be opened.
    pub fn new(encoding: Encoding, base: Option<&Arc<Blob>>) -> Result<Self, Error> {
        Ok(match encoding {
            Encoding::Identity => Self::Identity,
            Encoding::Zstd => Self::Zstd(Inflater::new()?),
            Encoding::Lz4 => Self::Lz4(Lz4Decoder::new()?),
            Encoding::Delta | Encoding::RelocatedDelta => {
                let base = base.ok_or(Error::Protocol("a delta against nothing"))?;
                let file = base.open().map_err(Error::io("open", "the base of a delta".as_ref()))?;
                let relocates = encoding == Encoding::RelocatedDelta;
                let patcher = DeltaDecoder::new(file, base.size(), relocates);
                Self::Delta(Inflater::new()?, Box::new(patcher))
            }
        })
    }

    /// Decodes the next piece.
    ///
    /// # Errors
    /// [`Error::Protocol`] for input that is not of the encoding, and the errors of `sink`.
    pub fn decode(&mut self, data: &[u8], sink: &mut Sink<'_>) -> Result<(), Error> {
        match self {
            Self::Identity => sink(data),
            Self::Zstd(inflater) => inflater.inflate(data, sink),
            Self::Lz4(decoder) => decoder.decode(data, sink),
            Self::Delta(inflater, patcher) => {
                inflater.inflate(data, &mut |instructions| patcher.patch(instructions, sink))
            }
        }
    }

    /// Whether the input is complete; `None` if the encoding does not mark its end.
    pub fn is_over(&self) -> Option<bool> {
        Some(match self {
            Self::Identity => return None,
            Self::Lz4(decoder) => decoder.is_over(),
            Self::Zstd(inflater) | Self::Delta(inflater, _) => inflater.is_over,
        })
    }
}

/// `ZSTD_error_memory_allocation` (zstd_errors.h); functions of zstd return its negative.
const ZSTD_MEMORY_ALLOCATION: usize = 64;

fn no_memory() -> Error {
    Error::NotStarted(std::io::ErrorKind::OutOfMemory.into())
}

/// Decompresses one zstd frame.
pub struct Inflater {
    context: DCtx<'static>,
    output: Vec<u8>,
    is_over: bool,
}

impl Inflater {
    fn new() -> Result<Self, Error> {
        let mut context = DCtx::try_create().ok_or_else(no_memory)?;
        context.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG)).map_err(|_| no_memory())?;
        Ok(Self { context, output: vec![0; OUTPUT_BYTES], is_over: false })
    }

    fn inflate(&mut self, data: &[u8], sink: &mut Sink<'_>) -> Result<(), Error> {
        let mut input = InBuffer::around(data);
        loop {
            if self.is_over {
                let has_more = input.pos() < data.len();
                return if has_more {
                    Err(Error::Protocol("something behind the zstd frame"))
                } else {
                    Ok(())
                };
            }
            let mut output = OutBuffer::around(&mut self.output[..]);
            let expected = self.context.decompress_stream(&mut output, &mut input);
            // zstd allocates the window when it has read its size from the frame.
            let expected = expected.map_err(|code| match code.wrapping_neg() {
                ZSTD_MEMORY_ALLOCATION => no_memory(),
                _ => Error::Protocol("no zstd frame of a window up to 512 KiB"),
            })?;
            let count = output.pos();
            self.is_over = expected == 0;
            sink(&self.output[..count])?;
            if count < OUTPUT_BYTES && input.pos() == data.len() && !self.is_over {
                return Ok(());
            }
        }
    }
}
