//! The output buffer against a model: two vectors that drop nothing.
#![no_main]

use hop_proto::limits::OUTPUT_CHUNK_BYTES;
use hopd::job::session::output_buffer::OutputStream::{Stderr, Stdout};
use hopd::job::session::output_buffer::{OutputBuffer, OutputStream};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Step {
    Append {
        to_stderr: bool,
        bytes: u16,
    },
    /// Writes one byte at a time to both outputs in turn.
    Alternate {
        times: u16,
    },
    Acknowledge {
        stderr: bool,
        offset: u32,
    },
    /// Reads everything from this far before the end.
    Read {
        back: [u16; 2],
    },
}

/// Every byte that was written.
#[derive(Default)]
struct Model {
    written: [Vec<u8>; 2],
    acknowledged: [usize; 2],
}

const STREAMS: [OutputStream; 2] = [Stdout, Stderr];

fuzz_target!(|steps: Vec<Step>| {
    let (mut buffer, mut model) = (OutputBuffer::default(), Model::default());
    for step in steps {
        match step {
            Step::Append { to_stderr, bytes } => {
                append(&mut buffer, &mut model, stream(to_stderr), bytes.into())
            }
            Step::Alternate { times } => {
                for _ in 0..times % 1024 {
                    append(&mut buffer, &mut model, Stdout, 1);
                    append(&mut buffer, &mut model, Stderr, 1);
                }
            }
            Step::Acknowledge { stderr, offset } => {
                let stream = stream(stderr);
                buffer.acknowledge(stream, offset.into());
                let acknowledged = &mut model.acknowledged[stream as usize];
                let offset = (offset as usize).min(model.written[stream as usize].len());
                *acknowledged = offset.max(*acknowledged);
            }
            Step::Read { back } => read(&buffer, &model, back),
        }
        check(&buffer, &model);
    }
    read(&buffer, &model, [u16::MAX; 2]);
});

fn stream(is_stderr: bool) -> OutputStream {
    if is_stderr { Stderr } else { Stdout }
}

fn append(buffer: &mut OutputBuffer, model: &mut Model, stream: OutputStream, bytes: usize) {
    let written = &mut model.written[stream as usize];
    // 251 is a prime: no chunk and no buffer begins like another.
    let data: Vec<u8> = (written.len()..written.len() + bytes).map(|offset| (offset % 251) as u8).collect();
    buffer.append(stream, |bytes| bytes.extend_from_slice(&data));
    written.extend(data);
}

fn check(buffer: &OutputBuffer, model: &Model) {
    for stream in STREAMS {
        let index = stream as usize;
        assert_eq!(buffer.start(stream), model.acknowledged[index] as u64);
        assert_eq!(buffer.end(stream), model.written[index].len() as u64);
    }
    let kept: usize = (0..2).map(|index| model.written[index].len() - model.acknowledged[index]).sum();
    // Without a log nothing else is kept.
    assert_eq!((buffer.unread(), buffer.retained()), (kept as u64, kept as u64));
}

/// A controller that has all but the last `back` bytes, or all that was dropped, gets exactly the rest.
fn read(buffer: &OutputBuffer, model: &Model, back: [u16; 2]) {
    let mut had = [0; 2];
    for index in 0..2 {
        let end = model.written[index].len();
        had[index] = end.saturating_sub(back[index].into()).max(model.acknowledged[index]) as u64;
    }
    while let Some((stream, offset, data)) = buffer.next(had) {
        let index = stream as usize;
        assert_eq!(offset, had[index], "without a gap");
        assert!((1..=OUTPUT_CHUNK_BYTES).contains(&data.len()));
        let from = offset as usize;
        assert_eq!(data, &model.written[index][from..from + data.len()]);
        had[index] += data.len() as u64;
    }
    assert_eq!(had, [0, 1].map(|index: usize| model.written[index].len() as u64), "to the end");
}
