//! What a call says, in pieces of any size: the messages that are in it as a whole, and the same complaint.
#![no_main]

use bytes::Bytes;
use hop_proto::limits::MAX_SPEC_BYTES;
use hop_proto::v1::RunRequest;
use hopd::error::Error;
use hopd::grpc::Arrived;
use libfuzzer_sys::fuzz_target;
use prost::Message;

type Heard = (Vec<RunRequest>, Option<String>);

fuzz_target!(|input: &[u8]| {
    let [size, said @ ..] = input else { return };
    assert_eq!(hear(said, 1 + usize::from(*size)), model(said));
});

fn hear(said: &[u8], size: usize) -> Heard {
    let (mut arrived, mut messages) = (Arrived::default(), Vec::new());
    let mut complaint = None;
    for piece in said.chunks(size) {
        arrived.push(piece);
        loop {
            match arrived.message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error.to_string())),
            }
        }
    }
    if let Err(error) = arrived.end() {
        complaint = Some(error.to_string());
    }
    (messages, complaint)
}

/// The same from the whole of it.
fn model(mut said: &[u8]) -> Heard {
    let mut messages = Vec::new();
    let complaint = loop {
        let [compressed, a, b, c, d, rest @ ..] = said else {
            break (!said.is_empty()).then_some("a message that cannot be decoded");
        };
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if *compressed == 0 && length > MAX_SPEC_BYTES {
            break Some("a message is larger than 2 MiB");
        }
        let message =
            rest.get(..length).and_then(|message| RunRequest::decode(Bytes::copy_from_slice(message)).ok());
        match message.filter(|_| *compressed == 0) {
            Some(message) => messages.push(message),
            None => break Some("a message that cannot be decoded"),
        }
        said = &rest[length..];
    };
    (messages, complaint.map(|complaint| Error::Protocol(complaint).to_string()))
}
