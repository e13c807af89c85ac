//! Reads one output of the program from its pipe, in order, and at most the window ahead of the controller.
//!
//! **Invariants:** every byte that the program wrote is read before the outcome is known, unless the controller has
//! closed the output; and a process that outlives the program with the pipe open delays the outcome by at most
//! [`DRAIN_TIMEOUT`].

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BufMut;
use hop_proto::limits::OUTPUT_CHUNK_BYTES;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::Instant;

use crate::job::session::Session;
use crate::job::session::output_buffer::OutputStream;
use crate::system::time::sleep_until_opt;

/// How long a pipe may stay open and silent after the program has exited: long enough for a process that the kernel is
/// still tearing down, too short for users to notice.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Capacity of the largest pipe (/proc/sys/fs/pipe-max-size, pipe(7)). After the program's exit, another process must
/// have written any bytes beyond that.
const MAX_PIPE_BYTES: u64 = 1024 * 1024;

/// The flow control of an output, by the controller and the job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// The controller has passed on all bytes before this offset.
    pub acknowledged: u64,
    /// The controller wants no more of this output.
    pub closed: bool,
    /// A log drops what nobody reads: there is no need to wait for acknowledgements.
    pub drops: bool,
    /// When the program exited.
    pub ended: Option<Instant>,
}

/// The result of reading an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Bytes read.
    pub bytes: u64,
    /// True if the pipe was still open when the agent closed it.
    pub abandoned: bool,
}

/// Reads `pipe` to its end into the output buffer of `session`, in pieces of at most a chunk. Calls `written` after
/// each.
///
/// # Errors
/// The pipe cannot be read.
pub async fn pump(
    pipe: OwnedFd,
    stream: OutputStream,
    window: u64,
    session: Arc<Session>,
    mut written: impl FnMut(),
) -> io::Result<Summary> {
    rustix::io::ioctl_fionbio(&pipe, true)?;
    // Unchecked, because it may be a terminal.
    let mut pipe = pipe::Receiver::from_owned_fd_unchecked(pipe)?;
    let control = session.output(stream);
    let mut offset = 0;
    let mut after_end = 0;
    loop {
        let now = control.with(|control| *control);
        if now.closed {
            return Ok(Summary { bytes: offset, abandoned: false });
        }
        if after_end > MAX_PIPE_BYTES {
            return Ok(Summary { bytes: offset, abandoned: true });
        }
        // An acknowledgement beyond the end gives no more credit than one of everything.
        let credit = window.saturating_sub(offset - now.acknowledged.min(offset)) as usize;
        let most = if now.drops { OUTPUT_CHUNK_BYTES } else { credit.min(OUTPUT_CHUNK_BYTES) };
        let mut timed_out = pin!(sleep_until_opt(now.ended.map(|ended| ended + DRAIN_TIMEOUT)));
        let next = poll_fn(|context| {
            if most > 0
                && let Poll::Ready(read) = session.poll_read(stream, |buffer| {
                    buffer.reserve(most);
                    pin!(pipe.read_buf(&mut buffer.limit(most))).poll(context)
                })
            {
                return Poll::Ready(Next::Read(read));
            }
            if timed_out.as_mut().poll(context).is_ready() {
                return Poll::Ready(Next::TimedOut);
            }
            control.poll(
                context,
                |control| if *control == now { Poll::Pending } else { Poll::Ready(Next::Changed) },
            )
        });
        let read = match next.await {
            // A terminal ends this way when no process has it open any more (pty(7)).
            Next::Read(Err(error)) if error.raw_os_error() == Some(libc::EIO) => 0,
            Next::Read(Err(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
            Next::Read(read) => read?,
            Next::Changed => continue,
            Next::TimedOut => return Ok(Summary { bytes: offset, abandoned: true }),
        };
        if read == 0 {
            return Ok(Summary { bytes: offset, abandoned: false });
        }
        written();
        offset += read as u64;
        if now.ended.is_some() {
            after_end += read as u64;
        }
    }
}

/// The next event of a pipe.
enum Next {
    /// Bytes were read, or the end of file.
    Read(io::Result<usize>),
    /// The flow control has changed.
    Changed,
    /// The pipe was open and silent for too long after the program's exit.
    TimedOut,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::OutputStream::Stdout;
    use super::*;
    use crate::job::session::{Ownership, Phase};

    fn start(window: u64) -> (io::PipeWriter, Arc<Session>, tokio::task::JoinHandle<Summary>) {
        let (reader, writer) = io::pipe().unwrap();
        let (session, _) = Session::new("7".into(), Ownership::of_test(None));
        let it = session.clone();
        let task = tokio::spawn(async move { pump(reader.into(), Stdout, window, it, || {}).await.unwrap() });
        (writer, session, task)
    }

    fn control(session: &Session, update: impl FnOnce(&mut Control)) {
        session.output(Stdout).update(update);
    }

    #[tokio::test]
    async fn output_is_read_to_end_of_file() {
        let (mut writer, session, task) = start(1 << 20);
        let content: Vec<u8> = (0..40_000u32).map(|i| i as u8).collect();
        writer.write_all(&content).unwrap();
        drop(writer);
        assert_eq!(task.await.unwrap(), Summary { bytes: 40_000, abandoned: false });
        let mut had = [0; 2];
        let pieces = std::iter::from_fn(|| session.next_piece(&mut had));
        assert!(pieces.map(|(_, _, data)| data).collect::<Vec<_>>().concat() == content);
    }

    #[tokio::test]
    async fn output_windows_bound_unacknowledged_reads() {
        let (mut writer, session, task) = start(10);
        writer.write_all(&[7; 25]).unwrap();
        drop(writer);
        for (acknowledged, expected) in [(0, 10), (4, 14), (14, 24)] {
            control(&session, |control| control.acknowledged = acknowledged);
            // The pump is the only other task: when it is idle, control comes back here.
            for _ in 0..10_000 {
                tokio::task::yield_now().await;
            }
            assert_eq!(session.unread(), expected);
        }
        control(&session, |control| control.acknowledged = 24);
        assert_eq!(task.await.unwrap(), Summary { bytes: 25, abandoned: false });
    }

    #[tokio::test]
    async fn unread_log_never_stalls() {
        let (reader, mut writer) = io::pipe().unwrap();
        let ownership = Ownership { log_size: 1000, ..Ownership::of_test(None) };
        let (session, _) = Session::new("7".into(), ownership);
        let attachment = session.connect([None, None], None, false).unwrap();
        let it = session.clone();
        let task = tokio::spawn(async move { pump(reader.into(), Stdout, 10, it, || {}).await.unwrap() });
        writer.write_all(&[7; 25]).unwrap();
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(session.unread(), 10, "an attached controller is waited for");
        assert_eq!(session.waits_for(), None, "it does not run");
        session.set_phase(Phase::Running);
        drop(attachment);
        writer.write_all(&[7; 5000]).unwrap();
        drop(writer);
        assert_eq!(task.await.unwrap(), Summary { bytes: 5025, abandoned: false });
        assert!((1000..=1250).contains(&session.unread()), "{}", session.unread());
        assert_eq!(session.dropped(), Some(5025 - session.unread()));
    }

    #[tokio::test]
    async fn unwanted_outputs_are_closed() {
        let (mut writer, session, task) = start(10);
        control(&session, |control| control.closed = true);
        task.await.unwrap();
        assert_eq!(writer.write_all(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test(start_paused = true)]
    async fn pipes_that_outlive_programs_are_abandoned() {
        let (mut writer, session, task) = start(1 << 20);
        writer.write_all(b"last words").unwrap();
        control(&session, |control| control.ended = Some(Instant::now()));
        assert_eq!(task.await.unwrap(), Summary { bytes: 10, abandoned: true });
    }
}
