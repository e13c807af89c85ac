//! What a call says, in pieces of any size: the messages that are in it as a whole, and the same complaint; the same memory is
//! asked for, and given back. What is too much to be decoded is the target `request`'s.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use hop_proto::limits::MAX_SPEC_BYTES;
use hop_proto::v1::RunRequest;
use hopd::error::Error;
use hopd::grpc::Arrived;
use hopd::receive_budget::{ConnectionBudget, MessageMeter};
use libfuzzer_sys::fuzz_target;
use prost::Message;

type Heard = (Vec<RunRequest>, Option<String>);

fuzz_target!(|input: &[u8]| {
    let [size, said @ ..] = input else { return };
    let size = 1 + usize::from(*size);
    assert_eq!(hear(said, size), model(said));
    assert_eq!(measure(said, size), measure(said, said.len().max(1)));
});

/// What the meter says of it, and whether all memory is there again afterwards.
fn measure(said: &[u8], size: usize) -> Option<String> {
    let budget = Arc::new(ConnectionBudget::new(Arc::default()));
    let mut meter = MessageMeter::new(budget.clone(), MAX_SPEC_BYTES);
    let complaint = said.chunks(size).find_map(|piece| meter.arrived(piece).err());
    drop(meter);
    let mut again = MessageMeter::new(budget, MAX_SPEC_BYTES);
    let largest = (MAX_SPEC_BYTES as u32).to_be_bytes();
    again.arrived(&[&[0], &largest[..]].concat()).unwrap();
    complaint.map(|complaint| complaint.to_string())
}

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
