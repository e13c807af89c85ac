//! The program's standard input: from the controller into the program's pipe, as fast as the program reads.
//!
//! **Invariants:** the agent buffers at most [`STDIN_WINDOW_BYTES`] of it, so that a program which does not read costs
//! no further memory, and does not delay a signal.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use hop_proto::limits::STDIN_WINDOW_BYTES;
use rustix::fs::{Mode, OFlags};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use crate::job::error::Error;

/// Standard input that the controller has sent, and the program's pipe has not taken.
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
    /// Offset behind the last byte that the controller sent.
    received: u64,
    /// Offset behind the last byte that the program's pipe has taken.
    written: u64,
    ended: bool,
}

impl Queue {
    /// Appends data that the controller sent. The end of the input may come twice: a controller that reattaches does
    /// not know yet whether the first arrived.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the offset is wrong, or the data is after the end or beyond the window.
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

    /// Ends the input. It may have ended before.
    pub fn end(&self) {
        self.state().ended = true;
        self.0.changed.notify_one();
    }

    /// Offset behind the last byte that the controller sent.
    pub fn received(&self) -> u64 {
        self.state().received
    }

    /// True if the input has ended.
    pub fn has_ended(&self) -> bool {
        self.state().ended
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the program's pipe has taken all bytes before `offset`.
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

/// Writes the queue into the program's pipe or terminal, and then `end`, which is empty for a pipe. Calls
/// `acknowledge(offset, closed)` after each write. When all processes that read from it have `ended`, returns the
/// number of bytes that they have read, if it is a pipe.
///
/// # Errors
/// The pipe cannot be registered with the runtime. A failed write is no error: it means that the program has closed the pipe.
pub async fn feed(
    pipe: OwnedFd,
    queue: Queue,
    end: &[u8],
    acknowledge: impl FnMut(u64, bool),
    ended: impl Future<Output = ()>,
) -> io::Result<Option<u64>> {
    rustix::io::ioctl_fionbio(&pipe, true)?;
    // Unchecked, because it may be a terminal.
    let mut pipe = pipe::Sender::from_owned_fd_unchecked(pipe)?;
    let mut written = 0;
    let mut ended = pin!(ended);
    let is_whole = tokio::select! {
        is_whole = write(&mut pipe, &queue, end, &mut written, acknowledge) => Some(is_whole),
        () = &mut ended => None,
    };
    let unread = match is_whole {
        Some(true) => {
            // A reader of its own keeps the pipe's content when the program is gone. The program reads the end of file
            // all the same, because that depends on writers only.
            let again = reader_of(&pipe);
            drop(pipe);
            ended.await;
            again.and_then(rustix::io::ioctl_fionread)
        }
        Some(false) => {
            ended.await;
            rustix::io::ioctl_fionread(&pipe)
        }
        None => rustix::io::ioctl_fionread(&pipe),
    };
    // For a terminal, FIONREAD counts what the program wrote.
    Ok(unread.ok().filter(|_| end.is_empty()).map(|unread| written.saturating_sub(unread)))
}

/// Writes the queue to its end and returns true; or false when the program reads no more and the input has ended.
async fn write(
    pipe: &mut pipe::Sender,
    queue: &Queue,
    end: &[u8],
    written: &mut u64,
    mut acknowledge: impl FnMut(u64, bool),
) -> bool {
    loop {
        let (mut data, last) = queue.next().await;
        while !data.is_empty() {
            match pipe.write_buf(&mut data).await {
                Ok(count) => {
                    *written += count as u64;
                    queue.written(*written);
                    acknowledge(*written, false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() != io::ErrorKind::BrokenPipe {
                        tracing::warn!(%error, "the input of the program takes nothing more");
                    }
                    acknowledge(*written, true);
                    // Input that is still under way is accepted and dropped.
                    queue.written(u64::MAX / 2);
                    while !queue.next().await.1 {}
                    return false;
                }
            }
        }
        if last {
            // A terminal that cannot be written to has hung up already.
            let _ = pipe.write_all(end).await;
            return true;
        }
    }
}

/// Opens the reading end of a pipe.
fn reader_of(pipe: &pipe::Sender) -> rustix::io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;

    use super::*;

    /// Feeds `content` to a program that reads so many bytes and exits. Returns how many bytes `feed` counts as read.
    async fn fed(content: &[u8], end: bool, reads: usize) -> Option<u64> {
        let (mut reader, writer) = io::pipe().unwrap();
        let queue = Queue::default();
        queue.push(0, content, end).unwrap();
        let (all_ended, ended) = tokio::sync::oneshot::channel::<()>();
        let (taken, mut is_taken) = tokio::sync::watch::channel(0);
        let length = content.len() as u64;
        let acknowledge = move |offset, _| _ = taken.send(offset);
        let feed = tokio::spawn(feed(writer.into(), queue, b"", acknowledge, async { _ = ended.await }));
        is_taken.wait_for(|taken| *taken == length).await.unwrap();
        let mut read = vec![0; reads];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(read, content[..reads]);
        if end && reads == content.len() {
            let more = tokio::task::spawn_blocking(move || reader.read(&mut [0]).unwrap());
            assert_eq!(more.await.unwrap(), 0, "it ends");
        }
        drop(all_ended);
        feed.await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn pushed_input_reaches_the_program() {
        assert_eq!(fed(b"one two", true, 7).await, Some(7));
    }

    #[tokio::test]
    async fn unread_bytes_are_not_counted_as_read() {
        for end in [true, false] {
            assert_eq!(fed(b"one two", end, 4).await, Some(4), "{end}");
        }
    }

    #[tokio::test]
    async fn closed_standard_input_is_reported_once() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let queue = Queue::default();
        queue.push(0, b"nobody reads this", true).unwrap();
        let (closed, mut is_closed) = tokio::sync::mpsc::unbounded_channel();
        let acknowledge = move |offset, is_closed| closed.send((offset, is_closed)).unwrap();
        let (all_ended, ended) = tokio::sync::oneshot::channel::<()>();
        let feed = tokio::spawn(feed(writer.into(), queue, b"", acknowledge, async { _ = ended.await }));
        assert_eq!(is_closed.recv().await, Some((0, true)));
        drop(all_ended);
        assert_eq!(feed.await.unwrap().unwrap(), Some(0));
        assert_eq!(is_closed.recv().await, None);
    }

    #[test]
    fn end_of_input_may_be_repeated() {
        let queue = Queue::default();
        queue.push(0, b"all", true).unwrap();
        queue.push(3, b"", true).unwrap();
        for (offset, data, end) in [(3, &b"x"[..], true), (3, b"", false), (0, b"", true)] {
            assert!(matches!(queue.push(offset, data, end), Err(Error::Protocol(_))), "{offset} {end}");
        }
    }

    #[test]
    fn input_window_and_offsets_are_enforced() {
        let queue = Queue::default();
        queue.push(0, &vec![0; STDIN_WINDOW_BYTES as usize], false).unwrap();
        assert!(matches!(queue.push(u64::from(STDIN_WINDOW_BYTES), b"x", false), Err(Error::Protocol(_))));
        let queue = Queue::default();
        assert!(matches!(queue.push(1, b"x", false), Err(Error::Protocol(_))));
        queue.push(0, b"", true).unwrap();
        assert!(matches!(queue.push(0, b"x", false), Err(Error::Protocol(_))));
    }
}
