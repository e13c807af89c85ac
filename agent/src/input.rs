//! The program's standard input: from the controller into the pipe, at the program's pace.
//!
//! The controller may be ahead of the program by [`STDIN_WINDOW_BYTES`], which is what the agent holds for it at most. A
//! program that does not read therefore costs no further memory, and does not keep a signal from being heard.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use hop_proto::limits::STDIN_WINDOW_BYTES;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use crate::error::Error;

/// What the controller has sent and the program has not read.
#[derive(Clone, Default)]
pub struct Queue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    waiting: BytesMut,
    /// Offset behind the last byte that came in.
    received: u64,
    /// Offset behind the last byte that the program's pipe has taken.
    written: u64,
    ended: bool,
}

impl Queue {
    /// Adds what the controller sent. One that comes back does not know yet whether the end of the input arrived: to say
    /// it again is no fault.
    ///
    /// # Errors
    /// [`Error::Protocol`] if it came from another offset, after the end, or beyond the window.
    pub fn push(&self, offset: u64, data: &[u8], end: bool) -> Result<(), Error> {
        let mut state = self.state();
        if offset != state.received {
            return Err(Error::Protocol("standard input does not begin where it ended"));
        }
        if state.ended && !(data.is_empty() && end) {
            return Err(Error::Protocol("standard input after its end"));
        }
        if (state.received + data.len() as u64).saturating_sub(state.written) > STDIN_WINDOW_BYTES.into() {
            return Err(Error::Protocol("more standard input than the window allows"));
        }
        state.waiting.extend_from_slice(data);
        state.received += data.len() as u64;
        state.ended = end;
        drop(state);
        self.0.changed.notify_one();
        Ok(())
    }

    /// Offset behind the last byte that came in.
    pub fn received(&self) -> u64 {
        self.state().received
    }

    /// True if nothing more may come in.
    pub fn has_ended(&self) -> bool {
        self.state().ended
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program's pipe has taken everything before `offset`.
    fn written(&self, offset: u64) {
        self.state().written = offset;
    }

    /// The next bytes and whether they are the last.
    async fn next(&self) -> (BytesMut, bool) {
        loop {
            {
                let mut state = self.state();
                if !state.waiting.is_empty() || state.ended {
                    return (state.waiting.split(), state.ended);
                }
            }
            self.0.changed.notified().await;
        }
    }
}

/// Writes the queue into the program's pipe or terminal, and after the last byte of it `end`; `acknowledge(offset, closed)`
/// says how far it came.
///
/// # Errors
/// The pipe cannot be written for another reason than that the program closed it.
pub async fn feed(
    pipe: OwnedFd,
    queue: Queue,
    end: &[u8],
    mut acknowledge: impl FnMut(u64, bool),
) -> io::Result<()> {
    rustix::io::ioctl_fionbio(&pipe, true)?;
    // Unchecked, because it may be a terminal.
    let mut pipe = pipe::Sender::from_owned_fd_unchecked(pipe)?;
    let mut written = 0;
    loop {
        let (mut data, last) = queue.next().await;
        while !data.is_empty() {
            match pipe.write_buf(&mut data).await {
                Ok(count) => {
                    written += count as u64;
                    queue.written(written);
                    acknowledge(written, false);
                }
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    acknowledge(written, true);
                    // What is still on its way is taken and dropped, as a pipe would.
                    queue.written(u64::MAX / 2);
                    while !queue.next().await.1 {}
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        if last {
            return pipe.write_all(end).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;

    use super::*;

    #[tokio::test]
    async fn what_is_pushed_is_read_to_its_end() {
        let (mut reader, writer) = io::pipe().unwrap();
        let queue = Queue::default();
        queue.push(0, b"one ", false).unwrap();
        queue.push(4, b"two", true).unwrap();
        feed(writer.into(), queue, b"", |_, _| {}).await.unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two");
    }

    #[tokio::test]
    async fn a_program_that_closes_its_input_is_reported_once() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let queue = Queue::default();
        queue.push(0, b"nobody reads this", true).unwrap();
        let mut calls = Vec::new();
        let acknowledge = |offset, closed| calls.push((offset, closed));
        let fed = tokio::time::timeout(
            std::time::Duration::from_secs(60),
            feed(writer.into(), queue, b"", acknowledge),
        );
        fed.await.unwrap().unwrap();
        assert_eq!(calls, [(0, true)]);
    }

    #[test]
    fn the_end_may_be_said_again_and_nothing_else_after_it() {
        let queue = Queue::default();
        queue.push(0, b"all", true).unwrap();
        queue.push(3, b"", true).unwrap();
        for (offset, data, end) in [(3, &b"x"[..], true), (3, b"", false), (0, b"", true)] {
            assert!(matches!(queue.push(offset, data, end), Err(Error::Protocol(_))), "{offset} {end}");
        }
    }

    #[test]
    fn the_window_is_a_limit_and_offsets_are_checked() {
        let queue = Queue::default();
        queue.push(0, &vec![0; STDIN_WINDOW_BYTES as usize], false).unwrap();
        assert!(matches!(queue.push(u64::from(STDIN_WINDOW_BYTES), b"x", false), Err(Error::Protocol(_))));
        let queue = Queue::default();
        assert!(matches!(queue.push(1, b"x", false), Err(Error::Protocol(_))));
        queue.push(0, b"", true).unwrap();
        assert!(matches!(queue.push(0, b"x", false), Err(Error::Protocol(_))));
    }
}
