//! What a blob is sent as, and how it comes out of that.
//!
//! **Invariants:** what comes in is decoded as it comes, in memory that has a bound; and what is
//! malformed is an error, never a wait for more.

use std::sync::Arc;

use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use crate::store::blob::Blob;
use crate::store::delta::DeltaDecoder;
use crate::store::error::Error;
use crate::store::lz4::Lz4Decoder;

/// The largest window of a zstd frame that is accepted, as a power of two: 512 KiB, which the decoder holds in memory.
const MAX_WINDOW_LOG: u32 = 19;

/// Bytes that are handed over at once.
const OUTPUT_BYTES: usize = 32 * 1024;

/// How a blob is written on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// One zstd frame (RFC 8878).
    Zstd,
    /// One LZ4 frame.
    Lz4,
    /// Instructions for [`DeltaDecoder`], in one zstd frame.
    Delta,
    /// The same, behind what has moved.
    RelocatedDelta,
}

/// Decodes one blob.
pub enum Decoder {
    /// Nothing to be done.
    Identity,
    /// Inflates.
    Zstd(Inflater),
    /// Decompresses.
    Lz4(Lz4Decoder),
    /// Inflates, and follows what comes out.
    Delta(Inflater, Box<DeltaDecoder>),
}

/// Takes what is decoded.
pub type Sink<'a> = dyn FnMut(&[u8]) -> Result<(), Error> + 'a;

impl Decoder {
    /// A decoder of this encoding; of a delta, against `base`.
    ///
    /// # Errors
    /// [`Error::Protocol`] for a delta without a base, [`Error::Io`] if that cannot be opened.
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
    /// [`Error::Protocol`] for what is not of the encoding, and those of `sink`.
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

    /// Whether all has come, if what has come says so.
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

/// Inflates one zstd frame.
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
            // The window is allocated when the frame says how large it is.
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
