//! The bytes of a call in pieces of any size: each split gives the same messages or the same error, and reserves and
//! releases the same memory. The target `request` has the messages that are too large once decoded.
#![no_main]

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hop_proto::limits::{MAX_MESSAGE_BYTES, MAX_SPEC_BYTES};
use hop_proto::v1::RunRequest;
use hopd::job::error::Error;
use hopd::service::bounds::check_run_request;
use hopd::service::codec::Decoder;
use hopd::service::receive_budget::{ConnectionBudget, MessageMeter};
use hopd::service::request_body::RequestBody;
use http_body::{Body, Frame};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use tokio_stream::Stream;
use tonic::Streaming;

fuzz_target!(|input: &[u8]| {
    let [size, said @ ..] = input else { return };
    let size = 1 + usize::from(*size);
    let (heard, complaint) = hear(said, size);
    let (messages, complaints) = model(said);
    // The agent measures a piece before it decodes the messages in it.
    assert!(messages.starts_with(&heard) && (complaint.is_some() || heard.len() == messages.len()));
    assert!(complaints.contains(&complaint), "{complaint:?}: {complaints:?}");
    assert_eq!(measure(said, size), measure(said, said.len().max(1)));
});

/// The meter's error, if any; checks that all memory is released afterwards.
fn measure(said: &[u8], size: usize) -> Option<String> {
    let budget = Arc::new(ConnectionBudget::new(Arc::default()));
    let mut meter = MessageMeter::new(budget.clone(), MAX_SPEC_BYTES);
    let complaint = said.chunks(size).find_map(|piece| meter.measure(piece).err());
    drop(meter);
    let mut again = MessageMeter::new(budget, MAX_SPEC_BYTES);
    let largest = (MAX_SPEC_BYTES as u32).to_be_bytes();
    again.measure(&[&[0], &largest[..]].concat()).unwrap();
    complaint.map(|complaint| complaint.to_string())
}

/// The body of a request, piece by piece.
struct Pieces {
    said: Bytes,
    size: usize,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let count = self.size.min(self.said.len());
        Poll::Ready((count > 0).then(|| Ok(Frame::data(self.said.split_to(count)))))
    }

    fn is_end_stream(&self) -> bool {
        self.said.is_empty()
    }
}

/// The messages that the agent decodes, up to the first error.
fn hear(said: &[u8], size: usize) -> (Vec<RunRequest>, Option<String>) {
    let budget = Arc::new(ConnectionBudget::new(Arc::default()));
    let pieces = Pieces { said: Bytes::copy_from_slice(said), size };
    let body = RequestBody::new(pieces, MessageMeter::new(budget, MAX_SPEC_BYTES));
    let mut stream =
        Streaming::new_request(Decoder::<RunRequest>::default(), body, None, Some(MAX_SPEC_BYTES));
    let mut messages = Vec::new();
    loop {
        match Pin::new(&mut stream).poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(message))) => messages.push(message),
            Poll::Ready(Some(Err(status))) => return (messages, Some(status.message().to_owned())),
            Poll::Ready(None) => return (messages, None),
            Poll::Pending => panic!("all of it is here"),
        }
    }
}

/// Decodes everything at once: returns the messages up to the first error, and the possible errors: the first one of
/// the meter, and the first one of all.
fn model(mut said: &[u8]) -> (Vec<RunRequest>, Vec<Option<String>>) {
    let undecodable = || Error::Protocol("a message that cannot be decoded");
    let (mut messages, mut complaints) = (Vec::new(), Vec::new());
    let mut limit = (MAX_SPEC_BYTES, "the first message of a run is larger than 2 MiB");
    if said.is_empty() {
        complaints.push(Error::Protocol("a call without a message"));
    }
    while !said.is_empty() {
        let [compressed, a, b, c, d, rest @ ..] = said else {
            complaints.push(undecodable());
            break;
        };
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if *compressed != 0 {
            complaints.push(undecodable());
            break;
        }
        if length > limit.0 {
            complaints.push(Error::Protocol(limit.1));
            break;
        }
        limit = (MAX_MESSAGE_BYTES, "a message is larger than 64 KiB");
        let Some(message) = rest.get(..length) else {
            complaints.push(undecodable());
            break;
        };
        if complaints.is_empty() {
            match check_run_request(message) {
                Err(error) => complaints.push(error),
                Ok(()) => match RunRequest::decode(Bytes::copy_from_slice(message)) {
                    Ok(message) => messages.push(message),
                    Err(_) => complaints.push(undecodable()),
                },
            }
        }
        said = &rest[length..];
    }
    let complaints: Vec<_> = complaints.iter().map(|complaint| Some(complaint.to_string())).collect();
    (messages, if complaints.is_empty() { vec![None] } else { complaints })
}
