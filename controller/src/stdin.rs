//! Our standard input on its way to the program: read only as fast as the program reads.

use std::io::IsTerminal;

use hop_proto::v1::{RunRequest, Stdin, run_request};
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};

/// Bytes read at a time.
const CHUNK: usize = 16 * 1024;

/// How far the program is, as the agent tells it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credit {
    /// Bytes may be sent up to this offset.
    pub until: u64,
    /// The program does not read any more.
    pub closed: bool,
}

/// False for a terminal that belongs to another job of the shell: to read it would stop `hop` (SIGTTIN, termios(3)), and
/// `hop run ./server &` is to run.
pub fn is_ours() -> bool {
    let stdin = std::io::stdin();
    !stdin.is_terminal()
        || rustix::termios::tcgetpgrp(&stdin).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Sends standard input until its end, or until the program does not want it.
pub async fn forward(
    mut input: impl tokio::io::AsyncRead + Unpin,
    mut credit: watch::Receiver<Credit>,
    requests: mpsc::Sender<RunRequest>,
) {
    let mut offset = 0;
    let mut buffer = vec![0; CHUNK];
    loop {
        let now = *credit.borrow_and_update();
        if now.closed {
            return;
        }
        let room = usize::try_from(now.until.saturating_sub(offset)).unwrap_or(CHUNK).min(CHUNK);
        if room == 0 {
            if credit.changed().await.is_err() {
                return;
            }
            continue;
        }
        let read = tokio::select! {
            read = input.read(&mut buffer[..room]) => read,
            changed = credit.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        // An input that cannot be read (a closed descriptor, a terminal that is gone) has nothing more to say.
        let data = bytes::Bytes::copy_from_slice(&buffer[..read.unwrap_or(0)]);
        let (length, end) = (data.len() as u64, data.is_empty());
        let message = run_request::Message::Stdin(Stdin { offset, data, end });
        if requests.send(RunRequest { message: Some(message) }).await.is_err() || end {
            return;
        }
        offset += length;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn no_byte_is_sent_beyond_the_credit() {
        let (grant, credit) = watch::channel(Credit { until: 5, closed: false });
        let (requests, mut sent) = mpsc::channel(16);
        let task = tokio::spawn(forward(&b"hello world"[..], credit, requests));
        let mut next = async || match sent.recv().await.unwrap().message {
            Some(run_request::Message::Stdin(stdin)) => stdin,
            other => panic!("{other:?}"),
        };
        assert_eq!(next().await.data, "hello");
        grant.send_modify(|credit| credit.until = 100);
        let rest = next().await;
        assert_eq!((rest.offset, &rest.data[..], rest.end), (5, &b" world"[..], false));
        assert_eq!(next().await, Stdin { offset: 11, data: bytes::Bytes::new(), end: true });
        task.await.unwrap();
    }
}
