//! What a job's specification may become in memory, found out before it is decoded.
//!
//! An argument without a byte is two bytes on the wire and twelve or more once it is decoded: 2 MiB of them would take a
//! router's memory. **Invariants:** a message that passes has no more than [`MAX_FIELDS`] values, and one that does not pass is not
//! decoded.

use prost::encoding::{WireType, decode_key, decode_varint};

use crate::error::Error;

/// Values of a specification: arguments, variables, paths, digests, and whatever else is said once. 32 kB on the wire at least,
/// and with what the allocator adds 1 MiB in memory; Linux takes some 80,000 arguments of a file name's length (execve(2)).
const MAX_FIELDS: usize = 32 * 1024;

/// The fields in which there are values of their own without a bound: `RunRequest.spec`, and `JobSpec.inputs` in it.
const SPEC: u32 = 1;
const INPUTS: u32 = 7;

/// Looks at a `RunRequest`. What cannot be decoded passes as far as that: the decoder will say so.
///
/// # Errors
/// [`Error::Protocol`]
pub fn check(request: &[u8]) -> Result<(), Error> {
    let mut left = MAX_FIELDS;
    count(request, &mut left, |field, spec, left| match field {
        SPEC => count(spec, left, |field, tree, left| match field {
            INPUTS => count(tree, left, |_, _, _| Ok(())),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })
}

/// Counts the values of a message down, and hands what may be one itself to `within`, with its field's number.
fn count(
    mut message: &[u8],
    left: &mut usize,
    within: fn(u32, &[u8], &mut usize) -> Result<(), Error>,
) -> Result<(), Error> {
    while !message.is_empty() {
        *left = left.checked_sub(1).ok_or(Error::Protocol(
            "more than 32,768 arguments, variables and paths in the specification of a job",
        ))?;
        let Ok((field, wire_type)) = decode_key(&mut message) else { return Ok(()) };
        let length = match wire_type {
            WireType::Varint => decode_varint(&mut message).map(|_| 0),
            WireType::SixtyFourBit => Ok(8),
            WireType::ThirtyTwoBit => Ok(4),
            WireType::LengthDelimited => decode_varint(&mut message),
            // Nothing of the protocol is in a group, and what is unknown in one would have to be looked through.
            WireType::StartGroup | WireType::EndGroup => {
                return Err(Error::Protocol("a message that cannot be decoded"));
            }
        };
        let content = length.ok().and_then(|length| message.split_at_checked(usize::try_from(length).ok()?));
        let Some((content, rest)) = content else { return Ok(()) };
        if wire_type == WireType::LengthDelimited {
            within(field, content, left)?;
        }
        message = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hop_proto::v1::{Blob, EnvVar, InputTree, JobSpec, RunRequest, Stdin, run_request};
    use prost::Message;

    use super::*;

    fn request(spec: JobSpec) -> Vec<u8> {
        RunRequest { message: Some(run_request::Message::Spec(spec)) }.encode_to_vec()
    }

    fn spec() -> JobSpec {
        let program = Some(Blob { sha256: vec![7; 32], size: 1, checksum: Some(1) });
        JobSpec { name: "x".into(), program, output_window: 1, ..JobSpec::default() }
    }

    #[test]
    fn many_empty_values_are_not_decoded() {
        let many = MAX_FIELDS + 1;
        let tree = InputTree { bases: vec![vec![]; many], ..InputTree::default() };
        let refused = [
            JobSpec { args: vec![vec![]; many], ..spec() },
            JobSpec { env: vec![EnvVar::default(); many], ..spec() },
            JobSpec { output_files: vec![vec![]; many], ..spec() },
            JobSpec { inputs: vec![InputTree::default(); many], ..spec() },
            JobSpec { inputs: vec![tree], ..spec() },
        ];
        for spec in refused {
            assert!(matches!(check(&request(spec)), Err(Error::Protocol(_))));
        }
        // Twice in one message: the decoder puts both together.
        let half = request(JobSpec { args: vec![vec![]; MAX_FIELDS / 2], ..spec() });
        check(&half).unwrap();
        assert!(check(&half.repeat(2)).is_err());
        // A group in front would hide what follows.
        assert!(check(&[&[0x0b, 0x0c][..], &half].concat()).is_err());
    }

    #[test]
    fn what_a_controller_sends_passes() {
        let spec = JobSpec { args: vec![vec![b'x'; 100]; 20_000], ..spec() };
        check(&request(spec)).unwrap();
        // The content of a stream may look like anything.
        let data = [0x0a, 0].repeat(30_000).into();
        let stdin = run_request::Message::Stdin(Stdin { data, ..Stdin::default() });
        check(&RunRequest { message: Some(stdin) }.encode_to_vec()).unwrap();
        check(b"\x0a\xff").unwrap();
    }
}
