//! HTTP/2 between a connection and the generated gRPC server: hyper's server connection, and its limits.
//!
//! **Invariants:** the agent produces no more of a response than the peer's window and [`MAX_UNSENT_BYTES`] allow; it
//! extends the window of a request as it reads the request; a request stream that breaks off never looks like one that
//! its client has half-closed; and when the peer of a connection is gone, the agent closes the connection, which
//! cancels its calls.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hop_proto::limits::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::body::{Incoming, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::InspectReader;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::codegen::Service;

use crate::system::runtime;
use crate::transport::keepalive::{Activity, SilenceTimer, UnderWay};

/// Time for a client's connection preface, which a controller sends with its first call.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of the headers of a call, as HTTP/2 counts them: a gRPC client sends some 300. Headers that repeat an entry of
/// the compression table take a hundred times as much memory as on the wire.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// Bytes of a response that wait to be sent. A call produces more only when they are sent; the kernel has a send buffer
/// of its own.
const MAX_UNSENT_BYTES: usize = 32 * 1024;

/// Bytes that a peer may send ahead.
///
/// h2 also closes a connection whose unread DATA frames are, all together, by half of [`Windows::connection`] shorter
/// than 256 bytes each. With the agent's 256 KiB, that takes five hundred keystrokes that the user typed while the link
/// stalled.
#[derive(Clone, Copy)]
pub struct Windows {
    /// On one call.
    pub stream: u32,
    /// On all calls of a connection.
    pub connection: u32,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection broke, or its peer violated HTTP/2. The text is h2's.
    #[error("{0}")]
    Http2(String),
    /// The peer did not send its connection preface in time, or does not answer.
    #[error("the peer does not answer")]
    Silent,
}

impl From<hyper::Error> for Error {
    fn from(error: hyper::Error) -> Self {
        if error.is_timeout() {
            return Self::Silent;
        }
        let source = std::error::Error::source(&error);
        Self::Http2(source.map_or_else(|| error.to_string(), ToString::to_string))
    }
}

/// Serves the calls of a connection, at most `calls` at a time, until its peer closes it, or, once `closing` is
/// cancelled, until the calls in progress have finished.
///
/// # Errors
/// The connection ended in any other way.
pub async fn serve<T, S>(
    io: T,
    service: S,
    windows: Windows,
    calls: u32,
    closing: CancellationToken,
) -> Result<(), Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<tonic::body::Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let activity = Activity::default();
    let listening = activity.clone();
    let io = InspectReader::new(io, move |arrived: &[u8]| {
        if !arrived.is_empty() {
            listening.heard(arrived.len());
        }
    });
    let counting = activity.clone();
    let service = service_fn(move |request| {
        let under_way = counting.call();
        let response = service.clone().call(request);
        async move {
            Ok::<_, Infallible>(response.await?.map(|body| ResponseBody { body, _under_way: under_way }))
        }
    });
    let connection = Builder::new(Tasks)
        .timer(SilenceTimer(activity.clone()))
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(calls)
        .initial_stream_window_size(windows.stream)
        .initial_connection_window_size(windows.connection)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buf_size(MAX_UNSENT_BYTES)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let mut preface = pin!(tokio::time::sleep(PREFACE_TIMEOUT));
    let (mut has_preface, mut is_closing) = (false, false);
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => return Ok(ended?),
            () = &mut preface, if !has_preface => {
                has_preface = true;
                if !activity.has_preface() {
                    return Err(Error::Silent);
                }
            }
            () = closing.cancelled(), if !is_closing => {
                is_closing = true;
                connection.as_mut().graceful_shutdown();
            }
            () = activity.lost() => return Err(Error::Silent),
        }
    }
}

/// Runs the tasks that hyper spawns, one for each call.
#[derive(Clone)]
struct Tasks;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        runtime::spawn(future);
    }
}

/// The body of a response. Its call counts as in progress as long as the body lives.
struct ResponseBody {
    body: tonic::body::Body,
    _under_way: UnderWay,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use h2::client::{SendRequest, handshake};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::mpsc;
    use tokio::task::JoinHandle;
    use tokio::time::Instant;
    use tonic::Code;
    use tonic::codegen::BoxFuture;

    use super::*;
    use crate::service::receive_budget::{ConnectionBudget, MessageMeter};
    use crate::service::request_body::RequestBody;

    pub const WINDOWS: Windows = Windows { stream: 128 * 1024, connection: 256 * 1024 };

    /// Bytes of a response that the service produces at a time.
    const PIECE: usize = 10_000;

    /// How a service answers each call.
    #[derive(Clone)]
    pub enum Answer {
        Never,
        /// It sends without end, and counts how often hyper polls its body, and how often hyper drops it.
        Endlessly(Arc<[AtomicUsize; 2]>),
        /// It reports the length of each frame that it reads, and answers when it has read the whole request.
        Reading(mpsc::Sender<usize>),
        /// It reports how the request ended: half-closed, or with an error.
        Ending(mpsc::Sender<Result<(), Code>>),
    }

    impl Service<Request<Incoming>> for Answer {
        type Response = Response<tonic::body::Body>;
        type Error = Infallible;
        type Future = BoxFuture<Self::Response, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Incoming>) -> Self::Future {
            let answer = self.clone();
            Box::pin(async move {
                match answer {
                    Self::Never => std::future::pending().await,
                    Self::Endlessly(counts) => Ok(Response::new(tonic::body::Body::new(Endless(counts)))),
                    Self::Reading(lengths) => {
                        let mut body = request.into_body();
                        while let Some(frame) = next(&mut body).await {
                            lengths.send(frame.unwrap().into_data().unwrap().len()).await.unwrap();
                        }
                        Ok(Response::new(tonic::body::Body::empty()))
                    }
                    Self::Ending(ends) => {
                        let budget = Arc::new(ConnectionBudget::new(Arc::default()));
                        let mut body = RequestBody::new(request.into_body(), MessageMeter::new(budget, 100));
                        // In a task of its own, like a session.
                        tokio::spawn(async move {
                            let end = loop {
                                match next(&mut body).await {
                                    Some(Ok(_)) => {}
                                    Some(Err(status)) => break Err(status.code()),
                                    None => break Ok(()),
                                }
                            };
                            ends.send(end).await.unwrap();
                        });
                        std::future::pending().await
                    }
                }
            })
        }
    }

    async fn next<B: Body + Unpin>(body: &mut B) -> Option<Result<Frame<B::Data>, B::Error>> {
        poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
    }

    struct Endless(Arc<[AtomicUsize; 2]>);

    impl Body for Endless {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            self.0[0].fetch_add(1, Relaxed);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[7; PIECE])))))
        }
    }

    impl Drop for Endless {
        fn drop(&mut self) {
            self.0[1].fetch_add(1, Relaxed);
        }
    }

    type Serving = JoinHandle<Result<(), Error>>;

    async fn connect(
        answer: Answer,
        closing: &CancellationToken,
    ) -> (SendRequest<Bytes>, tokio::task::AbortHandle, Serving) {
        let (ours, theirs) = duplex(1 << 20);
        let serving = tokio::spawn(serve(ours, answer, WINDOWS, 16, closing.clone()));
        let (client, connection) = handshake(theirs).await.unwrap();
        let connection = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        (client.ready().await.unwrap(), connection, serving)
    }

    fn request() -> Request<()> {
        Request::post("https://router/").body(()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn response_production_respects_peer_window() {
        let counts = Arc::<[AtomicUsize; 2]>::default();
        let (mut client, _connection, _serving) =
            connect(Answer::Endlessly(counts.clone()), &CancellationToken::new()).await;
        let (response, _) = client.send_request(request(), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let mut made = Vec::new();
        // RFC 9113, section 6.9.2: the initial window is 65,535 bytes, unless a peer changes it.
        for room in [65_535, 40_000] {
            let mut read = 0;
            while read < room {
                read += poll_fn(|context| body.poll_data(context)).await.unwrap().unwrap().len();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            made.push(counts[0].load(Relaxed));
            body.flow_control().release_capacity(40_000).unwrap();
        }
        assert_eq!(made, [8, 12], "the pieces that fit, and one that waits");
        assert_eq!(counts[1].load(Relaxed), 0);
        drop(body);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(counts[1].load(Relaxed), 1, "nobody wants it any more");
    }

    #[tokio::test(start_paused = true)]
    async fn reading_replenishes_receive_window() {
        let (lengths, mut read) = mpsc::channel(1);
        let (mut client, _connection, _serving) =
            connect(Answer::Reading(lengths), &CancellationToken::new()).await;
        let (response, mut stream) = client.send_request(request(), false).unwrap();
        stream.send_data(vec![7; 1_000_000].into(), true).unwrap();
        let mut all = 0;
        while all < 1_000_000 {
            all += read.recv().await.unwrap();
        }
        assert!(response.await.unwrap().into_body().is_end_stream());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_end_with_their_connection() {
        let counts = Arc::<[AtomicUsize; 2]>::default();
        let (mut client, connection, serving) =
            connect(Answer::Endlessly(counts.clone()), &CancellationToken::new()).await;
        let (response, _) = client.send_request(request(), true).unwrap();
        let _body = response.await.unwrap();
        connection.abort();
        serving.await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(counts[1].load(Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_finishes_calls_and_refuses_new() {
        let closing = CancellationToken::new();
        let (lengths, mut read) = mpsc::channel(100);
        let (mut client, _connection, serving) = connect(Answer::Reading(lengths), &closing).await;
        let (response, mut stream) = client.send_request(request(), false).unwrap();
        stream.send_data("one".into(), false).unwrap();
        assert_eq!(read.recv().await, Some(3));
        closing.cancel();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!serving.is_finished());
        poll_fn(|context| client.poll_ready(context)).await.unwrap_err();
        stream.send_data("more".into(), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        serving.await.unwrap().unwrap();
    }

    /// The connection preface of a controller, with its settings.
    pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    /// The headers of a call: POST, /, https.
    const CALL: &[u8] = b"\x83\x84\x87";

    /// A frame (RFC 9113, section 4.1).
    fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn settings_advertise_limits() {
        let (ours, mut theirs) = duplex(1 << 20);
        let _serving = tokio::spawn(serve(ours, Answer::Never, WINDOWS, 16, CancellationToken::new()));
        theirs.write_all(PREFACE).await.unwrap();
        let setting = |number: u16, value: u32| [&number.to_be_bytes()[..], &value.to_be_bytes()].concat();
        // Number of calls, window of a call, size of frames and of headers; and the rest of the connection's window
        // above 65,535 bytes.
        let settings =
            [setting(3, 16), setting(4, WINDOWS.stream), setting(5, 16 * 1024), setting(6, MAX_HEADER_BYTES)]
                .concat();
        let window = (WINDOWS.connection - 65_535).to_be_bytes();
        for expected in [frame(4, 0, 0, &settings), frame(4, 1, 0, b""), frame(8, 0, 0, &window)] {
            let mut said = vec![0; expected.len()];
            theirs.read_exact(&mut said).await.unwrap();
            assert_eq!(said, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn oversized_headers_close_connection() {
        let (ours, mut theirs) = duplex(1 << 20);
        let serving = tokio::spawn(serve(ours, Answer::Never, WINDOWS, 16, CancellationToken::new()));
        theirs.write_all(PREFACE).await.unwrap();
        // Puts a header without a value into the table, and then refers to it again and again.
        let mut block = [CALL, b"\x40\x01a\0"].concat();
        block.resize(16 * 1024, 0xbe);
        theirs.write_all(&frame(1, 0, 1, &block)).await.unwrap();
        let block = [0xbe; 16 * 1024];
        for end in (0..30).map(|index| if index == 29 { 4 } else { 0 }) {
            // The connection may be closed already.
            let _ = theirs.write_all(&frame(9, end, 1, &block)).await;
        }
        serving.await.unwrap().unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn burst_of_short_pieces_is_read() {
        let (lengths, mut read) = mpsc::channel(1);
        let (ours, mut theirs) = duplex(1 << 20);
        let _serving =
            tokio::spawn(serve(ours, Answer::Reading(lengths), WINDOWS, 16, CancellationToken::new()));
        theirs.write_all(PREFACE).await.unwrap();
        let pieces = (0..500).flat_map(|_| frame(0, 0, 1, b"0123456789"));
        let call: Vec<u8> = frame(1, 4, 1, CALL).into_iter().chain(pieces).collect();
        theirs.write_all(&call).await.unwrap();
        for index in 0..500 {
            assert_eq!(read.recv().await, Some(10), "{index}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unsent_bytes_are_bounded() {
        let counts = Arc::<[AtomicUsize; 2]>::default();
        // Nobody reads from it.
        let (ours, mut theirs) = duplex(1000);
        let _serving = tokio::spawn(serve(
            ours,
            Answer::Endlessly(counts.clone()),
            WINDOWS,
            16,
            CancellationToken::new(),
        ));
        theirs.write_all(PREFACE).await.unwrap();
        // The largest windows that a peer can grant.
        let window = frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        let room = frame(8, 0, 0, &(0x7fff_ffff_u32 - 65_535).to_be_bytes());
        theirs.write_all(&[window, room, frame(1, 5, 1, CALL)].concat()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let made = counts[0].load(Relaxed);
        assert!((2..=MAX_UNSENT_BYTES / PIECE + 3).contains(&made), "{made}");
    }

    /// The bytes of a call that sends one message, and then `rest`.
    fn call_and(rest: &[u8]) -> Vec<u8> {
        [&frame(1, 4, 1, CALL), &frame(0, 0, 1, b"\0\0\0\0\x01x")[..], rest].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn reset_is_not_half_closing() {
        // RST_STREAM with NO_ERROR and with CANCEL; nothing, until the agent drops the connection; and half of a
        // message.
        let broken = Err(Code::Unavailable);
        for (rest, end) in [
            (frame(0, 1, 1, b""), Ok(())),
            (frame(3, 0, 1, &0_u32.to_be_bytes()), broken),
            (frame(3, 0, 1, &8_u32.to_be_bytes()), broken),
            (Vec::new(), broken),
            (frame(0, 1, 1, b"\0\0\0\0\x02x"), Err(Code::InvalidArgument)),
        ] {
            let (ends, mut ended) = mpsc::channel(1);
            let (ours, mut theirs) = duplex(1 << 20);
            let answer = Answer::Ending(ends);
            let _serving = tokio::spawn(serve(ours, answer, WINDOWS, 16, CancellationToken::new()));
            theirs.write_all(&[PREFACE, &call_and(&rest)].concat()).await.unwrap();
            assert_eq!(ended.recv().await, Some(end), "{rest:?}");
        }
        // A connection that breaks.
        let (ends, mut ended) = mpsc::channel(1);
        let (ours, mut theirs) = duplex(1 << 20);
        let _serving = tokio::spawn(serve(ours, Answer::Ending(ends), WINDOWS, 16, CancellationToken::new()));
        theirs.write_all(&[PREFACE, &call_and(b"")].concat()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        drop(theirs);
        assert_eq!(ended.recv().await, Some(broken));
    }

    #[tokio::test(start_paused = true)]
    async fn dead_peer_with_full_buffers_is_dropped() {
        let (ours, mut theirs) = duplex(1000);
        let answer = Answer::Endlessly(Arc::default());
        let serving = tokio::spawn(serve(ours, answer, WINDOWS, 16, CancellationToken::new()));
        theirs.write_all(&[PREFACE, &frame(1, 5, 1, CALL)].concat()).await.unwrap();
        // Nobody reads, so the agent cannot even send a GOAWAY.
        let begin = Instant::now();
        assert!(matches!(serving.await.unwrap(), Err(Error::Silent)));
        assert_eq!(begin.elapsed().as_secs(), 41);
    }

    #[tokio::test(start_paused = true)]
    async fn silent_peer_is_dropped() {
        let begin = Instant::now();
        let (ours, _theirs): (DuplexStream, DuplexStream) = duplex(1000);
        let served = serve(ours, Answer::Never, WINDOWS, 16, CancellationToken::new()).await;
        assert!(matches!(served, Err(Error::Silent)));
        assert_eq!(begin.elapsed(), PREFACE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn incomplete_preface_times_out() {
        let (ours, mut theirs) = duplex(1000);
        let serving = tokio::spawn(serve(ours, Answer::Never, WINDOWS, 16, CancellationToken::new()));
        let begin = Instant::now();
        for byte in &PREFACE[..9] {
            theirs.write_all(&[*byte]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(matches!(serving.await.unwrap(), Err(Error::Silent)));
        assert_eq!(begin.elapsed(), PREFACE_TIMEOUT);
    }
}
