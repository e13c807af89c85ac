//! What a program wrote and its controller has not acknowledged yet, in the order in which it was read.
//!
//! What must stay true: no byte goes before it is acknowledged, so that a controller which comes back can have it again;
//! and the tape is never longer than what was read into it, which the output's window bounds, however small the pieces.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};
use hop_proto::limits::OUTPUT_CHUNK_BYTES;

/// One of the two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// Changes from one output to the other that are remembered. Beyond that, each output is still in its own order.
const MAX_RUNS: usize = 256;

/// Both outputs of a program.
#[derive(Debug, Default)]
pub struct Tape {
    kept: [Kept; 2],
    /// Which output was written when, without gaps.
    runs: VecDeque<Run>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Offset of the first byte that is kept.
    start: u64,
    bytes: BytesMut,
}

/// What was written to one output before something was written to the other.
#[derive(Debug)]
struct Run {
    stream: OutputStream,
    /// Offset behind its last byte.
    end: u64,
}

impl Kept {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl Tape {
    /// Adds what `read` reads from an output and puts behind the rest.
    pub fn append<R>(&mut self, stream: OutputStream, read: impl FnOnce(&mut BytesMut) -> R) -> R {
        let kept = &mut self.kept[stream as usize];
        let before = kept.bytes.len();
        let result = read(&mut kept.bytes);
        if kept.bytes.len() > before {
            self.note(stream);
        }
        result
    }

    /// Remembers that this output was written last.
    fn note(&mut self, stream: OutputStream) {
        let end = self.end(stream);
        let full = self.runs.len() >= MAX_RUNS;
        let mut latest = self.runs.iter_mut().rev().take(if full { MAX_RUNS } else { 1 });
        match latest.find(|run| run.stream == stream) {
            Some(run) => run.end = end,
            None => self.runs.push_back(Run { stream, end }),
        }
    }

    /// Lets go of the room for what is written next: nothing is.
    pub fn close(&mut self) {
        for kept in &mut self.kept {
            kept.bytes = BytesMut::from(&kept.bytes[..]);
        }
    }

    /// Lets go of everything that is kept.
    pub fn give_up(&mut self) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            self.acknowledge(stream, self.end(stream));
        }
        self.close();
    }

    /// Lets go of everything before `offset`.
    pub fn acknowledge(&mut self, stream: OutputStream, offset: u64) {
        let kept = &mut self.kept[stream as usize];
        let count = offset.min(kept.end()).saturating_sub(kept.start);
        kept.start += count;
        // At most the length that there is, which is a usize.
        kept.bytes.advance(count as usize);
        let start = kept.start;
        self.runs.retain(|run| run.stream != stream || run.end > start);
    }

    /// Offset of the first byte of an output that is kept.
    pub fn start(&self, stream: OutputStream) -> u64 {
        self.kept[stream as usize].start
    }

    /// Offset behind the last byte of an output.
    pub fn end(&self, stream: OutputStream) -> u64 {
        self.kept[stream as usize].end()
    }

    /// Bytes of both outputs that are kept.
    pub fn len(&self) -> u64 {
        self.kept.iter().map(|kept| kept.bytes.len() as u64).sum()
    }

    /// True if everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next piece for whoever has what is before `had` of each output: of which one, its offset, and at most
    /// [`OUTPUT_CHUNK_BYTES`] of it.
    pub fn next(&self, had: [u64; 2]) -> Option<(OutputStream, u64, &[u8])> {
        let run = self.runs.iter().find(|run| run.end > had[run.stream as usize])?;
        let kept = &self.kept[run.stream as usize];
        let offset = had[run.stream as usize].max(kept.start);
        let from = (offset - kept.start) as usize;
        let until = ((run.end - kept.start) as usize).min(from + OUTPUT_CHUNK_BYTES);
        Some((run.stream, offset, &kept.bytes[from..until]))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::OutputStream::{Stderr, Stdout};
    use super::*;

    fn write(tape: &mut Tape, stream: OutputStream, data: &[u8]) {
        tape.append(stream, |bytes| bytes.extend_from_slice(data));
    }

    /// All that is left for whoever had this much, as one reads it.
    fn rest(tape: &Tape, mut had: [u64; 2]) -> Vec<(OutputStream, u64, Vec<u8>)> {
        let mut pieces = Vec::new();
        while let Some((stream, offset, data)) = tape.next(had) {
            had[stream as usize] = offset + data.len() as u64;
            pieces.push((stream, offset, data.to_vec()));
        }
        pieces
    }

    #[test]
    fn the_order_of_both_outputs_is_kept_also_for_who_comes_back() {
        let mut tape = Tape::default();
        for (stream, data) in [(Stderr, "a"), (Stdout, "b"), (Stdout, "c"), (Stderr, "d")] {
            write(&mut tape, stream, data.as_bytes());
        }
        let all = vec![(Stderr, 0, b"a".to_vec()), (Stdout, 0, b"bc".to_vec()), (Stderr, 1, b"d".to_vec())];
        assert_eq!(rest(&tape, [0, 0]), all);
        assert_eq!(rest(&tape, [1, 1]), [(Stdout, 1, b"c".to_vec()), (Stderr, 1, b"d".to_vec())]);
        assert_eq!(rest(&tape, [2, 2]), []);
    }

    #[test]
    fn what_is_acknowledged_is_gone_and_nothing_else_is() {
        let mut tape = Tape::default();
        write(&mut tape, Stdout, b"hello");
        write(&mut tape, Stderr, b"oops");
        tape.acknowledge(Stdout, 3);
        tape.acknowledge(Stdout, 1);
        assert_eq!((tape.start(Stdout), tape.end(Stdout), tape.len()), (3, 5, 6));
        assert_eq!(rest(&tape, [0, 0]), [(Stdout, 3, b"lo".to_vec()), (Stderr, 0, b"oops".to_vec())]);
        // An acknowledgement of what was never written is one of all that was.
        tape.acknowledge(Stdout, 1000);
        tape.acknowledge(Stderr, 4);
        assert!(tape.is_empty());
        write(&mut tape, Stdout, b"!");
        assert_eq!(rest(&tape, [5, 4]), [(Stdout, 5, b"!".to_vec())]);
    }

    #[test]
    fn a_piece_is_never_longer_than_a_chunk() {
        let mut tape = Tape::default();
        write(&mut tape, Stdout, &vec![7; OUTPUT_CHUNK_BYTES + 1]);
        let lengths: Vec<_> = rest(&tape, [0, 0]).iter().map(|(_, _, data)| data.len()).collect();
        assert_eq!(lengths, [OUTPUT_CHUNK_BYTES, 1]);
    }

    #[test]
    fn a_tape_that_is_closed_keeps_its_bytes_and_no_room_for_more() {
        let mut tape = Tape::default();
        tape.append(Stdout, |bytes| bytes.reserve(OUTPUT_CHUNK_BYTES));
        write(&mut tape, Stdout, b"hello");
        tape.acknowledge(Stdout, 2);
        tape.close();
        assert_eq!(rest(&tape, [0, 0]), [(Stdout, 2, b"llo".to_vec())]);
        assert!(tape.kept[0].bytes.capacity() < 100);
    }

    #[test]
    fn small_pieces_cost_their_bytes_and_a_bounded_rest() {
        let mut tape = Tape::default();
        for _ in 0..10_000 {
            write(&mut tape, Stdout, b"o");
            write(&mut tape, Stderr, b"e");
        }
        assert_eq!(tape.runs.len(), MAX_RUNS);
        let pieces = rest(&tape, [0, 0]);
        for stream in [Stdout, Stderr] {
            let all: Vec<u8> =
                pieces.iter().filter(|piece| piece.0 == stream).flat_map(|piece| piece.2.clone()).collect();
            assert_eq!(all.len(), 10_000);
        }
    }
}
