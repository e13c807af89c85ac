//! Our standard input on its way to the program: hop reads it only as fast as the program does, and keeps each byte
//! until the program has it.
//!
//! **Invariants:** every byte reaches the program once and in order, even if the connection breaks between two of them.
//! hop keeps the bytes that the agent has not acknowledged, at most a window of them; it gives back the bytes of a file
//! that the program leaves unread, so that the next process that shares the file reads them.

use std::io;
use std::os::fd::AsFd;

use bytes::{Buf, Bytes, BytesMut};
use hop_proto::v1::Stdin;

use crate::console::escapes::{Escape, Escapes};
use crate::console::stdio;

/// Bytes read, and sent, at a time.
const CHUNK: usize = 16 * 1024;

/// The data that a `hop` sends to the standard input of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Its own standard input.
    Forwarded,
    /// The end of file, and nothing before it.
    Empty,
    /// Nothing, and not its end: the program's input stays as it is.
    #[default]
    Unattached,
}

/// Standard input of a job.
pub struct Input {
    source: Source,
    unacknowledged: Unacknowledged,
    /// Offset before which the program has taken all bytes, as the agent tells it.
    taken: u64,
    /// Bytes that may be on their way to the program beyond that.
    window: u64,
    /// Offset behind the last byte that was read here.
    read: u64,
    /// Finds the user's escapes in what is read.
    escapes: Option<Escapes>,
}

/// Where the bytes come from.
enum Source {
    /// Not begun: the program does not run.
    Waiting(Mode),
    /// Our standard input.
    Reader(stdio::Input),
    /// Nowhere: hop reads nothing, or nothing more.
    Nothing,
}

impl Input {
    /// Standard input for a job that has not started.
    pub fn new(mode: Mode) -> Self {
        Self {
            source: Source::Waiting(mode),
            unacknowledged: Unacknowledged::default(),
            taken: 0,
            window: 0,
            read: 0,
            escapes: None,
        }
    }

    /// The same, but escapes are for `hop`: it reads them also when the program takes no input.
    pub fn with_escapes(self) -> Self {
        Self { escapes: Some(Escapes::default()), ..self }
    }

    /// The agent has all bytes before `offset`, and no other: they are sent from there, again if need be.
    ///
    /// # Errors
    /// They are not kept any more, or were never read.
    pub fn continue_at(&mut self, offset: u64) -> Result<(), &'static str> {
        if !matches!(self.source, Source::Waiting(_)) {
            return self.unacknowledged.rewind(offset);
        }
        self.unacknowledged = Unacknowledged::starting_at(offset);
        self.read = offset;
        Ok(())
    }

    /// The program runs, and `window` bytes beyond the last acknowledgement may be sent.
    ///
    /// # Errors
    /// Our standard input cannot be read.
    pub fn open(&mut self, window: u32) -> io::Result<()> {
        self.window = window.into();
        if let Source::Waiting(mode) = self.source {
            self.source = match mode {
                Mode::Forwarded => {
                    Source::Reader(stdio::Input::open(io::stdin().as_fd().try_clone_to_owned()?)?)
                }
                Mode::Empty | Mode::Unattached => Source::Nothing,
            };
            self.unacknowledged.ends = mode == Mode::Empty;
        }
        Ok(())
    }

    /// The program's pipe has taken all bytes before `offset`; or, if `closed`, it takes none any more.
    ///
    /// # Errors
    /// `hop` never sent these bytes: with credit for them, it would read and keep everything.
    pub fn acknowledged(&mut self, offset: u64, closed: bool) -> Result<(), &'static str> {
        if !self.unacknowledged.were_sent(offset) {
            return Err("standard input is acknowledged that was never sent");
        }
        self.unacknowledged.acknowledged(offset, closed);
        self.taken = self.taken.max(offset);
        if let Source::Reader(reader) = &self.source
            && closed
            && self.escapes.is_none()
        {
            // Bytes that come now are for the process that reads after this job.
            reader.leave();
        }
        Ok(())
    }

    /// Bytes that may be read now.
    fn room(&self) -> usize {
        if self.unacknowledged.closed {
            return CHUNK;
        }
        let room = self.taken.saturating_add(self.window).saturating_sub(self.read);
        usize::try_from(room).unwrap_or(CHUNK).min(CHUNK)
    }

    /// Waits for the next bytes of the input, and keeps them. Returns the escape that was among them. Cancel safe.
    ///
    /// # Errors
    /// Our standard input cannot be read, as a program would see that reads it here.
    pub async fn more(&mut self) -> io::Result<Option<Escape>> {
        let room = self.room();
        let is_wanted = !self.unacknowledged.ends && (!self.unacknowledged.closed || self.escapes.is_some());
        match &mut self.source {
            // Behind its end, a terminal would go on.
            Source::Reader(reader) if room > 0 && is_wanted => {
                let piece = reader.read(room).await?;
                let (passed, escape) = match &mut self.escapes {
                    Some(escapes) => escapes.scan(&piece),
                    None => (piece.clone(), None),
                };
                self.read += passed.len() as u64;
                // An empty piece is the end, and one that has only escapes is not.
                if piece.is_empty() || !passed.is_empty() {
                    self.unacknowledged.push(&passed);
                }
                Ok(escape)
            }
            _ => std::future::pending().await,
        }
    }

    /// Reads no more. What was read of a file beyond the bytes that the program has read is given back: for `consumed` bytes
    /// the agent knows that it has; else those count which its pipe has taken.
    pub async fn give_back(&mut self, consumed: Option<u64>) {
        if let Source::Reader(reader) = std::mem::replace(&mut self.source, Source::Nothing) {
            let consumed = consumed.unwrap_or(self.taken).min(self.read);
            reader.give_back(self.read - consumed).await;
        }
    }

    /// The next message, which counts as sent.
    pub fn next_message(&mut self) -> Option<Stdin> {
        self.unacknowledged.next()
    }

    /// Whether there is a next message.
    pub fn has_next(&self) -> bool {
        self.unacknowledged.has_next()
    }
}

/// Bytes that `hop` has read and the program has not.
#[derive(Debug, Default)]
struct Unacknowledged {
    /// Offset of the first byte that is kept.
    start: u64,
    kept: BytesMut,
    /// How many of the kept bytes were sent on this connection.
    sent: usize,
    /// After the kept bytes comes the end.
    ends: bool,
    end_is_sent: bool,
    closed: bool,
}

impl Unacknowledged {
    fn starting_at(start: u64) -> Self {
        Self { start, ..Self::default() }
    }

    fn push(&mut self, piece: &[u8]) {
        self.ends |= piece.is_empty();
        if !self.closed {
            self.kept.extend_from_slice(piece);
        }
    }

    /// Whether all bytes before `offset` were sent. Bytes for a program that does not read do not count.
    fn were_sent(&self, offset: u64) -> bool {
        self.closed || offset <= self.start + self.sent as u64
    }

    fn acknowledged(&mut self, offset: u64, closed: bool) {
        let taken = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let taken = taken.min(self.kept.len());
        self.kept.advance(taken);
        self.start += taken as u64;
        self.sent = self.sent.saturating_sub(taken);
        self.closed |= closed;
        if self.closed {
            self.kept.clear();
            self.sent = 0;
        }
    }

    fn rewind(&mut self, offset: u64) -> Result<(), &'static str> {
        if self.closed {
            return Ok(());
        }
        self.sent = offset
            .checked_sub(self.start)
            .and_then(|sent| usize::try_from(sent).ok())
            .filter(|sent| *sent <= self.kept.len())
            .ok_or("standard input is to continue where it never was")?;
        self.end_is_sent = false;
        Ok(())
    }

    fn has_next(&self) -> bool {
        !self.closed && (self.sent < self.kept.len() || self.ends && !self.end_is_sent)
    }

    fn next(&mut self) -> Option<Stdin> {
        if !self.has_next() {
            return None;
        }
        let until = self.kept.len().min(self.sent + CHUNK);
        let offset = self.start + self.sent as u64;
        let data = Bytes::copy_from_slice(&self.kept[self.sent..until]);
        self.sent = until;
        let end = self.ends && until == self.kept.len();
        self.end_is_sent |= end;
        Some(Stdin { offset, data, end })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    fn message(offset: u64, data: &'static [u8], end: bool) -> Stdin {
        Stdin { offset, data: Bytes::from_static(data), end }
    }

    /// An input that is read from a pipe, in which these bytes are, and then the end.
    fn piped(content: &[u8]) -> Input {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(content).unwrap();
        let reader = stdio::Input::open(reader.into()).unwrap();
        Input { source: Source::Reader(reader), ..Input::new(Mode::Forwarded) }
    }

    async fn reads_on(input: &mut Input) -> bool {
        let before = input.read;
        let _ = tokio::time::timeout(Duration::from_millis(10), input.more()).await;
        input.read > before
    }

    #[tokio::test]
    async fn stdin_is_read_within_window() {
        let mut input = piped(b"hello world");
        input.open(5).unwrap();
        input.more().await.unwrap();
        assert_eq!(input.next_message(), Some(message(0, b"hello", false)));
        assert!(!reads_on(&mut input).await);
        input.acknowledged(5, false).unwrap();
        input.more().await.unwrap();
        assert_eq!(input.next_message(), Some(message(5, b" worl", false)));
        input.acknowledged(10, false).unwrap();
        input.more().await.unwrap();
        assert_eq!(input.next_message(), Some(message(10, b"d", false)));
        input.more().await.unwrap();
        assert_eq!(input.next_message(), Some(message(11, b"", true)));
    }

    #[tokio::test]
    async fn attached_stdin_has_full_window() {
        let mut input = Input::new(Mode::Forwarded);
        input.continue_at(100).unwrap();
        input.source = piped(b"hello world").source;
        input.acknowledged(98, false).unwrap();
        input.open(7).unwrap();
        input.more().await.unwrap();
        assert_eq!(input.next_message(), Some(message(100, b"hello", false)));
    }

    #[tokio::test]
    async fn empty_stdin_sends_end_at_once() {
        let mut input = Input::new(Mode::Empty);
        assert!(!input.has_next());
        input.open(5).unwrap();
        assert_eq!(input.next_message(), Some(message(0, b"", true)));
        // A connection broke.
        input.continue_at(0).unwrap();
        input.open(5).unwrap();
        assert_eq!(input.next_message(), Some(message(0, b"", true)));
        let mut input = Input::new(Mode::Unattached);
        input.open(5).unwrap();
        assert!(!input.has_next());
    }

    #[test]
    fn unacknowledged_stdin_is_resent() {
        let mut unacknowledged = Unacknowledged::default();
        unacknowledged.push(b"hello ");
        unacknowledged.push(b"world");
        assert_eq!(unacknowledged.next(), Some(message(0, b"hello world", false)));
        assert_eq!(unacknowledged.next(), None);
        unacknowledged.push(b"");
        assert_eq!(unacknowledged.next(), Some(message(11, b"", true)));
        assert!(!unacknowledged.has_next());

        unacknowledged.acknowledged(3, false);
        unacknowledged.rewind(6).unwrap();
        assert_eq!(unacknowledged.next(), Some(message(6, b"world", true)));
        assert_eq!(unacknowledged.next(), None);
        unacknowledged.rewind(3).unwrap();
        assert_eq!(unacknowledged.next(), Some(message(3, b"lo world", true)));
        // All bytes are there, and whether the end is cannot be known.
        unacknowledged.rewind(11).unwrap();
        assert_eq!(unacknowledged.next(), Some(message(11, b"", true)));

        assert!(unacknowledged.rewind(2).is_err(), "it was acknowledged");
        assert!(unacknowledged.rewind(12).is_err(), "it was never read");
    }

    #[test]
    fn resent_stdin_is_chunked() {
        let mut unacknowledged = Unacknowledged::starting_at(7);
        unacknowledged.push(&[b'x'; CHUNK]);
        unacknowledged.push(b"y");
        unacknowledged.push(b"");
        let first = unacknowledged.next().unwrap();
        assert_eq!((first.offset, first.data.len(), first.end), (7, CHUNK, false));
        assert_eq!(unacknowledged.next(), Some(message(7 + CHUNK as u64, b"y", true)));
    }

    #[test]
    fn closed_stdin_gets_no_data() {
        let mut unacknowledged = Unacknowledged::default();
        unacknowledged.push(b"hello");
        unacknowledged.acknowledged(0, true);
        unacknowledged.push(b"world");
        unacknowledged.push(b"");
        assert_eq!(unacknowledged.next(), None);
        unacknowledged.rewind(0).unwrap();
        assert!(!unacknowledged.has_next());
    }

    #[test]
    fn stale_stdin_ack_changes_nothing() {
        let mut unacknowledged = Unacknowledged::starting_at(10);
        unacknowledged.push(b"abc");
        unacknowledged.acknowledged(4, false);
        assert_eq!(unacknowledged.next(), Some(message(10, b"abc", false)));
        unacknowledged.acknowledged(99, false);
        assert_eq!((unacknowledged.start, unacknowledged.has_next()), (13, false));
    }

    #[test]
    fn ack_beyond_sent_stdin_is_refused() {
        let mut input = Input::new(Mode::Unattached);
        input.continue_at(10).unwrap();
        input.unacknowledged.push(b"abc");
        assert!(input.acknowledged(11, false).is_err(), "it was read, and not sent");
        input.next_message().unwrap();
        input.acknowledged(13, false).unwrap();
        assert!(input.acknowledged(u64::MAX, true).is_err());
        input.acknowledged(13, true).unwrap();
        assert_eq!((input.taken, input.unacknowledged.closed), (13, true));
    }
}
