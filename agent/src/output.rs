//! One output of the program: out of its pipe, in order, and never more than the window ahead of the controller.
//!
//! What must stay true: a byte that the program wrote before it ended is read before the outcome is known, or the
//! controller said that nobody wants it. A process that outlives the program with the pipe in its hand delays the outcome by at most
//! [`AFTERLIFE`].

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::BytesMut;
use hop_proto::limits::OUTPUT_CHUNK_BYTES;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long a pipe may stay open and silent after the program has ended: long enough for a process that the kernel is
/// still tearing down, too short to be felt.
pub const AFTERLIFE: Duration = Duration::from_secs(1);

/// Most bytes that a pipe can hold (/proc/sys/fs/pipe-max-size, pipe(7)). What comes after the program's end beyond
/// this was written by another process.
const MAX_PIPE_BYTES: u64 = 1024 * 1024;

/// How the controller and the job steer an output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Control {
    /// The controller has passed on all bytes before this offset.
    pub acknowledged: u64,
    /// Nobody reads this output any more.
    pub closed: bool,
    /// When the program ended.
    pub ended: Option<Instant>,
}

/// What became of an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Bytes read.
    pub bytes: u64,
    /// The pipe was still open when it was given up.
    pub abandoned: bool,
}

/// Gives what comes out of `pipe` to `take`, in pieces of at most a chunk, until its end.
///
/// # Errors
/// The pipe cannot be read.
pub async fn pump(
    pipe: OwnedFd,
    window: u64,
    mut control: watch::Receiver<Control>,
    mut take: impl FnMut(&[u8]),
) -> io::Result<Summary> {
    rustix::io::ioctl_fionbio(&pipe, true)?;
    // Unchecked, because it may be a terminal.
    let mut pipe = pipe::Receiver::from_owned_fd_unchecked(pipe)?;
    let mut buffer = BytesMut::new();
    let mut offset = 0;
    let mut after_end = 0;
    loop {
        let now = *control.borrow_and_update();
        if now.closed {
            return Ok(Summary { bytes: offset, abandoned: false });
        }
        // An acknowledgement of what was never sent gives no more than one of all that was.
        let credit = window.saturating_sub(offset - now.acknowledged.min(offset)) as usize;
        if credit == 0 {
            if control.changed().await.is_err() {
                return Ok(Summary { bytes: offset, abandoned: true });
            }
            continue;
        }
        if after_end > MAX_PIPE_BYTES {
            return Ok(Summary { bytes: offset, abandoned: true });
        }
        buffer.clear();
        buffer.reserve(OUTPUT_CHUNK_BYTES);
        let mut limited = bytes::BufMut::limit(&mut buffer, credit.min(OUTPUT_CHUNK_BYTES));
        let read = tokio::select! {
            biased;
            read = pipe.read_buf(&mut limited) => match read {
                // So ends a terminal that no process has open any more (pty(7)).
                Err(error) if error.raw_os_error() == Some(libc::EIO) => 0,
                read => read?,
            },
            changed = control.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return Ok(Summary { bytes: offset, abandoned: true }),
            },
            () = sleep_until(now.ended.unwrap_or_else(Instant::now) + AFTERLIFE), if now.ended.is_some() => {
                return Ok(Summary { bytes: offset, abandoned: true });
            }
        };
        if read == 0 {
            return Ok(Summary { bytes: offset, abandoned: false });
        }
        take(&buffer);
        offset += read as u64;
        if now.ended.is_some() {
            after_end += read as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    type Read = Arc<Mutex<Vec<Vec<u8>>>>;

    fn start(
        window: u64,
    ) -> (io::PipeWriter, watch::Sender<Control>, Read, tokio::task::JoinHandle<Summary>) {
        let (reader, writer) = io::pipe().unwrap();
        let (steer, control) = watch::channel(Control::default());
        let read = Read::default();
        let log = read.clone();
        let task = tokio::spawn(async move {
            let take = |data: &[u8]| log.lock().unwrap().push(data.to_vec());
            pump(reader.into(), window, control, take).await.unwrap()
        });
        (writer, steer, read, task)
    }

    #[tokio::test]
    async fn all_is_read_in_chunks_and_end_of_file_ends_it() {
        let (mut writer, _steer, read, task) = start(1 << 20);
        let content: Vec<u8> = (0..40_000u32).map(|i| i as u8).collect();
        writer.write_all(&content).unwrap();
        drop(writer);
        assert_eq!(task.await.unwrap(), Summary { bytes: 40_000, abandoned: false });
        let read = read.lock().unwrap();
        assert!(read.iter().all(|piece| piece.len() <= OUTPUT_CHUNK_BYTES));
        assert!(read.concat() == content);
    }

    #[tokio::test]
    async fn nothing_is_read_beyond_the_window_until_it_is_acknowledged() {
        let (mut writer, steer, read, task) = start(10);
        writer.write_all(&[7; 25]).unwrap();
        drop(writer);
        let count = || read.lock().unwrap().concat().len();
        for (acknowledged, expected) in [(0, 10), (4, 14), (14, 24)] {
            steer.send_modify(|control| control.acknowledged = acknowledged);
            // The pump is the only other task: when it is idle, control comes back here.
            for _ in 0..10_000 {
                tokio::task::yield_now().await;
            }
            assert_eq!(count(), expected);
        }
        steer.send_modify(|control| control.acknowledged = 24);
        assert_eq!(task.await.unwrap(), Summary { bytes: 25, abandoned: false });
    }

    #[tokio::test]
    async fn an_output_that_nobody_reads_is_closed() {
        let (mut writer, steer, _read, task) = start(10);
        steer.send_modify(|control| control.closed = true);
        task.await.unwrap();
        assert_eq!(writer.write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pipe_that_outlives_the_program_is_given_up_and_reported() {
        let (mut writer, steer, _read, task) = start(1 << 20);
        writer.write_all(b"last words").unwrap();
        steer.send_modify(|control| control.ended = Some(Instant::now()));
        assert_eq!(task.await.unwrap(), Summary { bytes: 10, abandoned: true });
    }
}
