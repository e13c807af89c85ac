//! HTTP/2 between a connection and what answers its calls: h2, and what passes a call's bytes on.
//!
//! What must stay true: no more of a response is made than its peer and [`MAX_UNSENT_BYTES`] have room for; a request
//! is acknowledged as it is read; and a connection whose peer is gone ends, and its calls with it.
//!
//! A server that serves everybody, such as hyper's, also has dates, upgrades and bodies without an end, and polls a call a second
//! time for whatever it says: 35 kB of the agent, and a fortieth of what a line of output costs it. A call that has begun to answer
//! does not look for the peer's reset while it has nothing to say: [`crate::link`] hears of it where the requests end.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_util::io::InspectReader;

use crate::board::Board;
use crate::keepalive::{Signs, lost};
use crate::task;

/// Time for a peer's first words. A controller says them with its first call.
const PREFACE_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of the headers of a call, as HTTP/2 counts them: a gRPC client has some 300. Repeated from a table they take a hundred
/// times as much memory as on the wire.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// Bytes of a response that wait to be sent: what is made next waits until they are, and the kernel has room of its own.
const MAX_UNSENT_BYTES: usize = 32 * 1024;

/// What pieces of requests that nobody has read yet may fall short of 256 bytes, all together, before their peer is told to
/// calm down: two thousand keys that were typed while the link stood still.
const SHORT_PIECES_BYTES: usize = 512 * 1024;

/// Bytes that a peer may send ahead.
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
    /// The connection broke, or its peer broke a rule of HTTP/2.
    #[error(transparent)]
    Http2(#[from] h2::Error),
    /// There is no sign of life.
    #[error("the peer does not answer")]
    Silent,
}

/// What answers calls.
pub trait Service: Clone + Send + 'static {
    /// What comes behind the head of a response.
    type Body: Body;

    /// The response to a call; if its head is all, without a body.
    fn call(self, request: Request<Incoming>) -> impl Future<Output = Response<Option<Self::Body>>> + Send;
}

/// What comes behind the head of a response, made as the peer has room for it.
pub trait Body: Send {
    /// The next piece. Nothing is asked for after the end.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Piece>;
}

/// A piece of a response.
pub enum Piece {
    /// What it is.
    Data(Bytes),
    /// What is said behind all data.
    End(HeaderMap),
}

/// Serves the calls of a connection until its peer closes it; once `closing` is true, until what is under way is sent. At most `calls`
/// at a time.
///
/// # Errors
/// It ended in another way.
pub async fn serve<T, S>(
    io: T,
    service: S,
    windows: Windows,
    calls: u32,
    closing: Arc<Board<bool>>,
) -> Result<(), Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service,
{
    let signs = Arc::<Signs>::default();
    let listening = signs.clone();
    let io = InspectReader::new(io, move |arrived: &[u8]| {
        if !arrived.is_empty() {
            listening.heard();
        }
    });
    let handshake = Builder::new()
        .max_concurrent_streams(calls)
        .initial_window_size(windows.stream)
        .initial_connection_window_size(windows.connection)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buffer_size(MAX_UNSENT_BYTES)
        .data_frame_budget(SHORT_PIECES_BYTES)
        .handshake(io);
    let handshake = tokio::time::timeout(PREFACE_LIMIT, handshake);
    let mut connection = handshake.await.map_err(|_| Error::Silent)??;
    // It is given to the first who asks for it.
    let pings = connection.ping_pong().ok_or(Error::Silent)?;
    let serving = tokio::spawn(accept(connection, service, signs.clone(), closing.clone()));
    let mut serving = Serving { task: serving, closing };
    // It is a task of its own because it runs with each line of output, and the question whether the peer is there need not.
    tokio::select! {
        biased;
        ended = &mut serving.task => Ok(ended.unwrap_or(Ok(()))?),
        () = lost(pings, &signs) => Err(Error::Silent),
    }
}

/// Takes calls, and carries what they say, until the connection ends.
async fn accept<T, S>(
    mut connection: Connection<T, Bytes>,
    service: S,
    signs: Arc<Signs>,
    closing: Arc<Board<bool>>,
) -> Result<(), h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Service,
{
    let mut is_closing = false;
    loop {
        let next = poll_fn(|context| {
            let look = |closing: &mut bool| if *closing { Poll::Ready(()) } else { Poll::Pending };
            if !is_closing && closing.poll(context, look).is_ready() {
                is_closing = true;
                connection.graceful_shutdown();
            }
            connection.poll_accept(context)
        });
        let Some(call) = next.await else { return Ok(()) };
        let (request, reply) = call?;
        let response = service.clone().call(request.map(Incoming));
        let under_way = signs.call();
        task::spawn(async move {
            // Who does not want it any more hears no more of it.
            let _ = answer(response, reply).await;
            drop(under_way);
        });
    }
}

/// What a peer says in a call.
pub struct Incoming(RecvStream);

impl Incoming {
    /// The next of it; `None` at its end. What would come behind the data, a gRPC client does not send.
    pub fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        self.0.poll_data(context).map_ok(|data| {
            // It may send as much again. It was received, so it can be released.
            let _ = self.0.flow_control().release_capacity(data.len());
            data
        })
    }
}

/// Says what a response says, as the peer has room for it.
async fn answer<R, B>(response: R, mut reply: SendResponse<Bytes>) -> Result<(), h2::Error>
where
    R: Future<Output = Response<Option<B>>>,
    B: Body,
{
    let mut response = pin!(response);
    let response = poll_fn(|context| match response.as_mut().poll(context) {
        Poll::Ready(response) => Poll::Ready(Ok(response)),
        Poll::Pending => reply.poll_reset(context).map(|reason| Err(reason?.into())),
    });
    let response: Result<_, h2::Error> = response.await;
    let (head, body) = response?.into_parts();
    let mut stream = reply.send_response(Response::from_parts(head, ()), body.is_none())?;
    let Some(mut body) = body else { return Ok(()) };
    loop {
        match poll_fn(|context| body.poll_next(context)).await {
            Piece::Data(data) => {
                room(&mut stream).await?;
                stream.send_data(data, false)?;
            }
            Piece::End(trailers) => return stream.send_trailers(trailers),
        }
    }
}

/// Waits until what was sent is on its way, and the peer has room for more.
///
/// # Errors
/// It does not want more.
async fn room(stream: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    // Not for all that there is: a call that holds room in the connection's window may keep it from one that needs it.
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        match poll_fn(|context| stream.poll_capacity(context)).await {
            Some(capacity) => _ = capacity?,
            None => return Err(h2::Reason::CANCEL.into()),
        }
    }
    Ok(())
}

/// The task of a connection, which ends with whoever waits for it.
struct Serving {
    task: JoinHandle<Result<(), h2::Error>>,
    closing: Arc<Board<bool>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
        // It has left a waker there, and with it would stay what is left of the task.
        self.closing.wake();
    }
}

#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use h2::client::{SendRequest, handshake};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;

    pub const WINDOWS: Windows = Windows { stream: 128 * 1024, connection: 256 * 1024 };

    /// What of a response is made at a time.
    const PIECE: usize = 10_000;

    /// What a service does with each call.
    #[derive(Clone)]
    pub enum Answer {
        Never,
        /// It says as much as there is room for, and counts how often it was asked for more, and how often it was given up.
        Endlessly(Arc<[AtomicUsize; 2]>),
        /// It tells how much it has read, and says nothing until that is all.
        Reading(mpsc::Sender<usize>),
    }

    impl Service for Answer {
        type Body = Endless;

        async fn call(self, request: Request<Incoming>) -> Response<Option<Endless>> {
            match self {
                Self::Never => std::future::pending().await,
                Self::Endlessly(counts) => Response::new(Some(Endless(counts))),
                Self::Reading(lengths) => {
                    let mut body = request.into_body();
                    while let Some(data) = poll_fn(|context| body.poll_data(context)).await {
                        lengths.send(data.unwrap().len()).await.unwrap();
                    }
                    Response::new(None)
                }
            }
        }
    }

    pub struct Endless(Arc<[AtomicUsize; 2]>);

    impl Body for Endless {
        fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Piece> {
            self.0[0].fetch_add(1, Relaxed);
            Poll::Ready(Piece::Data(Bytes::from_static(&[7; PIECE])))
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
        closing: &Arc<Board<bool>>,
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
    async fn no_more_of_a_response_is_made_than_its_peer_has_room_for() {
        let counts = Arc::<[AtomicUsize; 2]>::default();
        let (mut client, _connection, _serving) =
            connect(Answer::Endlessly(counts.clone()), &Arc::default()).await;
        let (response, _) = client.send_request(request(), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let mut made = Vec::new();
        // RFC 9113, section 6.9.2: 65,535 bytes, until a peer says otherwise.
        for room in [65_535, 40_000] {
            let mut read = 0;
            while read < room {
                read += poll_fn(|context| body.poll_data(context)).await.unwrap().unwrap().len();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            made.push(counts[0].load(Relaxed));
            body.flow_control().release_capacity(40_000).unwrap();
        }
        assert_eq!(made, [8, 12], "what has room, and one piece that waits");
        assert_eq!(counts[1].load(Relaxed), 0);
        drop(body);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(counts[1].load(Relaxed), 1, "nobody wants it any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_may_send_as_much_again_as_was_read() {
        let (lengths, mut read) = mpsc::channel(1);
        let (mut client, _connection, _serving) = connect(Answer::Reading(lengths), &Arc::default()).await;
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
            connect(Answer::Endlessly(counts.clone()), &Arc::default()).await;
        let (response, _) = client.send_request(request(), true).unwrap();
        let _body = response.await.unwrap();
        connection.abort();
        serving.await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(counts[1].load(Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_closes_sends_what_is_under_way_and_takes_no_more_calls() {
        let closing = Arc::default();
        let (lengths, mut read) = mpsc::channel(100);
        let (mut client, _connection, serving) = connect(Answer::Reading(lengths), &closing).await;
        let (response, mut stream) = client.send_request(request(), false).unwrap();
        stream.send_data("one".into(), false).unwrap();
        assert_eq!(read.recv().await, Some(3));
        closing.change(|closing| *closing = true);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!serving.is_finished());
        poll_fn(|context| client.poll_ready(context)).await.unwrap_err();
        stream.send_data("more".into(), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        serving.await.unwrap().unwrap();
    }

    /// What a controller says first, its settings included.
    pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    /// The headers of a call: POST, /, https.
    const CALL: &[u8] = b"\x83\x84\x87";

    /// A frame (RFC 9113, section 4.1).
    fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_told_what_it_may_send() {
        let (ours, mut theirs) = duplex(1 << 20);
        let _serving = tokio::spawn(serve(ours, Answer::Never, WINDOWS, 16, Arc::default()));
        theirs.write_all(PREFACE).await.unwrap();
        let setting = |number: u16, value: u32| [&number.to_be_bytes()[..], &value.to_be_bytes()].concat();
        // How many calls, the window of one, the headers; and what the connection's window has beyond 65,535 bytes.
        let settings = [setting(3, 16), setting(4, WINDOWS.stream), setting(6, MAX_HEADER_BYTES)].concat();
        let window = (WINDOWS.connection - 65_535).to_be_bytes();
        for expected in [frame(4, 0, 0, &settings), frame(4, 1, 0, b""), frame(8, 0, 0, &window)] {
            let mut said = vec![0; expected.len()];
            theirs.read_exact(&mut said).await.unwrap();
            assert_eq!(said, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn headers_that_take_much_memory_end_the_connection() {
        let (ours, mut theirs) = duplex(1 << 20);
        let serving = tokio::spawn(serve(ours, Answer::Never, WINDOWS, 16, Arc::default()));
        theirs.write_all(PREFACE).await.unwrap();
        // A header without a value is put into the table, and named again and again.
        let mut block = [CALL, b"\x40\x01a\0"].concat();
        block.resize(16 * 1024, 0xbe);
        theirs.write_all(&frame(1, 0, 1, &block)).await.unwrap();
        let block = [0xbe; 16 * 1024];
        for end in (0..30).map(|index| if index == 29 { 4 } else { 0 }) {
            // It may be closed already.
            let _ = theirs.write_all(&frame(9, end, 1, &block)).await;
        }
        serving.await.unwrap().unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn many_short_pieces_at_once_are_read() {
        let (lengths, mut read) = mpsc::channel(1);
        let (ours, mut theirs) = duplex(1 << 20);
        let _serving = tokio::spawn(serve(ours, Answer::Reading(lengths), WINDOWS, 16, Arc::default()));
        theirs.write_all(PREFACE).await.unwrap();
        let pieces = (0..1500).flat_map(|_| frame(0, 0, 1, b"0123456789"));
        let call: Vec<u8> = frame(1, 4, 1, CALL).into_iter().chain(pieces).collect();
        theirs.write_all(&call).await.unwrap();
        for index in 0..1500 {
            assert_eq!(read.recv().await, Some(10), "{index}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_a_little_waits_to_be_sent() {
        let counts = Arc::<[AtomicUsize; 2]>::default();
        // Nobody reads it.
        let (ours, mut theirs) = duplex(1000);
        let _serving =
            tokio::spawn(serve(ours, Answer::Endlessly(counts.clone()), WINDOWS, 16, Arc::default()));
        theirs.write_all(PREFACE).await.unwrap();
        // There is all the room that there can be.
        let window = frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        let room = frame(8, 0, 0, &(0x7fff_ffff_u32 - 65_535).to_be_bytes());
        theirs.write_all(&[window, room, frame(1, 5, 1, CALL)].concat()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let made = counts[0].load(Relaxed);
        assert!((2..=MAX_UNSENT_BYTES / PIECE + 3).contains(&made), "{made}");
    }

    #[tokio::test]
    async fn a_connection_that_has_ended_leaves_nothing_with_those_that_go_on() {
        let closing = Arc::<Board<bool>>::default();
        for _ in 0..10 {
            let (ours, mut theirs) = duplex(4096);
            let serving = tokio::spawn(serve(ours, Answer::Never, WINDOWS, 16, closing.clone()));
            theirs.write_all(PREFACE).await.unwrap();
            tokio::task::yield_now().await;
            drop(theirs);
            // Whether it is an error is not what is asked.
            let _ = serving.await.unwrap();
        }
        assert_eq!(closing.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_at_all_is_given_up() {
        let begin = Instant::now();
        let (ours, _theirs): (DuplexStream, DuplexStream) = duplex(1000);
        let served = serve(ours, Answer::Never, WINDOWS, 16, Arc::default()).await;
        assert!(matches!(served, Err(Error::Silent)));
        assert_eq!(begin.elapsed(), PREFACE_LIMIT);
    }
}
