//! The program's standard input: from the controller into the pipe, at the program's pace.
//!
//! The controller may be ahead of the program by [`STDIN_WINDOW_BYTES`], which is what the agent holds for it at most. A
//! program that does not read therefore costs no further memory, and does not keep a signal from being heard.

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

    /// Nothing follows what came in. The controller may say so again.
    pub fn end(&self) {
        self.state().ended = true;
        self.0.changed.notify_one();
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

/// Writes the queue into the program's pipe or terminal, and after the last byte of it `end`, which a pipe does without;
/// `acknowledge(offset, closed)` says how far it came. When all that read from it have `ended`, it gives the number of bytes
/// that they have read, if it is a pipe.
///
/// # Errors
/// The pipe cannot be used. One that cannot be written is one that the program has closed.
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
            // So that it stays when the program is gone. The end of file comes when no writer is left, whoever may still read.
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
    // A terminal counts something else.
    Ok(unread.ok().filter(|_| end.is_empty()).map(|unread| written.saturating_sub(unread)))
}

/// Writes the queue to its end, and gives true; or false when the program reads no more, and nothing more comes.
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
                    // What is still on its way is taken and dropped, as a pipe would.
                    queue.written(u64::MAX / 2);
                    while !queue.next().await.1 {}
                    return false;
                }
            }
        }
        if last {
            // A terminal that cannot be written has ended already.
            let _ = pipe.write_all(end).await;
            return true;
        }
    }
}

/// A descriptor that reads from the pipe that this one writes to.
fn reader_of(pipe: &pipe::Sender) -> rustix::io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;

    use super::*;

    /// Feeds this to a program that reads so much of it and then ends, and gives how much is known to be read.
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
    async fn what_is_pushed_is_read_to_its_end() {
        assert_eq!(fed(b"one two", true, 7).await, Some(7));
    }

    #[tokio::test]
    async fn unread_bytes_are_not_counted_as_read() {
        for end in [true, false] {
            assert_eq!(fed(b"one two", end, 4).await, Some(4), "{end}");
        }
    }

    #[tokio::test]
    async fn a_program_that_closes_its_input_is_reported_once() {
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
