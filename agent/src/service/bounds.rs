//! Limits the elements in the lists of a request, before it is decoded.
//!
//! An empty element of a list takes two bytes on the wire, and up to 100 in memory: decoding a message of 2 MiB could
//! take 100 MB.
//!
//! **Invariants:** no list of a decoded request is longer than its limit.

use hop_proto::limits::{MAX_ARGUMENTS, MAX_BASES, MAX_INPUT_TREES, MAX_OUTPUT_REQUESTS};
use prost::bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};

use crate::job::error::Error;

/// Numbers of the fields of `RunRequest`, `JobSpec` and `InputArchive` in `agent.proto` that are checked.
const SPEC: u32 = 1;
const ARGS: u32 = 3;
const ENV: u32 = 4;
const INPUTS: u32 = 7;
const OUTPUT_FILES: u32 = 8;
const BASES: u32 = 17;
const INPUT_BASES: u32 = 4;

/// The error for bytes that are not a valid message.
pub const UNDECODABLE: Error = Error::Protocol("a message that cannot be decoded");

/// Counts the elements in the lists of a specification. An encoded field may occur more than once, and decoders merge
/// it.
#[derive(Default)]
struct Counts {
    arguments: usize,
    inputs: usize,
    output_files: usize,
    bases: usize,
}

/// Checks an encoded `RunRequest`.
///
/// # Errors
/// [`Error::Protocol`] if a list in it is too long, or it is not a valid message.
pub fn check_run_request(message: &[u8]) -> Result<(), Error> {
    let mut counts = Counts::default();
    each_field(message, |number, content| if number == SPEC { counts.spec(content) } else { Ok(()) })
}

impl Counts {
    fn spec(&mut self, spec: &[u8]) -> Result<(), Error> {
        each_field(spec, |number, content| match number {
            ARGS | ENV => {
                count(&mut self.arguments, MAX_ARGUMENTS, "more than 16,384 arguments and variables")
            }
            OUTPUT_FILES => {
                count(&mut self.output_files, MAX_OUTPUT_REQUESTS, "more than 64 paths of output files")
            }
            BASES => count(&mut self.bases, MAX_BASES, "more than 16 bases for a delta"),
            INPUTS => {
                count(&mut self.inputs, MAX_INPUT_TREES, "more than 4 trees of input files")?;
                let mut bases = 0;
                each_field(content, |number, _| match number {
                    INPUT_BASES => count(&mut bases, MAX_BASES, "more than 16 bases for a delta"),
                    _ => Ok(()),
                })
            }
            _ => Ok(()),
        })
    }
}

fn count(counted: &mut usize, most: usize, rule: &'static str) -> Result<(), Error> {
    *counted += 1;
    if *counted > most { Err(Error::Protocol(rule)) } else { Ok(()) }
}

/// Calls `visit` for each length-delimited field, with its number and its content.
fn each_field(
    mut message: &[u8],
    mut visit: impl FnMut(u32, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    while !message.is_empty() {
        let (number, kind) = decode_key(&mut message).map_err(|_| UNDECODABLE)?;
        let length = match kind {
            WireType::Varint => {
                decode_varint(&mut message).map_err(|_| UNDECODABLE)?;
                0
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => decode_varint(&mut message).map_err(|_| UNDECODABLE)?,
            // proto3 has no groups.
            WireType::StartGroup | WireType::EndGroup => return Err(UNDECODABLE),
        };
        let length =
            usize::try_from(length).ok().filter(|length| *length <= message.len()).ok_or(UNDECODABLE)?;
        if kind == WireType::LengthDelimited {
            visit(number, &message[..length])?;
        }
        message.advance(length);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hop_proto::v1::{self, run_request};
    use prost::Message;

    use super::*;

    fn encoded(spec: v1::JobSpec) -> Vec<u8> {
        v1::RunRequest { message: Some(run_request::Message::Spec(spec)) }.encode_to_vec()
    }

    #[test]
    fn lists_beyond_their_limits_are_refused() {
        let tree =
            |bases| v1::InputArchive { bases: vec![vec![7; 32]; bases], ..v1::InputArchive::default() };
        let of = |arguments: usize, trees: usize, bases: usize, files: usize| {
            encoded(v1::JobSpec {
                name: "x".into(),
                args: vec![Vec::new(); arguments / 2],
                env: vec![v1::EnvVar::default(); arguments - arguments / 2],
                inputs: vec![tree(bases); trees],
                bases: vec![Vec::new(); bases],
                output_files: vec![Vec::new(); files],
                disconnect_timeout_ms: 7,
                ..v1::JobSpec::default()
            })
        };
        let [arguments, trees, bases, files] =
            [MAX_ARGUMENTS, MAX_INPUT_TREES, MAX_BASES, MAX_OUTPUT_REQUESTS];
        assert!(check_run_request(&of(arguments, trees, bases, files)).is_ok());
        for (message, rule) in [
            (of(arguments + 1, 0, 0, 0), "arguments"),
            (of(0, trees + 1, 0, 0), "trees"),
            (of(0, 0, bases + 1, 0), "bases"),
            (of(0, 0, 0, files + 1), "output files"),
            (encoded(v1::JobSpec { inputs: vec![tree(bases + 1)], ..v1::JobSpec::default() }), "bases"),
            // A decoder merges a field that occurs twice.
            ([of(arguments, 0, 0, 0), of(1, 0, 0, 0)].concat(), "arguments"),
            (vec![0x0a, 0xff, 0x7f], "decoded"),
            (vec![0x0b], "decoded"),
        ] {
            let error = check_run_request(&message).unwrap_err().to_string();
            assert!(error.contains(rule), "{error}");
        }
    }

    #[test]
    fn blob_chunks_pass_unchecked() {
        let data = vec![0x0a; 10_000].into();
        let blob = v1::BlobChunk { offset: 1 << 40, data, encoding: 2 };
        let message = v1::RunRequest { message: Some(run_request::Message::Blob(blob)) }.encode_to_vec();
        assert!(check_run_request(&message).is_ok());
    }
}
