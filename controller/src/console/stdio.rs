//! Standard input, output and error of `hop` itself, read and written in whatever mode they are.
//!
//! An open file description may be shared with the process that started `hop`, and with it the flag `O_NONBLOCK` (open(2)):
//! node, bun and some CI runners set it. The flag is theirs, so it stays as it is, and a stream that answers `EAGAIN` is waited for.
//!
//! **Invariants:** neither `EAGAIN` nor `EINTR` is taken for the end of a stream or for its failure; every other error that a local
//! program would see is returned; the terminal is read only while this process is in its foreground; nothing is read that
//! nobody asked for.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, OFlags, SeekFrom, fcntl_getfl, fstat, seek};
use rustix::io::Errno;
use rustix::process::getpgrp;
use rustix::termios::tcgetpgrp;
use tokio::sync::mpsc;

/// How often a job in the background looks whether its terminal has come to it. The kernel has no event for that.
const FOREGROUND_INTERVAL: Duration = Duration::from_millis(100);

/// An output: a write waits until the stream takes something, also where the stream itself would not wait.
pub struct Output<F>(F);

impl<F: AsFd> Output<F> {
    /// Writes to this descriptor.
    pub fn new(descriptor: F) -> Self {
        Self(descriptor)
    }
}

/// Standard output of this process, unbuffered.
pub fn stdout() -> Output<impl AsFd + Send + 'static> {
    Output(rustix::stdio::stdout())
}

/// Standard error of this process, unbuffered.
pub fn stderr() -> Output<impl AsFd + Send + 'static> {
    Output(rustix::stdio::stderr())
}

impl<F: AsFd> Write for Output<F> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.0, data) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait_for(&self.0, PollFlags::OUT)?,
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// True for a terminal that belongs to another job of the shell: a read would stop this process (SIGTTIN, termios(3)), and
/// `hop run ./server &` is to run. False for a terminal that does not control this process, which every process may read.
pub fn is_in_background(terminal: impl AsFd) -> bool {
    tcgetpgrp(terminal).is_ok_and(|group| group != getpgrp())
}

/// An input, read by a thread: for files, pipes and terminals alike there is no other way to wait for bytes and leave them there.
pub struct Input {
    requests: std::sync::mpsc::Sender<usize>,
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    /// The thread has a request for a piece and has not answered it.
    is_asked: bool,
    is_wanted: Arc<AtomicBool>,
    /// The descriptor, if its position can be set.
    seekable: Option<OwnedFd>,
}

impl Input {
    /// Reads from this descriptor, but only when [`Input::read`] asks for bytes.
    ///
    /// # Errors
    /// It is not open for reading, or there is no thread or descriptor left for it.
    pub fn open(descriptor: OwnedFd) -> io::Result<Self> {
        // poll(2) would wait for ever on a descriptor that read(2) refuses.
        if fcntl_getfl(&descriptor)? & OFlags::ACCMODE == OFlags::WRONLY {
            return Err(Errno::BADF.into());
        }
        // A character device may have a position too, but its bytes may still be to come, so it does not count.
        let kind = FileType::from_raw_mode(fstat(&descriptor)?.st_mode);
        let is_seekable = matches!(kind, FileType::RegularFile | FileType::BlockDevice);
        let seekable = if is_seekable { Some(descriptor.try_clone()?) } else { None };
        let (requests, asked) = std::sync::mpsc::channel::<usize>();
        // One request is under way at a time.
        let (answers, pieces) = mpsc::channel(1);
        let is_wanted = Arc::new(AtomicBool::new(true));
        let wanted = is_wanted.clone();
        thread::Builder::new().name("stdin".into()).spawn(move || {
            refuse_instead_of_stopping();
            for most in asked {
                if answers.blocking_send(read(&descriptor, most, &wanted)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { requests, pieces, is_asked: false, is_wanted, seekable })
    }

    /// The next piece; an empty one is the end. It has at most `most` bytes, or as many as an earlier call asked for that was
    /// cancelled. Cancel safe: a piece that was read meanwhile is the next one.
    ///
    /// # Errors
    /// The errors of read(2), as a program that reads the descriptor itself would see them.
    pub async fn read(&mut self, most: usize) -> io::Result<Bytes> {
        if !self.is_asked {
            // Fails only if the thread has ended, and then receiving fails as well.
            let _ = self.requests.send(most);
            self.is_asked = true;
        }
        let piece = self.pieces.recv().await;
        self.is_asked = false;
        piece.unwrap_or_else(|| Err(io::Error::other("the thread that reads has ended")))
    }

    /// Leaves all later bytes to other readers. A pending call of [`Input::read`] may then report an end of file that
    /// is none.
    pub fn leave(&self) {
        self.is_wanted.store(false, Ordering::Relaxed);
    }

    /// Ends reading, and sets the position of a file back by the `unused` bytes that were read last; what was read and not
    /// asked for counts in addition. What comes after these bytes is then read by the process that shares the file.
    pub async fn give_back(mut self, unused: u64) {
        self.leave();
        let Some(file) = self.seekable.take() else { return };
        let pending = match self.is_asked {
            // A file is never waited for.
            true => self.pieces.recv().await.and_then(Result::ok).unwrap_or_default(),
            false => Bytes::new(),
        };
        let back = unused.saturating_add(pending.len() as u64);
        if let Ok(back @ 1..) = i64::try_from(back) {
            // Fails only where the position was changed by another process, and is not ours to set any more.
            let _ = seek(file, SeekFrom::Current(-back));
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Waits for the next bytes and reads them; gives none at the end, and none if they are not wanted any more.
fn read(input: &OwnedFd, most: usize, is_wanted: &AtomicBool) -> io::Result<Bytes> {
    let mut buffer = vec![0; most];
    loop {
        wait_for(input, PollFlags::IN)?;
        if !is_wanted.load(Ordering::Relaxed) {
            return Ok(Bytes::new());
        }
        if is_in_background(input) {
            thread::sleep(FOREGROUND_INTERVAL);
            continue;
        }
        match rustix::io::read(input, &mut buffer) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            // It has gone to the background between the two calls.
            Err(Errno::IO) if is_in_background(input) => {}
            count => {
                buffer.truncate(count?);
                return Ok(buffer.into());
            }
        }
    }
}

/// Waits until there is something to read or room to write, an end, or an error, which the next call returns.
fn wait_for(stream: impl AsFd, events: PollFlags) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(&stream, events)], None) {
            Err(Errno::INTR) => {}
            result => return Ok(result.map(drop)?),
        }
    }
}

/// From now on a read of a terminal by this thread in the background gives EIO, and does not stop the process (`SIGTTIN`,
/// credentials(7)).
fn refuse_instead_of_stopping() {
    // SAFETY: the set is initialized by sigemptyset before it is read, and belongs to this function.
    unsafe {
        let mut signals = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, libc::SIGTTIN);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;

    use rustix::fs::fcntl_setfl;

    use super::*;

    /// As node and bun do for a pipe that they hand on.
    fn set_nonblocking(descriptor: impl AsFd) {
        let flags = fcntl_getfl(&descriptor).unwrap();
        fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK).unwrap();
    }

    #[tokio::test]
    async fn empty_nonblocking_pipe_is_waited_for() {
        let (reader, mut writer) = io::pipe().unwrap();
        set_nonblocking(&reader);
        let mut input = Input::open(reader.into()).unwrap();
        {
            let early = input.read(100);
            tokio::pin!(early);
            assert!(tokio::time::timeout(Duration::from_millis(10), &mut early).await.is_err());
        }
        writer.write_all(b"late").unwrap();
        // The call that was cancelled has read this, or will.
        assert_eq!(input.read(100).await.unwrap(), "late");
        drop(writer);
        assert_eq!(input.read(100).await.unwrap(), "");
    }

    #[test]
    fn full_nonblocking_pipe_gets_every_byte() {
        let (mut reader, writer) = io::pipe().unwrap();
        set_nonblocking(&writer);
        let content: Vec<u8> = (0..1_000_000u32).map(|i| i as u8).collect();
        let expected = content.clone();
        let writing = thread::spawn(move || Output::new(writer).write_all(&content));
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        writing.join().unwrap().unwrap();
        assert!(received == expected);
    }

    #[tokio::test]
    async fn unreadable_input_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let mut input = Input::open(std::fs::File::open(directory.path()).unwrap().into()).unwrap();
        assert_eq!(input.read(1).await.unwrap_err().raw_os_error(), Some(Errno::ISDIR.raw_os_error()));
        let (_reader, writer) = io::pipe().unwrap();
        let refused = Input::open(writer.into()).err().unwrap();
        assert_eq!(refused.raw_os_error(), Some(Errno::BADF.raw_os_error()));
    }

    #[tokio::test]
    async fn unused_file_bytes_are_given_back() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one two three").unwrap();
        for (asks_again, expected) in [(false, " two three"), (true, " two three")] {
            seek(&file, SeekFrom::Start(0)).unwrap();
            let mut input = Input::open(file.try_clone().unwrap().into()).unwrap();
            assert_eq!(input.read(7).await.unwrap(), "one two");
            let mut unused = 4;
            if asks_again {
                // Cancelled before the answer is taken, unless that was quicker.
                let read = tokio::time::timeout(Duration::ZERO, input.read(3)).await;
                unused += read.map_or(0, |piece| piece.unwrap().len() as u64);
            }
            input.give_back(unused).await;
            let mut rest = String::new();
            file.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, expected);
        }
    }
}
