//! The program's outputs on their way to ours: in the order of their arrival, each byte once.
//!
//! What must stay true: what is acknowledged was written; an output that nobody reads is reported as closed, so that the
//! program gets its SIGPIPE as in a local pipeline.

use std::io;

use bytes::Bytes;
use hop_proto::limits::OUTPUT_WINDOW_BYTES;
use hop_proto::v1::{OutputAck, RunRequest, Stream, run_request};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Bytes after which an acknowledgement is worth its message: a quarter of the window, so that the agent never waits for
/// one that is under way.
const ACKNOWLEDGE_EVERY: u64 = OUTPUT_WINDOW_BYTES as u64 / 4;

/// A piece of output that has its place.
#[derive(Debug)]
pub struct Piece {
    /// Which output.
    pub stream: Stream,
    /// What it is.
    pub data: Bytes,
}

/// Writes what comes until the sender is gone.
///
/// # Errors
/// An output cannot be written, for another reason than that its reader is gone.
pub async fn write(
    mut pieces: mpsc::UnboundedReceiver<Piece>,
    requests: mpsc::Sender<RunRequest>,
    mut stdout: impl AsyncWrite + Unpin + Send,
    mut stderr: impl AsyncWrite + Unpin + Send,
) -> Result<(), (Stream, io::Error)> {
    let mut out = Account::default();
    let mut err = Account::default();
    while let Some(Piece { stream, data }) = pieces.recv().await {
        let (account, writer): (_, &mut (dyn AsyncWrite + Unpin + Send)) = match stream {
            Stream::Stderr => (&mut err, &mut stderr),
            _ => (&mut out, &mut stdout),
        };
        if account.closed {
            continue;
        }
        let written = async {
            writer.write_all(&data).await?;
            // tokio buffers, and a program's prompt has no line end.
            writer.flush().await
        };
        match written.await {
            Ok(()) => account.written += data.len() as u64,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => account.closed = true,
            Err(error) => return Err((stream, error)),
        }
        let due = account.written - account.acknowledged >= ACKNOWLEDGE_EVERY;
        if due || account.closed {
            account.acknowledged = account.written;
            let ack = OutputAck { stream: stream.into(), offset: account.written, closed: account.closed };
            let message = Some(run_request::Message::OutputAck(ack));
            // Fails when the job is over, which others notice.
            let _ = requests.send(RunRequest { message }).await;
        }
    }
    Ok(())
}

#[derive(Default)]
struct Account {
    written: u64,
    acknowledged: u64,
    closed: bool,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn acks(mut requests: mpsc::Receiver<RunRequest>) -> Vec<OutputAck> {
        let mut acks = Vec::new();
        while let Some(request) = requests.recv().await {
            match request.message {
                Some(run_request::Message::OutputAck(ack)) => acks.push(ack),
                other => panic!("{other:?}"),
            }
        }
        acks
    }

    #[tokio::test]
    async fn each_output_goes_to_its_own_place_and_is_acknowledged() {
        let (send, pieces) = mpsc::unbounded_channel();
        let (requests, answers) = mpsc::channel(16);
        let big = Bytes::from(vec![b'x'; ACKNOWLEDGE_EVERY as usize]);
        send.send(Piece { stream: Stream::Stdout, data: big }).unwrap();
        send.send(Piece { stream: Stream::Stderr, data: Bytes::from_static(b"oops") }).unwrap();
        drop(send);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        write(pieces, requests, &mut out, &mut err).await.unwrap();
        assert_eq!((out.len() as u64, err.as_slice()), (ACKNOWLEDGE_EVERY, &b"oops"[..]));
        let expected = OutputAck { stream: Stream::Stdout.into(), offset: ACKNOWLEDGE_EVERY, closed: false };
        assert_eq!(acks(answers).await, [expected]);
    }

    #[tokio::test]
    async fn an_output_without_reader_is_reported_once() {
        let (send, pieces) = mpsc::unbounded_channel();
        let (requests, answers) = mpsc::channel(16);
        for _ in 0..3 {
            send.send(Piece { stream: Stream::Stdout, data: Bytes::from_static(b"line\n") }).unwrap();
        }
        drop(send);
        let (nobody, writer) = tokio::io::duplex(64);
        drop(nobody);
        write(pieces, requests, writer, Vec::new()).await.unwrap();
        assert_eq!(
            acks(answers).await,
            [OutputAck { stream: Stream::Stdout.into(), offset: 0, closed: true }]
        );
    }
}
