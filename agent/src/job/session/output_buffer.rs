//! The output of a program that its controller has not acknowledged yet, in the order in which it was read.
//!
//! **Invariants:** no byte is dropped before it is acknowledged, so that a controller which reattaches can get it
//! again; and the buffer is never longer than what was read into it, which the output's window bounds, however small
//! the pieces.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};
use hop_proto::limits::OUTPUT_CHUNK_BYTES;

/// One of the two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// Maximum number of runs. With more changes from one output to the other, only the order within each output is exact.
const MAX_INTERLEAVING: usize = 256;

/// The unacknowledged bytes of both outputs of a program.
#[derive(Debug, Default)]
pub struct OutputBuffer {
    retained: [Retained; 2],
    /// The order of both outputs, as runs without gaps.
    interleaving: VecDeque<Run>,
}

#[derive(Debug, Default)]
struct Retained {
    /// Offset of the first retained byte.
    start: u64,
    bytes: BytesMut,
}

/// Bytes of one output that were read before any of the other.
#[derive(Debug)]
struct Run {
    stream: OutputStream,
    /// Offset behind its last byte.
    end: u64,
}

impl Retained {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl OutputBuffer {
    /// Appends to an output the bytes that `read` reads.
    pub fn append<R>(&mut self, stream: OutputStream, read: impl FnOnce(&mut BytesMut) -> R) -> R {
        let retained = &mut self.retained[stream as usize];
        let before = retained.bytes.len();
        let result = read(&mut retained.bytes);
        if retained.bytes.len() > before {
            self.record_run(stream);
        }
        result
    }

    /// Records that the last bytes are of this output.
    fn record_run(&mut self, stream: OutputStream) {
        let end = self.end(stream);
        let full = self.interleaving.len() >= MAX_INTERLEAVING;
        let mut latest = self.interleaving.iter_mut().rev().take(if full { MAX_INTERLEAVING } else { 1 });
        match latest.find(|run| run.stream == stream) {
            Some(run) => run.end = end,
            None => self.interleaving.push_back(Run { stream, end }),
        }
    }

    /// Frees the spare capacity. Nothing is appended after this.
    pub fn close(&mut self) {
        for retained in &mut self.retained {
            retained.bytes = BytesMut::from(&retained.bytes[..]);
        }
    }

    /// Drops all retained bytes.
    pub fn discard(&mut self) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            self.acknowledge(stream, self.end(stream));
        }
        self.close();
    }

    /// Drops all bytes before `offset`.
    pub fn acknowledge(&mut self, stream: OutputStream, offset: u64) {
        let retained = &mut self.retained[stream as usize];
        let count = offset.min(retained.end()).saturating_sub(retained.start);
        retained.start += count;
        // At most the length of the retained bytes, which is a usize.
        retained.bytes.advance(count as usize);
        let start = retained.start;
        self.interleaving.retain(|run| run.stream != stream || run.end > start);
    }

    /// Offset of the first retained byte of an output.
    pub fn start(&self, stream: OutputStream) -> u64 {
        self.retained[stream as usize].start
    }

    /// Offset behind the last byte of an output.
    pub fn end(&self, stream: OutputStream) -> u64 {
        self.retained[stream as usize].end()
    }

    /// Number of retained bytes of both outputs.
    pub fn len(&self) -> u64 {
        self.retained.iter().map(|retained| retained.bytes.len() as u64).sum()
    }

    /// True if everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next piece behind the offsets `delivered`: its output, its offset, and at most [`OUTPUT_CHUNK_BYTES`] of it.
    pub fn next(&self, delivered: [u64; 2]) -> Option<(OutputStream, u64, &[u8])> {
        let run = self.interleaving.iter().find(|run| run.end > delivered[run.stream as usize])?;
        let retained = &self.retained[run.stream as usize];
        let offset = delivered[run.stream as usize].max(retained.start);
        let from = (offset - retained.start) as usize;
        let until = ((run.end - retained.start) as usize).min(from + OUTPUT_CHUNK_BYTES);
        Some((run.stream, offset, &retained.bytes[from..until]))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::OutputStream::{Stderr, Stdout};
    use super::*;

    fn write(buffer: &mut OutputBuffer, stream: OutputStream, data: &[u8]) {
        buffer.append(stream, |bytes| bytes.extend_from_slice(data));
    }

    /// All pieces behind the offsets `delivered`.
    fn rest(buffer: &OutputBuffer, mut delivered: [u64; 2]) -> Vec<(OutputStream, u64, Vec<u8>)> {
        let mut pieces = Vec::new();
        while let Some((stream, offset, data)) = buffer.next(delivered) {
            delivered[stream as usize] = offset + data.len() as u64;
            pieces.push((stream, offset, data.to_vec()));
        }
        pieces
    }

    #[test]
    fn interleaving_survives_a_reconnect() {
        let mut buffer = OutputBuffer::default();
        for (stream, data) in [(Stderr, "a"), (Stdout, "b"), (Stdout, "c"), (Stderr, "d")] {
            write(&mut buffer, stream, data.as_bytes());
        }
        let all = vec![(Stderr, 0, b"a".to_vec()), (Stdout, 0, b"bc".to_vec()), (Stderr, 1, b"d".to_vec())];
        assert_eq!(rest(&buffer, [0, 0]), all);
        assert_eq!(rest(&buffer, [1, 1]), [(Stdout, 1, b"c".to_vec()), (Stderr, 1, b"d".to_vec())]);
        assert_eq!(rest(&buffer, [2, 2]), []);
    }

    #[test]
    fn only_acknowledged_output_is_dropped() {
        let mut buffer = OutputBuffer::default();
        write(&mut buffer, Stdout, b"hello");
        write(&mut buffer, Stderr, b"oops");
        buffer.acknowledge(Stdout, 3);
        buffer.acknowledge(Stdout, 1);
        assert_eq!((buffer.start(Stdout), buffer.end(Stdout), buffer.len()), (3, 5, 6));
        assert_eq!(rest(&buffer, [0, 0]), [(Stdout, 3, b"lo".to_vec()), (Stderr, 0, b"oops".to_vec())]);
        // An acknowledgement beyond the end acknowledges everything.
        buffer.acknowledge(Stdout, 1000);
        buffer.acknowledge(Stderr, 4);
        assert!(buffer.is_empty());
        write(&mut buffer, Stdout, b"!");
        assert_eq!(rest(&buffer, [5, 4]), [(Stdout, 5, b"!".to_vec())]);
    }

    #[test]
    fn pieces_fit_into_one_chunk() {
        let mut buffer = OutputBuffer::default();
        write(&mut buffer, Stdout, &vec![7; OUTPUT_CHUNK_BYTES + 1]);
        let lengths: Vec<_> = rest(&buffer, [0, 0]).iter().map(|(_, _, data)| data.len()).collect();
        assert_eq!(lengths, [OUTPUT_CHUNK_BYTES, 1]);
    }

    #[test]
    fn closed_buffers_keep_no_spare_capacity() {
        let mut buffer = OutputBuffer::default();
        buffer.append(Stdout, |bytes| bytes.reserve(OUTPUT_CHUNK_BYTES));
        write(&mut buffer, Stdout, b"hello");
        buffer.acknowledge(Stdout, 2);
        buffer.close();
        assert_eq!(rest(&buffer, [0, 0]), [(Stdout, 2, b"llo".to_vec())]);
        assert!(buffer.retained[0].bytes.capacity() < 100);
    }

    #[test]
    fn interleaving_of_small_pieces_is_bounded() {
        let mut buffer = OutputBuffer::default();
        for _ in 0..10_000 {
            write(&mut buffer, Stdout, b"o");
            write(&mut buffer, Stderr, b"e");
        }
        assert_eq!(buffer.interleaving.len(), MAX_INTERLEAVING);
        let pieces = rest(&buffer, [0, 0]);
        for stream in [Stdout, Stderr] {
            let all: Vec<u8> =
                pieces.iter().filter(|piece| piece.0 == stream).flat_map(|piece| piece.2.clone()).collect();
            assert_eq!(all.len(), 10_000);
        }
    }
}
