//! gRPC in a call of HTTP/2: messages in, messages out, and at the end how it went (`doc/PROTOCOL-HTTP2.md` of gRPC).
//!
//! What must stay true: no message is longer than its [`MessageMeter`] allows, and no room is made for one that says so; and messages that
//! are ready at the same time go out together, [`BATCH_BYTES`] at most and one more message.
//!
//! A library that serves everybody has compression, metadata and deadlines, which nobody asks an agent for, and makes its code anew
//! for each kind of message: 56 kB of the agent.

use std::fmt::Write;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use hop_proto::limits::MAX_SPEC_BYTES;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use tokio_stream::{Stream, StreamExt};

use crate::error::Error;
use crate::http2::{Body, Incoming, Piece};
use crate::receive_budget::MessageMeter;

/// What is before each message: whether it is compressed, which it never is, and its length.
const HEAD_BYTES: usize = 5;

/// Bytes of messages that wait for their peer together: two frames of HTTP/2.
const BATCH_BYTES: usize = 32 * 1024;

/// Bytes of a buffer at first: most messages fit in.
const BUFFER_BYTES: usize = 8 * 1024;

/// Bytes of a message beyond which its buffer is not used again.
const BUFFER_LIMIT_BYTES: usize = 64 * 1024;

const CONTENT: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

const UNDECODABLE: Error = Error::Protocol("a message that cannot be decoded");

/// Looks at a message that has not been decoded.
pub type Check = fn(&[u8]) -> Result<(), Error>;

/// What a peer says in a call, message by message. Nothing is asked for after an error.
pub struct Requests<M> {
    said: Said,
    check: Check,
    message: PhantomData<fn() -> M>,
}

impl<M: Message + Default> Requests<M> {
    /// What it says in there, measured by `meter`, and looked at by `check` before it is decoded.
    pub fn new(incoming: Incoming, meter: MessageMeter, check: Check) -> Self {
        let said = Said { incoming, meter, arrived: Arrived::default() };
        Self { said, check, message: PhantomData }
    }

    /// The one message of a call that has one.
    ///
    /// # Errors
    /// There is none, or it cannot be understood.
    pub async fn only(mut self) -> Result<M, Error> {
        let only = self.next().await.ok_or(Error::Protocol("a call without a message"))??;
        // Who is answered before it has said everything is told to stop, and may take that for a failure.
        while self.next().await.transpose()?.is_some() {}
        Ok(only)
    }
}

impl<M: Message + Default> Stream for Requests<M> {
    type Item = Result<M, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(match ready!(self.said.poll_message(context)?) {
            Some(length) => {
                (self.check)(&self.said.arrived.0[..length])?;
                Some(self.said.arrived.decode(length))
            }
            None => None,
        })
    }
}

/// What a peer says in a call, of whatever kind it is.
struct Said {
    incoming: Incoming,
    meter: MessageMeter,
    arrived: Arrived,
}

impl Said {
    /// The length of the next message, when all of it has arrived; nothing after the last.
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<usize>, Error>> {
        loop {
            if let Some(length) = self.arrived.behead()? {
                return Poll::Ready(Ok(Some(length)));
            }
            match ready!(self.incoming.poll_data(context)) {
                Some(Ok(data)) => {
                    self.meter.arrived(&data)?;
                    self.arrived.push(&data);
                }
                Some(Err(_)) => return Poll::Ready(Err(Error::Gone)),
                None => return Poll::Ready(self.arrived.end().map(|()| None)),
            }
        }
    }
}

/// Messages of a peer, in whatever pieces they arrive.
pub struct Arrived(BytesMut);

impl Default for Arrived {
    fn default() -> Self {
        Self(BytesMut::with_capacity(BUFFER_BYTES))
    }
}

impl Arrived {
    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
    }

    /// The next message, if all of it has arrived.
    ///
    /// # Errors
    /// It is too long, or cannot be decoded.
    pub fn message<M: Message + Default>(&mut self) -> Result<Option<M>, Error> {
        self.behead()?.map(|length| self.decode(length)).transpose()
    }

    /// A message that is `length` bytes long.
    fn decode<M: Message + Default>(&mut self, length: usize) -> Result<M, Error> {
        let message = M::decode((&mut self.0).take(length)).map_err(|_| UNDECODABLE);
        if length > BUFFER_LIMIT_BYTES {
            // Room for the first message, the specification of a job, is not kept for as long as the job runs.
            self.0 = BytesMut::from(&self.0[..]);
        }
        message
    }

    /// Takes the head off the next message, if all of it has arrived, and gives its length.
    fn behead(&mut self) -> Result<Option<usize>, Error> {
        let Some([compressed, length @ ..]) = self.0.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        if *compressed != 0 {
            return Err(UNDECODABLE);
        }
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_SPEC_BYTES {
            return Err(Error::Protocol("a message is larger than 2 MiB"));
        }
        let whole = HEAD_BYTES + length;
        if self.0.len() < whole {
            self.0.reserve(whole - self.0.len());
            return Ok(None);
        }
        self.0.advance(HEAD_BYTES);
        Ok(Some(length))
    }

    /// Nothing more arrives.
    ///
    /// # Errors
    /// It ends within a message.
    pub fn end(&self) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(UNDECODABLE) }
    }
}

/// Messages on their way out.
pub struct Messages(BytesMut);

impl Messages {
    fn new() -> Self {
        Self(BytesMut::with_capacity(BUFFER_BYTES))
    }

    /// Adds one.
    pub fn write(&mut self, message: &impl Message) {
        let head = self.0.len();
        self.0.put_bytes(0, HEAD_BYTES);
        // It fails where there is no room, and here room is made.
        let _ = message.encode(&mut self.0);
        // What an agent says is far from 4 GiB.
        let length = (self.0.len() - head - HEAD_BYTES) as u32;
        self.0[head + 1..head + HEAD_BYTES].copy_from_slice(&length.to_be_bytes());
    }
}

/// What a call is answered with beyond one message, made as the peer has room for it.
pub trait Replies: Send {
    /// Writes the next message; nothing after the last.
    ///
    /// # Errors
    /// How the call went, if it went wrong: nothing follows.
    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        messages: &mut Messages,
    ) -> Poll<Option<Result<(), Status>>>;
}

/// What a call is answered with.
pub struct Answer {
    messages: Messages,
    /// What comes behind them.
    more: Option<Box<dyn Replies>>,
    /// How it went, when that is known.
    end: Result<(), Status>,
}

impl Answer {
    /// One message.
    pub fn one(message: &impl Message) -> Self {
        let mut messages = Messages::new();
        messages.write(message);
        Self { messages, more: None, end: Ok(()) }
    }

    /// As many as there will be.
    pub fn many(replies: impl Replies + 'static) -> Self {
        Self { messages: Messages::new(), more: Some(Box::new(replies)), end: Ok(()) }
    }
}

impl Body for Answer {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Piece> {
        while let Some(more) = &mut self.more
            && self.messages.0.len() < BATCH_BYTES
        {
            match more.poll_write(context, &mut self.messages) {
                Poll::Ready(Some(Ok(()))) => {}
                Poll::Ready(Some(Err(status))) => {
                    self.end = Err(status);
                    self.more = None;
                }
                Poll::Ready(None) => self.more = None,
                Poll::Pending if self.messages.0.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(if self.messages.0.is_empty() {
            Piece::End(trailers(&self.end))
        } else {
            Piece::Data(self.messages.0.split().freeze())
        })
    }
}

/// What is said to whoever called.
pub fn response(answer: Result<Answer, Status>) -> Response<Option<Answer>> {
    let mut response = Response::new(None);
    match answer {
        Ok(answer) => *response.body_mut() = Some(answer),
        Err(status) => *response.headers_mut() = trailers(&Err(status)),
    }
    response.headers_mut().insert(CONTENT_TYPE, CONTENT);
    response
}

/// How a call went, if it went wrong.
#[derive(Debug)]
pub struct Status {
    /// What kind of failure it is.
    pub code: Code,
    /// Why, for people.
    pub message: String,
    /// Why, for a controller.
    pub details: Vec<u8>,
}

/// The kinds of failures of gRPC (`doc/statuscodes.md`) that an agent knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Code {
    Cancelled = 1,
    InvalidArgument = 3,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
}

fn trailers(end: &Result<(), Status>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let mut add = |name, text: String| {
        // All of it is printable ASCII.
        if let Ok(value) = HeaderValue::try_from(text)
            && !value.is_empty()
        {
            trailers.insert(name, value);
        }
    };
    match end {
        Ok(()) => add(STATUS, "0".to_owned()),
        Err(Status { code, message, details }) => {
            add(STATUS, (*code as u8).to_string());
            add(MESSAGE, percent_encoded(message));
            add(DETAILS, base64(details));
        }
    }
    trailers
}

/// Text as gRPC has it in a header: as `%` and two digits what is not printable ASCII, and `%`.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte.into()),
            // Writing to a string does not fail.
            _ => _ = write!(encoded, "%{byte:02X}"),
        }
    }
    encoded
}

/// Bytes as gRPC has them in a header: in Base64 (RFC 4648, section 4), and without padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        // One byte takes two digits, two take three, three take four.
        for digit in 0..=group.len() {
            encoded.push(DIGITS[(bits >> (18 - 6 * digit)) as usize % DIGITS.len()].into());
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::VecDeque;

    use hop_proto::v1::{KillRequest, Stdin};

    use super::*;

    fn kill(job: &str) -> KillRequest {
        KillRequest { job_id: job.into(), signal: "TERM".into() }
    }

    fn framed(messages: &[KillRequest]) -> BytesMut {
        let mut framed = Messages::new();
        messages.iter().for_each(|message| framed.write(message));
        framed.0
    }

    #[test]
    fn messages_are_the_same_in_whatever_pieces_they_arrive() {
        let messages = [kill("a"), KillRequest::default(), kill(&"b".repeat(300))];
        let bytes = framed(&messages);
        for size in 1..=bytes.len() {
            let (mut arrived, mut heard) = (Arrived::default(), Vec::new());
            for piece in bytes.chunks(size) {
                arrived.push(piece);
                while let Some(message) = arrived.message::<KillRequest>().unwrap() {
                    heard.push(message);
                }
            }
            assert_eq!(heard, messages, "in pieces of {size}");
            arrived.end().unwrap();
        }
    }

    #[test]
    fn what_is_no_message_is_refused_as_early_as_that_is_known() {
        let too_long = (MAX_SPEC_BYTES as u32 + 1).to_be_bytes();
        let cases: [(&[u8], &str); 3] = [
            (&[&[0][..], &too_long].concat(), "a message is larger than 2 MiB"),
            (&[1, 0, 0, 0, 1], "a message that cannot be decoded"),
            (&[0, 0, 0, 0, 2, 0x0a, 7], "a message that cannot be decoded"),
        ];
        for (bytes, why) in cases {
            let mut arrived = Arrived::default();
            arrived.push(bytes);
            let refused = arrived.message::<KillRequest>().unwrap_err();
            assert!(matches!(refused, Error::Protocol(said) if said == why), "{bytes:?}: {refused}");
        }
        let mut arrived = Arrived::default();
        arrived.push(&framed(&[kill("a")])[..7]);
        assert!(arrived.message::<KillRequest>().unwrap().is_none());
        assert!(arrived.end().is_err(), "it ends within a message");
    }

    #[test]
    fn content_is_handed_on_without_a_copy() {
        let said = Stdin { offset: 0, data: vec![7; 10_000].into(), end: false };
        let mut messages = Messages::new();
        messages.write(&said);
        let mut arrived = Arrived::default();
        arrived.push(&messages.0);
        let within = arrived.0.as_ptr_range();
        let heard: Stdin = arrived.message().unwrap().unwrap();
        assert!(heard == said && within.contains(&heard.data.as_ptr()));
    }

    /// Says each of them when it is asked; then, how the call went, or nothing yet.
    struct Sayings(VecDeque<KillRequest>, Option<Result<(), Code>>);

    impl Replies for Sayings {
        fn poll_write(
            &mut self,
            _: &mut Context<'_>,
            messages: &mut Messages,
        ) -> Poll<Option<Result<(), Status>>> {
            if let Some(message) = self.0.pop_front() {
                messages.write(&message);
                return Poll::Ready(Some(Ok(())));
            }
            let failure = |code| Status { code, message: "5 % of it: größe".into(), details: vec![1, 2] };
            match self.1 {
                None => Poll::Pending,
                Some(Ok(())) => Poll::Ready(None),
                Some(Err(code)) => Poll::Ready(Some(Err(failure(code)))),
            }
        }
    }

    fn next(answer: &mut Answer) -> Poll<Piece> {
        answer.poll_next(&mut Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn what_is_ready_goes_out_together_and_no_more_than_fits() {
        let messages = [kill("a"), kill("b"), kill(&"c".repeat(BATCH_BYTES)), kill("d")];
        let mut answer = Answer::many(Sayings(messages.clone().into(), None));
        for batch in [&messages[..3], &messages[3..]] {
            assert!(matches!(next(&mut answer), Poll::Ready(Piece::Data(data)) if data == framed(batch)));
        }
        assert!(next(&mut answer).is_pending());
    }

    #[test]
    fn how_a_call_went_comes_behind_its_last_message() {
        let messages = [kill("a")];
        for end in [Ok(()), Err(Code::Aborted)] {
            let mut answer = Answer::many(Sayings(messages.clone().into(), Some(end)));
            assert!(matches!(next(&mut answer), Poll::Ready(Piece::Data(data)) if data == framed(&messages)));
            let Poll::Ready(Piece::End(trailers)) = next(&mut answer) else { panic!("no end") };
            let said = |name| trailers.get(name).map(|value| value.to_str().unwrap());
            match end {
                Ok(()) => assert_eq!((said(STATUS), trailers.len()), (Some("0"), 1)),
                Err(_) => assert_eq!(
                    [said(STATUS), said(MESSAGE), said(DETAILS)],
                    [Some("10"), Some("5 %25 of it: gr%C3%B6%C3%9Fe"), Some("AQI")]
                ),
            }
        }
    }

    #[test]
    fn bytes_are_in_base64_without_padding() {
        // RFC 4648, section 10.
        let vectors = ["", "Zg", "Zm8", "Zm9v", "Zm9vYg", "Zm9vYmE", "Zm9vYmFy"];
        for (length, encoded) in vectors.into_iter().enumerate() {
            assert_eq!(base64(&b"foobar"[..length]), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8");
    }
}
