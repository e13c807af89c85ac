//! Our standard input on its way to the program: read only as fast as the program reads, and kept until it has it.
//!
//! What must stay true: every byte comes to the program once and in its place, also when the connection breaks between
//! two of them. What was read and is not acknowledged is kept, at most a window of it.

use std::io::IsTerminal;

use bytes::{Buf, Bytes, BytesMut};
use hop_proto::v1::Stdin;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, watch};

/// Bytes read, and sent, at a time.
const CHUNK: usize = 16 * 1024;

/// Pieces that were read and not yet taken: so few that the bytes of a window are never kept twice.
const PIECES: usize = 1;

/// How far the program is, as the agent tells it.
#[derive(Clone, Copy, Debug, Default)]
struct Credit {
    /// Bytes that the program has taken.
    taken: u64,
    /// Bytes that may be on their way to it.
    window: u64,
    /// The program does not read any more.
    closed: bool,
}

/// Standard input of a job.
pub struct Input {
    source: Source,
    credit: watch::Sender<Credit>,
    unacknowledged: Unacknowledged,
}

/// Where it comes from.
enum Source {
    /// From nowhere: not even its end is sent.
    Nothing,
    /// From our standard input, once the program runs.
    Waiting,
    /// From the task that reads it. An empty piece is the end.
    Reader(mpsc::Receiver<Bytes>),
}

impl Input {
    /// That of a job which reads ours; or, without `is_wanted`, of one that has an input already.
    pub fn new(is_wanted: bool) -> Self {
        Self {
            source: if is_wanted { Source::Waiting } else { Source::Nothing },
            credit: watch::Sender::default(),
            unacknowledged: Unacknowledged::default(),
        }
    }

    /// The agent has all bytes before `offset`, and no other: they are sent from there, again if need be.
    ///
    /// # Errors
    /// They are not kept any more, or were never read.
    pub fn continue_at(&mut self, offset: u64) -> Result<(), &'static str> {
        if matches!(self.source, Source::Reader(_)) {
            return self.unacknowledged.rewind(offset);
        }
        self.unacknowledged = Unacknowledged::starting_at(offset);
        Ok(())
    }

    /// The program runs, and `window` bytes beyond the last acknowledgement may be sent.
    pub fn open(&mut self, window: u32) {
        self.credit.send_modify(|credit| credit.window = window.into());
        if matches!(self.source, Source::Waiting) {
            let (pieces, read_pieces) = mpsc::channel(PIECES);
            let (start, credit) = (self.unacknowledged.start, self.credit.subscribe());
            if is_ours() {
                tokio::spawn(read(tokio::io::stdin(), start, credit, pieces));
            } else {
                tokio::spawn(read(tokio::io::empty(), start, credit, pieces));
            }
            self.source = Source::Reader(read_pieces);
        }
    }

    /// The program's pipe has taken all bytes before `offset`; or, if `closed`, it takes none any more.
    ///
    /// # Errors
    /// They were not sent: with credit for them, everything would be read and kept here.
    pub fn acknowledged(&mut self, offset: u64, closed: bool) -> Result<(), &'static str> {
        if !self.unacknowledged.were_sent(offset) {
            return Err("standard input is acknowledged that was never sent");
        }
        self.unacknowledged.acknowledged(offset, closed);
        self.credit.send_modify(|credit| {
            credit.taken = credit.taken.max(offset);
            credit.closed |= closed;
        });
        Ok(())
    }

    /// Waits for what is read next, and keeps it. Cancel safe.
    pub async fn more(&mut self) {
        let piece = match &mut self.source {
            Source::Reader(pieces) => pieces.recv().await,
            Source::Nothing | Source::Waiting => None,
        };
        match piece {
            Some(piece) => self.unacknowledged.push(&piece),
            None => std::future::pending().await,
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

/// What was read and the program has not.
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

    /// Whether all bytes before `offset` were sent. What is sent to a program that does not read is not counted.
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

/// False for a terminal that belongs to another job of the shell: to read it would stop `hop` (SIGTTIN, termios(3)), and
/// `hop run ./server &` is to run.
pub fn is_ours() -> bool {
    let stdin = std::io::stdin();
    !stdin.is_terminal()
        || rustix::termios::tcgetpgrp(&stdin).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Reads standard input, whose first byte has this offset, until its end, or until the program does not want it.
async fn read(
    mut input: impl AsyncRead + Unpin,
    mut offset: u64,
    mut credit: watch::Receiver<Credit>,
    pieces: mpsc::Sender<Bytes>,
) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let now = *credit.borrow_and_update();
        if now.closed {
            return;
        }
        let room = now.taken.saturating_add(now.window).saturating_sub(offset);
        let room = usize::try_from(room).unwrap_or(CHUNK).min(CHUNK);
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
        let piece = Bytes::copy_from_slice(&buffer[..read.unwrap_or(0)]);
        let (length, is_end) = (piece.len() as u64, piece.is_empty());
        if pieces.send(piece).await.is_err() || is_end {
            return;
        }
        offset += length;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message(offset: u64, data: &'static [u8], end: bool) -> Stdin {
        Stdin { offset, data: Bytes::from_static(data), end }
    }

    #[tokio::test]
    async fn no_byte_is_read_beyond_the_credit() {
        let (grant, credit) = watch::channel(Credit { window: 5, ..Credit::default() });
        let (pieces, mut read_pieces) = mpsc::channel(PIECES);
        let task = tokio::spawn(read(&b"hello world"[..], 0, credit, pieces));
        assert_eq!(read_pieces.recv().await.unwrap(), "hello");
        tokio::task::yield_now().await;
        assert!(read_pieces.try_recv().is_err());
        grant.send_modify(|credit| credit.taken = 5);
        assert_eq!(read_pieces.recv().await.unwrap(), " worl");
        grant.send_modify(|credit| credit.taken = 10);
        assert_eq!(read_pieces.recv().await.unwrap(), "d");
        assert_eq!(read_pieces.recv().await.unwrap(), "");
        task.await.unwrap();
    }

    #[tokio::test]
    async fn an_input_that_begins_later_has_credit_for_what_came_before() {
        let (_grant, credit) = watch::channel(Credit { taken: 98, window: 7, closed: false });
        let (pieces, mut read_pieces) = mpsc::channel(PIECES);
        tokio::spawn(read(&b"hello world"[..], 100, credit, pieces));
        assert_eq!(read_pieces.recv().await.unwrap(), "hello");
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_from_any_offset_and_so_is_the_end() {
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
    fn much_is_sent_again_in_pieces() {
        let mut unacknowledged = Unacknowledged::starting_at(7);
        unacknowledged.push(&[b'x'; CHUNK]);
        unacknowledged.push(b"y");
        unacknowledged.push(b"");
        let first = unacknowledged.next().unwrap();
        assert_eq!((first.offset, first.data.len(), first.end), (7, CHUNK, false));
        assert_eq!(unacknowledged.next(), Some(message(7 + CHUNK as u64, b"y", true)));
    }

    #[test]
    fn a_program_that_has_closed_its_input_is_sent_nothing() {
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
    fn an_acknowledgement_of_what_is_not_kept_changes_nothing() {
        let mut unacknowledged = Unacknowledged::starting_at(10);
        unacknowledged.push(b"abc");
        unacknowledged.acknowledged(4, false);
        assert_eq!(unacknowledged.next(), Some(message(10, b"abc", false)));
        unacknowledged.acknowledged(99, false);
        assert_eq!((unacknowledged.start, unacknowledged.has_next()), (13, false));
    }

    #[test]
    fn no_credit_for_bytes_never_sent() {
        let mut input = Input::new(true);
        input.continue_at(10).unwrap();
        input.unacknowledged.push(b"abc");
        assert!(input.acknowledged(11, false).is_err(), "it was read, and not sent");
        input.next_message().unwrap();
        input.acknowledged(13, false).unwrap();
        assert!(input.acknowledged(u64::MAX, true).is_err());
        input.acknowledged(13, true).unwrap();
        assert_eq!((input.credit.borrow().taken, input.credit.borrow().closed), (13, true));
    }
}
