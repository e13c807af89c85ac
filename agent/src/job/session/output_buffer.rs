//! The output of a program that its controller can still get, in the order in which it was read.
//!
//! **Invariants:** no byte is dropped before it is acknowledged, so that a controller which reattaches can get it
//! again, except for a [`Log`] that nobody reads; and the buffer is never longer than what was read into it, which the
//! output's window or the log's size bounds, however small the pieces.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use hop_proto::limits::OUTPUT_CHUNK_BYTES;
use tokio::time::Instant;

/// One of the two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// Both output streams, in the order in which everything here counts them.
const STREAMS: [OutputStream; 2] = [OutputStream::Stdout, OutputStream::Stderr];

/// Maximum number of runs. With more changes from one output to the other, only the order within each output is exact.
const MAX_INTERLEAVING: usize = 256;

/// Maximum number of time marks in a log.
const MAX_MARKS: usize = 128;

/// The buffered bytes of both outputs of a program.
#[derive(Debug, Default)]
pub struct OutputBuffer {
    retained: [Retained; 2],
    /// The order of both outputs, as runs without gaps.
    interleaving: VecDeque<Run>,
    log: Option<Log>,
}

#[derive(Debug, Default)]
struct Retained {
    /// Offset of the first retained byte.
    start: u64,
    /// Offset of the first byte that no controller has acknowledged, unless it was dropped.
    acknowledged: u64,
    bytes: BytesMut,
}

/// Bytes of one output that were read before any of the other.
#[derive(Debug)]
struct Run {
    stream: OutputStream,
    /// Offset behind its last byte.
    end: u64,
}

/// What makes the buffer a log: it keeps the last bytes of each output, acknowledged or not, and drops older ones.
#[derive(Debug)]
struct Log {
    /// Bytes of each output to keep.
    size: usize,
    /// A controller is attached, for whom unacknowledged bytes are kept, as without a log.
    has_reader: bool,
    /// Bytes of both outputs that were dropped before a controller had acknowledged them.
    dropped: u64,
    /// When the outputs had which ends, the oldest first.
    marks: VecDeque<(Instant, [u64; 2])>,
    /// Time between two marks: more than nothing once there were too many.
    resolution: Duration,
}

impl Retained {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn unread_start(&self) -> u64 {
        self.acknowledged.max(self.start)
    }

    /// Drops `count` of the retained bytes from the front. If `moves`, the others move there: a buffer that never
    /// becomes empty would else grow behind them.
    fn drop_front(&mut self, count: u64, moves: bool) {
        self.start += count;
        // At most the length of the retained bytes, which is a usize.
        let count = count as usize;
        if moves {
            let rest = self.bytes.len() - count;
            self.bytes.copy_within(count.., 0);
            self.bytes.truncate(rest);
        } else {
            self.bytes.advance(count);
        }
    }
}

impl Log {
    fn mark(&mut self, ends: [u64; 2]) {
        let now = Instant::now();
        if self.marks.back().is_some_and(|(last, _)| now - *last < self.resolution) {
            return;
        }
        if self.marks.len() == MAX_MARKS {
            let mut number = 0;
            self.marks.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            let span = self.marks.front().map_or(Duration::ZERO, |(first, _)| now - *first);
            self.resolution = span / (MAX_MARKS as u32 / 2);
        }
        self.marks.push_back((now, ends));
    }
}

impl OutputBuffer {
    /// Turns the buffer into a log that keeps the last `size` bytes of each output, and up to a quarter more. A
    /// controller is attached.
    pub fn keep_log(&mut self, size: usize) {
        let (marks, resolution) = (VecDeque::new(), Duration::ZERO);
        self.log.get_or_insert(Log { size, has_reader: true, dropped: 0, marks, resolution });
    }

    /// True if the buffer is a log.
    pub fn is_log(&self) -> bool {
        self.log.is_some()
    }

    /// Tells the log whether a controller is attached. Without one, it drops the oldest bytes.
    pub fn set_reader(&mut self, has_reader: bool) {
        if let Some(log) = &mut self.log {
            log.has_reader = has_reader;
            for stream in STREAMS {
                self.trim(stream);
            }
        }
    }

    /// Appends to an output the bytes that `read` reads.
    pub fn append<R>(&mut self, stream: OutputStream, read: impl FnOnce(&mut BytesMut) -> R) -> R {
        let ends = STREAMS.map(|stream| self.end(stream));
        let retained = &mut self.retained[stream as usize];
        let before = retained.bytes.len();
        if let Some(log) = &self.log
            && before == 0
        {
            // At once, because a buffer that grows takes twice as much.
            retained.bytes.reserve(log.size + log.size / 4 + OUTPUT_CHUNK_BYTES);
        }
        let result = read(&mut retained.bytes);
        if retained.bytes.len() > before {
            self.record_run(stream);
            if let Some(log) = &mut self.log {
                log.mark(ends);
                self.trim(stream);
            }
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
        for retained in &mut self.retained {
            retained.drop_front(retained.bytes.len() as u64, false);
        }
        self.interleaving.clear();
        self.close();
    }

    /// Records that a controller has all bytes before `offset`. Drops them, unless a log keeps them.
    pub fn acknowledge(&mut self, stream: OutputStream, offset: u64) {
        let retained = &mut self.retained[stream as usize];
        retained.acknowledged = retained.acknowledged.max(offset.min(retained.end()));
        self.trim(stream);
    }

    /// Drops the bytes of an output that need not be kept.
    fn trim(&mut self, stream: OutputStream) {
        let retained = &mut self.retained[stream as usize];
        let mut until = retained.acknowledged;
        if let Some(log) = &mut self.log {
            // Not byte by byte, because all others move to the front.
            if retained.bytes.len() <= log.size + log.size / 4 {
                return;
            }
            let oldest = retained.end() - log.size as u64;
            if log.has_reader {
                until = until.min(oldest);
            } else {
                log.dropped += oldest.saturating_sub(retained.unread_start());
                until = oldest;
            }
        }
        let count = until.saturating_sub(retained.start);
        if count == 0 {
            return;
        }
        retained.drop_front(count, self.log.is_some());
        if let Some(log) = &mut self.log {
            let starts = [self.retained[0].start, self.retained[1].start];
            log.marks.retain(|(_, ends)| ends[0] > starts[0] || ends[1] > starts[1]);
        }
        let start = self.retained[stream as usize].start;
        self.interleaving.retain(|run| run.stream != stream || run.end > start);
    }

    /// Offset of the first retained byte of an output.
    pub fn start(&self, stream: OutputStream) -> u64 {
        self.retained[stream as usize].start
    }

    /// Offset of the first retained byte of an output that no controller has acknowledged.
    pub fn unread_start(&self, stream: OutputStream) -> u64 {
        self.retained[stream as usize].unread_start()
    }

    /// Offset behind the last byte of an output.
    pub fn end(&self, stream: OutputStream) -> u64 {
        self.retained[stream as usize].end()
    }

    /// Where the output of the last `age` begins in a log, or earlier: by at most a 64th of the time that the log covers.
    pub fn since(&self, age: Duration) -> [u64; 2] {
        let starts = STREAMS.map(|stream| self.start(stream));
        let Some(log) = &self.log else { return starts };
        let Some(from) = Instant::now().checked_sub(age + log.resolution) else { return starts };
        let mark = log.marks.iter().find(|(time, _)| *time >= from);
        let since = mark.map_or(STREAMS.map(|stream| self.end(stream)), |(_, ends)| *ends);
        [since[0].max(starts[0]), since[1].max(starts[1])]
    }

    /// Number of retained bytes of both outputs.
    pub fn retained(&self) -> u64 {
        self.retained.iter().map(|retained| retained.bytes.len() as u64).sum()
    }

    /// Number of retained bytes of both outputs that no controller has acknowledged.
    pub fn unread(&self) -> u64 {
        self.retained.iter().map(|retained| retained.end() - retained.unread_start()).sum()
    }

    /// Number of bytes of both outputs that the log dropped before a controller had acknowledged them.
    pub fn dropped(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.dropped)
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
        assert_eq!((buffer.start(Stdout), buffer.end(Stdout), buffer.retained()), (3, 5, 6));
        assert_eq!(rest(&buffer, [0, 0]), [(Stdout, 3, b"lo".to_vec()), (Stderr, 0, b"oops".to_vec())]);
        // An acknowledgement beyond the end acknowledges everything.
        buffer.acknowledge(Stdout, 1000);
        buffer.acknowledge(Stderr, 4);
        assert_eq!(buffer.retained(), 0);
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

    #[tokio::test(start_paused = true)]
    async fn unread_log_keeps_its_end() {
        let mut buffer = OutputBuffer::default();
        buffer.keep_log(100);
        write(&mut buffer, Stderr, b"first");
        for byte in 0..200 {
            write(&mut buffer, Stdout, &[byte]);
        }
        assert_eq!((buffer.start(Stdout), buffer.dropped()), (0, 0), "a controller is attached");
        buffer.set_reader(false);
        assert_eq!((buffer.start(Stdout), buffer.end(Stdout), buffer.dropped()), (100, 200, 100));
        assert_eq!((buffer.start(Stderr), buffer.retained(), buffer.unread()), (0, 105, 105));
        for byte in 0..25 {
            write(&mut buffer, Stdout, &[byte]);
        }
        assert_eq!(buffer.start(Stdout), 100, "not byte by byte");
        write(&mut buffer, Stdout, b"x");
        assert_eq!((buffer.start(Stdout), buffer.end(Stdout), buffer.dropped()), (126, 226, 126));
        let (_, offset, data) =
            buffer.next([226, 0]).map(|(stream, offset, data)| (stream, offset, data.to_vec())).unwrap();
        assert_eq!((offset, data), (0, b"first".to_vec()));
        assert_eq!(rest(&buffer, [0, 5])[0].2[..3], [126, 127, 128]);

        // An acknowledged byte is kept, and is not dropped unread.
        buffer.acknowledge(Stdout, 226);
        assert_eq!((buffer.start(Stdout), buffer.unread_start(Stdout), buffer.unread()), (126, 226, 5));
        write(&mut buffer, Stdout, &[7; 50]);
        assert_eq!((buffer.start(Stdout), buffer.dropped()), (176, 126));
        assert!(buffer.retained[0].bytes.capacity() < 100 + 25 + 2 * OUTPUT_CHUNK_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn log_since_begins_at_that_time() {
        let second = Duration::from_secs(1);
        let mut buffer = OutputBuffer::default();
        buffer.keep_log(1000);
        for number in 0..10 {
            write(&mut buffer, if number % 2 == 0 { Stdout } else { Stderr }, b"tick");
            tokio::time::advance(second).await;
        }
        assert_eq!(buffer.since(3 * second), [16, 12]);
        assert_eq!(buffer.since(second / 2), [20, 20], "nothing since then");
        assert_eq!(buffer.since(100 * second), [0, 0]);
        // With many marks, it begins a little earlier.
        for _ in 0..10 * MAX_MARKS {
            write(&mut buffer, Stdout, b"x");
            tokio::time::advance(second).await;
        }
        let marks = &buffer.log.as_ref().unwrap().marks;
        assert!(marks.len() <= MAX_MARKS, "{}", marks.len());
        let wanted = buffer.end(Stdout) - 100;
        let since = buffer.since(100 * second)[0];
        let span = 1000;
        assert!((wanted - span / 32..=wanted).contains(&since), "{since} for {wanted}");
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
