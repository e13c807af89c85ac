//! The program's outputs on their way to ours: in the order of their arrival, each byte once.
//!
//! **Invariants:** what is acknowledged was written; an output that nobody reads is reported as closed, so that the
//! program gets its SIGPIPE as in a local pipeline; and a connection that breaks changes neither what was received
//! nor what is written.

use std::io::{self, Write};

use bytes::Bytes;
use hop_proto::limits::{OUTPUT_CHUNK_BYTES, OUTPUT_WINDOW_BYTES};
use hop_proto::v1::{Output, OutputAck, Stream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::Error;

/// True if our two outputs are one file or pipe, so that their order matters.
pub fn are_one() -> bool {
    let [stdout, stderr] = [rustix::fs::fstat(std::io::stdout()), rustix::fs::fstat(std::io::stderr())];
    matches!((stdout, stderr), (Ok(stdout), Ok(stderr)) if (stdout.st_dev, stdout.st_ino) == (stderr.st_dev, stderr.st_ino))
}

/// Bytes after which an acknowledgement is worth its message: a quarter of the window, so that the agent never waits for
/// one that is under way.
const ACKNOWLEDGE_EVERY: u64 = OUTPUT_WINDOW_BYTES as u64 / 4;

/// The outputs, in the order in which everything here counts them.
const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// The state of an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Account {
    /// Bytes that were written since this `hop` has the job.
    written: u64,
    /// Nobody reads it any more.
    closed: bool,
}

/// The accounts of both outputs.
type Accounts = [Account; 2];

/// An output that cannot be written, for another reason than that its reader is gone.
type Failure = (Stream, io::Error);

/// A piece of output that has its place.
#[derive(Debug)]
struct Piece {
    /// Index of the output.
    stream: usize,
    data: Bytes,
}

/// Both outputs of a job.
pub struct Outputs {
    /// Bytes of each that the agent may send beyond the last acknowledgement.
    window: u64,
    /// The highest acknowledged offset of each.
    acknowledged: [u64; 2],
    /// Where this `hop` began to receive.
    start: [u64; 2],
    received: [u64; 2],
    pieces: mpsc::UnboundedSender<Piece>,
    writer: Option<JoinHandle<Result<(), Failure>>>,
    accounts: watch::Receiver<Accounts>,
    /// The acknowledgements on this connection; `None` after a connection broke, which may have lost them.
    told: [Option<Account>; 2],
}

impl Outputs {
    /// Starts to write to these two, in a thread that may wait for them; of each, at most `window` bytes may be on their way.
    pub fn open(
        window: u32,
        stdout: impl Write + Send + 'static,
        stderr: impl Write + Send + 'static,
    ) -> Self {
        // Not bounded here but by the window, to which `take` holds the agent.
        let (pieces, queue) = mpsc::unbounded_channel();
        let (publish, accounts) = watch::channel(Accounts::default());
        let writer = tokio::task::spawn_blocking(move || write(queue, publish, stdout, stderr));
        Self {
            window: window.into(),
            acknowledged: [0; 2],
            start: [0; 2],
            received: [0; 2],
            pieces,
            writer: Some(writer),
            accounts,
            told: [Some(Account::default()); 2],
        }
    }

    /// The first byte that comes is this one. Before the first one came.
    pub fn start_at(&mut self, offsets: [u64; 2]) {
        (self.start, self.received, self.acknowledged) = (offsets, offsets, offsets);
    }

    /// Continues at these offsets after a break. Returns how many bytes are missing before them; `None` if they are before
    /// bytes that came already.
    pub fn skip_to(&mut self, offsets: [u64; 2]) -> Option<u64> {
        let mut missing = 0;
        for (stream, offset) in offsets.into_iter().enumerate() {
            // No stream is longer, so no sum overflows.
            let offset = Some(offset).filter(|offset| *offset <= i64::MAX as u64)?;
            let gap = offset.checked_sub(self.received[stream])?;
            missing += gap;
            self.start[stream] += gap;
            self.received[stream] += gap;
            self.acknowledged[stream] += gap;
        }
        Some(missing)
    }

    /// Bytes that the program wrote and that are here: the offsets at which the next ones belong.
    pub fn received(&self) -> [u64; 2] {
        self.received
    }

    /// Takes what the agent sent.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn take(&mut self, output: Output) -> Result<(), &'static str> {
        let sent = output.stream();
        let stream =
            STREAMS.iter().position(|stream| *stream == sent).ok_or("an output that there is not")?;
        if output.offset != self.received[stream] {
            return Err("output does not begin where it ended");
        }
        let length = output.data.len() as u64;
        let ahead = self.received[stream] - self.acknowledged[stream] + length;
        if output.data.len() > OUTPUT_CHUNK_BYTES || ahead > self.window {
            return Err("more output at a time than it may send");
        }
        if output.data.is_empty() {
            return Ok(());
        }
        self.received[stream] += length;
        // Fails when the writer has failed, which `changed` reports.
        let _ = self.pieces.send(Piece { stream, data: output.data });
        Ok(())
    }

    /// The next acknowledgement that is worth a message. It counts as sent.
    pub fn next_ack(&mut self) -> Option<OutputAck> {
        let stream = self.due()?;
        let account = self.accounts.borrow()[stream];
        self.told[stream] = Some(account);
        let offset = self.start[stream] + account.written;
        self.acknowledged[stream] = offset;
        Some(OutputAck { stream: STREAMS[stream].into(), offset, closed: account.closed })
    }

    /// Whether there is a next acknowledgement.
    pub fn ack_is_due(&self) -> bool {
        self.due().is_some()
    }

    fn due(&self) -> Option<usize> {
        let accounts = self.accounts.borrow();
        (0..STREAMS.len()).find(|stream| {
            let now = accounts[*stream];
            match self.told[*stream] {
                Some(told) => now.written - told.written >= ACKNOWLEDGE_EVERY || now.closed && !told.closed,
                None => now != Account::default(),
            }
        })
    }

    /// Sends the acknowledgements again, because earlier ones may be lost.
    pub fn resend_acks(&mut self) {
        self.told = [None; 2];
    }

    /// Waits until an acknowledgement may have become due. Cancel safe.
    ///
    /// # Errors
    /// An output cannot be written. Only one call reports that.
    pub async fn changed(&mut self) -> Result<(), Error> {
        // Published until the writer ends.
        if self.accounts.changed().await.is_ok() {
            return Ok(());
        }
        match &mut self.writer {
            Some(writer) => {
                let result = writer.await;
                self.writer = None;
                check(result)
            }
            None => std::future::pending().await,
        }
    }

    /// Waits until everything that was received is written.
    ///
    /// # Errors
    /// An output cannot be written, and no earlier call has reported that.
    pub async fn finish(self) -> Result<(), Error> {
        drop(self.pieces);
        match self.writer {
            Some(writer) => check(writer.await),
            None => Ok(()),
        }
    }
}

fn check(result: Result<Result<(), Failure>, tokio::task::JoinError>) -> Result<(), Error> {
    match result {
        Ok(Err((stream, source))) => {
            let path = if stream == Stream::Stderr { "standard error" } else { "standard output" };
            Err(Error::io("write", path.as_ref())(source))
        }
        Ok(Ok(())) | Err(_) => Ok(()),
    }
}

/// Writes everything until the sender is dropped, and publishes the state of the output.
fn write(
    mut pieces: mpsc::UnboundedReceiver<Piece>,
    accounts: watch::Sender<Accounts>,
    mut stdout: impl Write,
    mut stderr: impl Write,
) -> Result<(), Failure> {
    while let Some(Piece { stream, data }) = pieces.blocking_recv() {
        let writer: &mut dyn Write =
            if STREAMS[stream] == Stream::Stderr { &mut stderr } else { &mut stdout };
        if accounts.borrow()[stream].closed {
            continue;
        }
        match writer.write_all(&data) {
            Ok(()) => accounts.send_modify(|accounts| accounts[stream].written += data.len() as u64),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                accounts.send_modify(|accounts| accounts[stream].closed = true);
            }
            Err(error) => return Err((STREAMS[stream], error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LINE: &[u8] = b"line\n";

    fn output(stream: Stream, offset: u64, data: &'static [u8]) -> Output {
        Output { stream: stream.into(), offset, data: Bytes::from_static(data), uncompressed_size: 0 }
    }

    /// The piece of standard output after so many whole ones.
    fn chunk(number: usize, data: &[u8]) -> Output {
        let offset = (number * OUTPUT_CHUNK_BYTES) as u64;
        let data = Bytes::copy_from_slice(data);
        Output { stream: Stream::Stdout.into(), offset, data, uncompressed_size: 0 }
    }

    fn ack(stream: Stream, offset: u64, closed: bool) -> OutputAck {
        OutputAck { stream: stream.into(), offset, closed }
    }

    /// Outputs of which the writer has had its turn.
    async fn settled(outputs: &mut Outputs, written: [u64; 2]) {
        while outputs.accounts.borrow().map(|account| account.written) != written {
            outputs.changed().await.unwrap();
        }
    }

    #[test]
    fn outputs_go_to_their_own_streams() {
        let (send, pieces) = mpsc::unbounded_channel();
        let (publish, accounts) = watch::channel(Accounts::default());
        send.send(Piece { stream: 0, data: Bytes::from_static(b"result") }).unwrap();
        send.send(Piece { stream: 1, data: Bytes::from_static(b"oops") }).unwrap();
        drop(send);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        write(pieces, publish, &mut out, &mut err).unwrap();
        assert_eq!((&out[..], &err[..]), (&b"result"[..], &b"oops"[..]));
        assert_eq!(accounts.borrow().map(|account| account.written), [6, 4]);
    }

    #[tokio::test]
    async fn ack_after_quarter_window() {
        let mut outputs = Outputs::open(OUTPUT_WINDOW_BYTES, io::sink(), io::sink());
        let big = vec![b'x'; ACKNOWLEDGE_EVERY as usize - 1];
        for (number, data) in big.chunks(OUTPUT_CHUNK_BYTES).enumerate() {
            outputs.take(chunk(number, data)).unwrap();
        }
        settled(&mut outputs, [ACKNOWLEDGE_EVERY - 1, 0]).await;
        assert!(!outputs.ack_is_due());
        outputs.take(output(Stream::Stdout, ACKNOWLEDGE_EVERY - 1, b"x")).unwrap();
        settled(&mut outputs, [ACKNOWLEDGE_EVERY, 0]).await;
        assert!(outputs.ack_is_due());
        assert_eq!(outputs.next_ack(), Some(ack(Stream::Stdout, ACKNOWLEDGE_EVERY, false)));
        assert_eq!(outputs.next_ack(), None);
    }

    #[tokio::test]
    async fn closed_output_is_reported_once() {
        let (nobody, writer) = io::pipe().unwrap();
        drop(nobody);
        let mut outputs = Outputs::open(OUTPUT_WINDOW_BYTES, writer, io::sink());
        for line in 0..3 {
            outputs.take(output(Stream::Stdout, line * LINE.len() as u64, LINE)).unwrap();
        }
        outputs.changed().await.unwrap();
        assert_eq!(outputs.next_ack(), Some(ack(Stream::Stdout, 0, true)));
        assert_eq!(outputs.next_ack(), None);
    }

    #[tokio::test]
    async fn acks_are_resent_after_break() {
        let mut outputs = Outputs::open(OUTPUT_WINDOW_BYTES, io::sink(), io::sink());
        outputs.start_at([1000, 0]);
        outputs.take(output(Stream::Stdout, 1000, LINE)).unwrap();
        settled(&mut outputs, [5, 0]).await;
        assert_eq!(outputs.next_ack(), None);
        for _ in 0..2 {
            outputs.resend_acks();
            assert_eq!(outputs.next_ack(), Some(ack(Stream::Stdout, 1005, false)));
            assert_eq!(outputs.next_ack(), None);
        }
        assert_eq!(outputs.received(), [1005, 0]);
    }

    #[tokio::test]
    async fn duplicate_and_missing_output_is_refused() {
        let mut outputs = Outputs::open(OUTPUT_WINDOW_BYTES, io::sink(), io::sink());
        outputs.take(output(Stream::Stderr, 0, LINE)).unwrap();
        for offset in [0, 4, 6] {
            assert!(outputs.take(output(Stream::Stderr, offset, LINE)).is_err());
        }
        assert!(outputs.take(output(Stream::Unspecified, 0, LINE)).is_err());
        outputs.take(output(Stream::Stderr, 5, LINE)).unwrap();
        outputs.finish().await.unwrap();
    }

    #[tokio::test]
    async fn output_beyond_the_window_is_refused() {
        // Without an acknowledgement, the agent may send one window.
        let window = 4 * OUTPUT_CHUNK_BYTES as u32;
        let mut outputs = Outputs::open(window, io::sink(), io::sink());
        let data = [b'x'; OUTPUT_CHUNK_BYTES + 1];
        assert!(outputs.take(chunk(0, &data)).is_err(), "longer than a piece may be");
        for number in 0..4 {
            outputs.take(chunk(number, &data[1..])).unwrap();
        }
        assert!(outputs.take(chunk(4, b"x")).is_err());
        // An empty piece is none, however often it comes.
        outputs.take(chunk(4, b"")).unwrap();
        outputs.take(output(Stream::Stderr, 0, LINE)).unwrap();
    }

    #[tokio::test]
    async fn acknowledged_output_reopens_the_window() {
        let window = 4 * OUTPUT_CHUNK_BYTES as u32;
        let mut outputs = Outputs::open(window, io::sink(), io::sink());
        for number in 0..4 {
            outputs.take(chunk(number, &[b'x'; OUTPUT_CHUNK_BYTES])).unwrap();
        }
        settled(&mut outputs, [window.into(), 0]).await;
        assert!(outputs.take(chunk(4, b"x")).is_err(), "it was written, and the agent was not told");
        assert_eq!(outputs.next_ack(), Some(ack(Stream::Stdout, window.into(), false)));
        outputs.take(chunk(4, b"x")).unwrap();
    }
}
