//! `hop logs`: the output that a router keeps of a job, and what follows.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::path::Path;

use bytes::Bytes;
use hop_formats::size::Size;
use hop_proto::limits::{MAX_KEPT_OUTPUT_BYTES, OUTPUT_CHUNK_BYTES};
use hop_proto::v1::{Output, ReadOutputRequest, Stream};

use crate::cli::Logs;
use crate::client;
use crate::client::capabilities::LOG;
use crate::commands::Error;
use crate::config::home::Home;
use crate::console::exit_code::ExitCode;
use crate::console::say;
use crate::console::stdio;

/// Prints the output of a job that the router keeps, each of the two to its own place.
pub async fn logs(home: &Home, options: Logs) -> Result<ExitCode, Error> {
    let (mut connection, capabilities) = super::connect(home, &options.router).await?;
    let router = connection.router().to_owned();
    let jobs = super::jobs(&mut connection).await?;
    let job = super::find(&jobs, options.job.as_deref(), &router)?;
    if options.follow && !capabilities.has(LOG) {
        return Err(Error::Lacks { router, what: "--follow" });
    }
    if options.since.is_some() && !job.has_log {
        return Err(Error::Usage(format!(
            "--since needs a log, and {} has none: only jobs that were started with --detach have one, without --log wait",
            job.job_id
        )));
    }
    let wants_all = options.since.is_none() && options.tail.is_none();
    if job.dropped > 0 && wants_all {
        say!("hop: the router dropped {} of older output (--log-size)", Size(job.dropped));
    }
    let since_ms = options.since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    let request = ReadOutputRequest { job_id: job.job_id.clone(), follow: options.follow, since_ms };
    let mut pieces = match connection.client().read_output(request).await {
        Ok(pieces) => pieces.into_inner(),
        Err(status) => return Err(connection.explain(status).await.into()),
    };
    let mut received = Received::new(options.follow);
    let mut tail = options.tail.map(Tail::new);
    loop {
        let response = match pieces.message().await {
            Ok(Some(response)) => response,
            Ok(None) => {
                print_tail(&mut tail)?;
                return Ok(ExitCode::Program(0));
            }
            Err(status) => {
                print_tail(&mut tail)?;
                return Err(connection.explain(status).await.into());
            }
        };
        if response.caught_up {
            print_tail(&mut tail)?;
            continue;
        }
        let piece = response.output.unwrap_or_default();
        let gap =
            received.take(&piece).map_err(|what| client::Error::Protocol { router: router.clone(), what })?;
        if gap > 0 && tail.is_none() {
            say!("hop: the router dropped {} of output before they could be read (--log-size)", Size(gap));
        }
        match &mut tail {
            Some(tail) => tail.push(piece.stream(), piece.data),
            // Nobody is left who would read what follows.
            None if !write(piece.stream(), &piece.data)? && options.follow => {
                return Ok(ExitCode::Program(0));
            }
            None => {}
        }
    }
}

/// How far the output has come that a router keeps of a job.
#[derive(Default)]
pub struct Received {
    /// For each of the two: where the next byte belongs, once that is known, and how many there were.
    streams: [(Option<u64>, u64); 2],
    follows: bool,
}

impl Received {
    /// Nothing has come yet. Of a job that the caller `follows`, any number of bytes may come.
    pub fn new(follows: bool) -> Self {
        Self { follows, ..Self::default() }
    }

    /// Looks at a piece before it is printed. Returns how many bytes are missing before it.
    ///
    /// # Errors
    /// What is wrong with it: no agent keeps so much of an output.
    pub fn take(&mut self, piece: &Output) -> Result<u64, &'static str> {
        let (next, bytes) = match piece.stream() {
            Stream::Stdout => &mut self.streams[0],
            Stream::Stderr => &mut self.streams[1],
            Stream::Unspecified => return Err("an output that there is not"),
        };
        if piece.uncompressed_size != 0 {
            return Err("packed output that nobody asked for");
        }
        let gap = piece.offset.checked_sub(next.unwrap_or(piece.offset));
        let gap = gap.ok_or("output does not begin where it ended")?;
        let length = piece.data.len() as u64;
        *bytes += length;
        let is_too_much = *bytes > MAX_KEPT_OUTPUT_BYTES.into() && !self.follows;
        if piece.data.len() > OUTPUT_CHUNK_BYTES || is_too_much {
            return Err("more output than it may keep");
        }
        *next = Some(piece.offset.saturating_add(length));
        Ok(gap)
    }
}

/// The last lines of both outputs together.
struct Tail {
    lines: usize,
    pieces: VecDeque<(Stream, Bytes)>,
    bytes: usize,
}

impl Tail {
    fn new(lines: usize) -> Self {
        Self { lines, pieces: VecDeque::new(), bytes: 0 }
    }

    /// Adds a piece. Of what a hostile router sends, no more stays than a router may keep.
    fn push(&mut self, stream: Stream, data: Bytes) {
        self.bytes += data.len();
        self.pieces.push_back((stream, data));
        while self.bytes > 2 * MAX_KEPT_OUTPUT_BYTES as usize {
            self.bytes -= self.pieces.pop_front().map_or(0, |(_, data)| data.len());
        }
    }

    /// The pieces with the last lines.
    fn last(mut self) -> VecDeque<(Stream, Bytes)> {
        let mut wanted = self.lines;
        let mut first = (self.pieces.len(), 0);
        let mut is_last = true;
        'search: for (number, (_, data)) in self.pieces.iter().enumerate().rev() {
            for (position, byte) in data.iter().enumerate().rev() {
                // The very last one ends a line, and begins none.
                if *byte == b'\n' && !std::mem::replace(&mut is_last, false) {
                    wanted = wanted.saturating_sub(1);
                }
                is_last = false;
                if wanted == 0 {
                    break 'search;
                }
                first = (number, position);
            }
        }
        let (number, position) = first;
        self.pieces.drain(..number);
        if let Some((_, data)) = self.pieces.front_mut() {
            *data = data.slice(position..);
        }
        self.pieces
    }
}

/// Prints the last lines, if only these are wanted. What comes later is printed as it comes.
fn print_tail(tail: &mut Option<Tail>) -> Result<(), Error> {
    for (stream, data) in tail.take().map(Tail::last).unwrap_or_default() {
        write(stream, &data)?;
    }
    Ok(())
}

/// Prints a piece of an output. False if nobody reads it any more, which is no error: its reader has seen enough.
fn write(stream: Stream, data: &[u8]) -> Result<bool, Error> {
    let written = match stream {
        Stream::Stderr => stdio::stderr().write_all(data),
        _ => stdio::stdout().write_all(data),
    };
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::io("write", Path::new("the output"))(error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn logs_are_bounded_unless_followed() {
        let piece = |offset, length| Output {
            stream: Stream::Stdout.into(),
            offset,
            data: vec![b'x'; length].into(),
            uncompressed_size: 0,
        };
        let start = 1 << 40;
        let whole = u64::from(MAX_KEPT_OUTPUT_BYTES);
        for follows in [false, true] {
            let mut received = Received::new(follows);
            for offset in (0..whole).step_by(OUTPUT_CHUNK_BYTES) {
                assert_eq!(received.take(&piece(start + offset, OUTPUT_CHUNK_BYTES)), Ok(0));
            }
            assert_eq!(received.take(&piece(start + whole, 1)).is_ok(), follows);
        }
        let mut received = Received::default();
        received.take(&piece(u64::MAX, 5)).unwrap();
        assert!(received.take(&piece(0, 5)).is_err(), "it does not go on there");
        assert!(received.take(&Output { uncompressed_size: 5, ..piece(u64::MAX, 5) }).is_err());
        assert!(received.take(&Output { stream: Stream::Unspecified.into(), ..piece(0, 5) }).is_err());
        assert!(Received::default().take(&piece(0, OUTPUT_CHUNK_BYTES + 1)).is_err());
    }

    #[test]
    fn dropped_output_is_a_gap() {
        let piece = |offset| Output {
            stream: Stream::Stderr.into(),
            offset,
            data: Bytes::from_static(b"x"),
            uncompressed_size: 0,
        };
        let mut received = Received::new(true);
        assert_eq!(received.take(&piece(7)), Ok(0), "another message says where it begins");
        assert_eq!(received.take(&piece(8)), Ok(0));
        assert_eq!(received.take(&piece(20)), Ok(11));
    }

    #[test]
    fn tail_is_the_last_lines() {
        let pieces = ["one\ntw", "o\n", "three\nfo", "ur"];
        let last = |lines| {
            let mut tail = Tail::new(lines);
            pieces.iter().for_each(|piece| tail.push(Stream::Stdout, Bytes::from_static(piece.as_bytes())));
            tail.last().iter().map(|(_, data)| String::from_utf8(data.to_vec()).unwrap()).collect::<String>()
        };
        assert_eq!(last(0), "");
        assert_eq!(last(1), "four");
        assert_eq!(last(2), "three\nfour");
        assert_eq!(last(3), "two\nthree\nfour");
        for all in [4, 5, usize::MAX] {
            assert_eq!(last(all), "one\ntwo\nthree\nfour");
        }
        let mut tail = Tail::new(1);
        tail.push(Stream::Stdout, Bytes::from_static(b"one\ntwo\n"));
        assert_eq!(tail.last()[0].1, "two\n");
    }
}
