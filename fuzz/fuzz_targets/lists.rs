//! Prints lists and output of an agent, whatever it sends: a list has one line for each job and nothing that a terminal
//! interprets; and the controller accepts no more output than a window.
#![no_main]

use bytes::Bytes;
use hop::commands::jobs::{Received, listed};
use hop::session::output::Outputs;
use hop_proto::limits::MAX_KEPT_OUTPUT_BYTES;
use hop_proto::v1::{Job, Output};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Scenario {
    Jobs(Vec<Line>),
    /// Output that has not been read.
    Logs(Vec<Piece>),
    /// Output of a running job; after each piece, it is acknowledged or not.
    Run(Vec<(Piece, bool)>),
}

#[derive(Arbitrary, Debug)]
struct Line {
    /// Mostly a valid one.
    id: Result<u64, String>,
    name: String,
    state: i32,
    age_ms: u64,
    own: bool,
}

#[derive(Arbitrary, Debug)]
struct Piece {
    stream: u8,
    /// Mostly the expected one.
    offset: Option<u64>,
    length: u16,
    uncompressed_size: u8,
}

/// Maximum number of bytes of each output in flight.
const WINDOW: u32 = 64 * 1024;

fuzz_target!(|scenario: Scenario| match scenario {
    Scenario::Jobs(lines) => list(lines),
    Scenario::Logs(pieces) => log(&pieces),
    Scenario::Run(pieces) => {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("it needs nothing");
        runtime.block_on(run(&pieces));
    }
});

fn list(lines: Vec<Line>) {
    let names: Vec<_> = lines.iter().map(|line| line.name.clone()).collect();
    let are_ids = lines.iter().all(|line| line.id.is_ok());
    let job = |line: Line| Job {
        job_id: line.id.map_or_else(|id| id, |id| id.to_string()),
        name: line.name,
        state: line.state,
        age_ms: line.age_ms,
        own: line.own,
        ..Job::default()
    };
    let jobs: Vec<_> = lines.into_iter().map(job).collect();
    let (text, json) = match (listed(jobs.clone(), true, false), listed(jobs, true, true)) {
        (Ok(text), Ok(json)) => (text, json),
        _ => return assert!(!are_ids, "a good list is shown"),
    };
    assert_eq!(text.lines().count(), names.len() + 1, "{text:?}");
    for shown in [&text, &json] {
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    }
    let read: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    let read: Vec<_> = read.as_array().into_iter().flatten().map(|job| job["program"].as_str()).collect();
    assert_eq!(read, names.iter().map(|name| Some(name.as_str())).collect::<Vec<_>>());
}

fn output(piece: &Piece, next: [u64; 2]) -> Output {
    Output {
        stream: piece.stream.into(),
        offset: piece.offset.unwrap_or(next[usize::from(piece.stream == 2)]),
        data: Bytes::from(vec![b'x'; piece.length.into()]),
        uncompressed_size: piece.uncompressed_size.into(),
    }
}

fn log(pieces: &[Piece]) {
    let (mut received, mut next, mut taken) = (Received::new(false), [None; 2], [0; 2]);
    for piece in pieces {
        let output = output(piece, next.map(Option::unwrap_or_default));
        let Ok(gap) = received.take(&output) else { return };
        let stream = usize::from(piece.stream == 2);
        // Where an output begins is the router's to say.
        assert_eq!(gap, next[stream].map_or(0, |next| output.offset - next));
        next[stream] = Some(output.offset.saturating_add(piece.length.into()));
        taken[stream] += u64::from(piece.length);
        assert!((1..=2).contains(&piece.stream) && taken[stream] <= MAX_KEPT_OUTPUT_BYTES.into());
    }
}

async fn run(pieces: &[(Piece, bool)]) {
    let mut outputs = Outputs::open(WINDOW, std::io::sink(), std::io::sink());
    let mut acknowledged = [0; 2];
    for (piece, is_acknowledged) in pieces {
        let before = outputs.received();
        let output = output(piece, before);
        match outputs.take(output) {
            Ok(()) => {
                let stream = usize::from(piece.stream == 2);
                assert_eq!(outputs.received()[stream], before[stream] + u64::from(piece.length));
                assert!(outputs.received()[stream] - acknowledged[stream] <= WINDOW.into());
            }
            Err(_) => assert_eq!(outputs.received(), before),
        }
        if *is_acknowledged {
            tokio::task::yield_now().await;
            while let Some(ack) = outputs.next_ack() {
                acknowledged[usize::from(ack.stream == 2)] = ack.offset;
            }
        }
    }
    let _ = outputs.finish().await;
}
