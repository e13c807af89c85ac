//! A controller that breaks the rules is told which one, and costs the agent nothing.

use super::Behaviour;
use hop::connection::Connection;
use hop::error::Error;
use hop::packing;
use hop_proto::limits::{BLOB_CHUNK_BYTES, MAX_MESSAGE_BYTES};
use hop_proto::v1::outcome::Ending;
use hop_proto::v1::{
    Attach, Blob, BlobChunk, Encoding, InputTree, JobSpec, Output, OutputAck, Reason, Release, RunReply,
    RunRequest, Signal, Stdin, Stream, run_reply, run_request,
};
use hop_tests::{TIMEOUT, Target, VirtualRouter};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

pub const ALL: &[Behaviour] = &behaviours! {
    Everywhere:
        argument_too_long_is_an_outcome,
        unexecutable_content_is_an_outcome;
    Portable:
        wrong_digest_runs_nothing,
        lists_large_once_decoded_are_refused,
        output_is_compressed_only_on_request,
        message_over_the_limit_is_refused,
        unfinished_upload_leaves_nothing,
        rules_broken_before_start_are_refused,
        rules_broken_after_start_end_it;
};

/// A controller made of nothing but messages.
struct Raw {
    connection: Connection,
    requests: mpsc::Sender<RunRequest>,
    replies: Streaming<RunReply>,
}

impl Raw {
    /// Starts a run with `first`, or attaches to one.
    async fn start(router: &VirtualRouter, first: run_request::Message) -> Result<Self, Error> {
        let identity = router.home().identity().unwrap();
        let (mut connection, _) = Connection::open(&router.entry(), &identity, TIMEOUT).await?;
        let (requests, outgoing) = mpsc::channel(16);
        let attaches = matches!(first, run_request::Message::Attach(_));
        requests.send(RunRequest { message: Some(first) }).await.unwrap();
        let (client, outgoing) = (connection.client(), ReceiverStream::new(outgoing));
        let started = if attaches { client.attach(outgoing).await } else { client.run(outgoing).await };
        match started {
            Ok(replies) => Ok(Self { connection, requests, replies: replies.into_inner() }),
            Err(status) => Err(connection.explain(status).await),
        }
    }

    async fn send(&self, message: run_request::Message) {
        self.requests.send(RunRequest { message: Some(message) }).await.unwrap();
    }

    async fn next(&mut self) -> Result<Option<run_reply::Message>, Error> {
        match tokio::time::timeout(TIMEOUT, self.replies.message()).await.unwrap() {
            Ok(reply) => Ok(reply.and_then(|reply| reply.message)),
            Err(status) => Err(self.connection.explain(status).await),
        }
    }

    /// Reads the first answer, which must be that the job is accepted. True if the program is to be sent.
    async fn is_asked_for_the_program(&mut self) -> bool {
        match self.next().await.unwrap() {
            Some(run_reply::Message::Accepted(accepted)) => !accepted.needs.is_empty(),
            other => panic!("{other:?}"),
        }
    }

    /// Reads up to the end, which must be a refusal.
    async fn refusal(mut self) -> (Reason, String) {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a refusal"),
                Err(error) => return refused(error),
            }
        }
    }
}

fn refused(error: Error) -> (Reason, String) {
    match error {
        Error::Refused { reason, message, .. } => (reason, message),
        other => panic!("{other}"),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn sha256(content: &[u8]) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, content).as_ref().to_vec()
}

fn spec(sha256: Vec<u8>, size: u64) -> JobSpec {
    JobSpec {
        name: "raw".into(),
        program: Some(Blob { sha256, size, checksum: None }),
        output_window: 1024,
        ..JobSpec::default()
    }
}

fn chunk(offset: u64, data: &[u8]) -> run_request::Message {
    run_request::Message::Blob(BlobChunk { offset, data: data.to_vec().into(), ..BlobChunk::default() })
}

/// Why a program of some length is refused that comes as `content` in an encoding.
pub fn refusal_of_content(router: &VirtualRouter, encoding: Encoding, content: &[u8]) -> Reason {
    block_on(async {
        let raw = Raw::start(router, run_request::Message::Spec(spec(vec![7; 32], 1000))).await.unwrap();
        let data = content.to_vec().into();
        raw.send(run_request::Message::Blob(BlobChunk { offset: 0, data, encoding: encoding.into() })).await;
        raw.refusal().await.0
    })
}

/// What the agent says to a program of this size, of which no byte exists.
pub fn refusal_of_a_program_of(router: &VirtualRouter, size: u64) -> String {
    block_on(async {
        let first = run_request::Message::Spec(spec(vec![7; 32], size));
        match Raw::start(router, first).await {
            Err(error) => refused(error).1,
            Ok(raw) => raw.refusal().await.1,
        }
    })
}

fn wrong_digest_runs_nothing(target: Target) {
    let router = VirtualRouter::start(target);
    block_on(async {
        let first = run_request::Message::Spec(spec(sha256(b"announced"), 9));
        let raw = Raw::start(&router, first).await.unwrap();
        raw.send(chunk(0, b"delivered")).await;
        assert_eq!(raw.refusal().await.0, Reason::DigestMismatch);
    });
    router.wait_until_idle();
    router.assert_serves_on();
}

/// How a job with this content and specification ends.
fn ending_of(router: &VirtualRouter, content: &[u8], spec: JobSpec) -> Ending {
    block_on(async {
        let mut raw = Raw::start(router, run_request::Message::Spec(spec)).await.unwrap();
        if raw.is_asked_for_the_program().await {
            raw.send(chunk(0, content)).await;
        }
        loop {
            if let Some(run_reply::Message::Outcome(outcome)) = raw.next().await.unwrap() {
                return outcome.ending.unwrap();
            }
        }
    })
}

fn argument_too_long_is_an_outcome(target: Target) {
    let router = VirtualRouter::start(target);
    let content = b"#!/bin/true\n";
    // MAX_ARG_STRLEN is 128 KiB (execve(2)). No shell could give it to hop, but a program that calls hop's library can. A mark
    // becomes the path of the job's directory.
    const MARK: &[u8] = b"@a-mark-of-jobs@";
    let long = vec![vec![b'x'; 200_000]];
    let grows = vec![MARK.repeat(100_000 / MARK.len())];
    let many = vec![MARK.repeat(1_000); 120];
    for (args, what) in [(long, "200000 bytes"), (grows, "an argument"), (many, "with the environment")] {
        let directory_mark = MARK.to_vec();
        let spec = JobSpec { args, directory_mark, ..spec(sha256(content), content.len() as u64) };
        match ending_of(&router, content, spec) {
            Ending::NotExecuted(refused) => {
                let reason = refused.reason;
                assert!(reason.contains("argument list too long") && reason.contains(what), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    router.assert_serves_on();
}

fn lists_large_once_decoded_are_refused(target: Target) {
    let router = VirtualRouter::start(target);
    let full = || spec(vec![7; 32], 9);
    for (spec, rule) in [
        (JobSpec { inputs: vec![InputTree::default(); 900_000], ..full() }, "more than 4 trees"),
        (JobSpec { args: vec![Vec::new(); 900_000], ..full() }, "more than 16,384 arguments"),
        (JobSpec { directory_mark: b"a".to_vec(), ..full() }, "the mark of the job's directory"),
    ] {
        let (reason, message) = block_on(async {
            match Raw::start(&router, run_request::Message::Spec(spec)).await {
                Err(error) => refused(error),
                Ok(raw) => raw.refusal().await,
            }
        });
        assert!(reason == Reason::Protocol && message.contains(rule), "{message}");
    }
    router.assert_serves_on();
}

fn unexecutable_content_is_an_outcome(target: Target) {
    let router = VirtualRouter::start(target);
    let content = b"neither ELF nor script";
    match ending_of(&router, content, spec(sha256(content), content.len() as u64)) {
        Ending::NotExecuted(refused) => {
            assert!(refused.reason.contains("Exec format error"), "{}", refused.reason)
        }
        other => panic!("{other:?}"),
    }
    router.assert_serves_on();
}

/// The pieces of output that a script gives which writes a lot of text, as they come for who says this first; and all of it.
fn pieces_of_output(router: &VirtualRouter, first: run_request::Message) -> Vec<Output> {
    block_on(async {
        let attaches = matches!(first, run_request::Message::Attach(_));
        let mut raw = Raw::start(router, first).await.unwrap();
        if raw.is_asked_for_the_program().await {
            raw.send(chunk(0, TALKATIVE)).await;
        }
        let mut pieces = Vec::new();
        loop {
            match raw.next().await.unwrap() {
                Some(run_reply::Message::Output(piece)) => pieces.push(piece),
                Some(run_reply::Message::Outcome(_)) => {
                    if attaches {
                        raw.send(run_request::Message::Release(Release {})).await;
                    }
                    return pieces;
                }
                _ => {}
            }
        }
    })
}

/// Writes 36,864 bytes, in pieces that are long enough to be packed.
const TALKATIVE: &[u8] = b"#!/bin/sh\nline='all is well, and nothing to be seen\n'\nfor double in 1 2 3 4 5 6; do line=$line$line; done\nfor a in 1 2 3 4; do\nfor b in 1 2 3 4; do\nprintf %s \"$line\"\ndone; done\n";

fn output_is_compressed_only_on_request(target: Target) {
    let router = VirtualRouter::start(target);
    for (runs_packed, attaches_packed) in [(false, true), (true, false)] {
        let id = if runs_packed { "packed" } else { "plain" };
        let first = JobSpec {
            job_id: id.into(),
            linger_ms: 60_000,
            output_window: 1 << 20,
            pack_outputs: runs_packed,
            ..spec(sha256(TALKATIVE), TALKATIVE.len() as u64)
        };
        let ran = pieces_of_output(&router, run_request::Message::Spec(first));
        // Another controller, of another age, has all of it once more.
        let attach = Attach { job_id: id.into(), pack_outputs: attaches_packed, ..Attach::default() };
        let attached = pieces_of_output(&router, run_request::Message::Attach(attach));
        for (pieces, packs) in [(ran, runs_packed), (attached, attaches_packed)] {
            let is_packed = |piece: &Output| piece.unpacked_size > 0;
            assert_eq!(pieces.iter().any(is_packed), packs);
            let mut all = Vec::new();
            for piece in pieces {
                assert_eq!(piece.offset, all.len() as u64, "offsets count what is unpacked");
                all.extend_from_slice(&packing::unpack(piece.data, piece.unpacked_size).unwrap());
            }
            assert!(all == b"all is well, and nothing to be seen\n".repeat(1024));
        }
    }
    router.assert_serves_on();
}

fn message_over_the_limit_is_refused(target: Target) {
    let router = VirtualRouter::start(target);
    block_on(async {
        let large = JobSpec { args: vec![vec![b'x'; 3 << 20]], ..spec(vec![7; 32], 1) };
        match Raw::start(&router, run_request::Message::Spec(large)).await {
            Err(error) => assert_eq!(
                refused(error),
                (Reason::Protocol, "protocol: the first message of a run is larger than 2 MiB".into())
            ),
            Ok(_) => panic!("3 MiB in one message"),
        }
        let raw = Raw::start(&router, run_request::Message::Spec(spec(vec![7; 32], 4 << 20))).await.unwrap();
        raw.send(chunk(0, &vec![0; MAX_MESSAGE_BYTES])).await;
        let (reason, why) = raw.refusal().await;
        assert_eq!((reason, &*why), (Reason::Protocol, "protocol: a message is larger than 64 KiB"));
    });
    router.wait_until_idle();
    router.assert_serves_on();
}

fn unfinished_upload_leaves_nothing(target: Target) {
    let router = VirtualRouter::start(target);
    block_on(async {
        let first = run_request::Message::Spec(spec(vec![7; 32], 1_000_000));
        let mut raw = Raw::start(&router, first).await.unwrap();
        assert!(matches!(raw.next().await, Ok(Some(run_reply::Message::Accepted(_)))));
        raw.send(chunk(0, &[0; 1000])).await;
    });
    router.wait_until_idle();
    router.assert_serves_on();
}

fn rules_broken_before_start_are_refused(target: Target) {
    let router = VirtualRouter::start(target);
    let unready = [
        run_request::Message::Spec(spec(vec![7; 32], 10)),
        run_request::Message::Stdin(Stdin::default()),
        run_request::Message::OutputAck(OutputAck { stream: Stream::Stdout.into(), ..OutputAck::default() }),
        run_request::Message::Signal(Signal { name: "STOP".into(), number: 0 }),
        chunk(1, b"from elsewhere"),
        chunk(0, b"more than was announced"),
    ];
    block_on(async {
        for message in unready {
            let first = run_request::Message::Spec(spec(vec![7; 32], 10));
            let raw = Raw::start(&router, first).await.unwrap();
            raw.send(message.clone()).await;
            assert_eq!(raw.refusal().await.0, Reason::Protocol, "{message:?}");
        }
        match Raw::start(&router, chunk(0, b"no specification")).await {
            Err(error) => assert_eq!(refused(error).0, Reason::Protocol),
            Ok(_) => panic!("a run without a specification"),
        }
    });
    router.wait_until_idle();
    router.assert_serves_on();
}

fn rules_broken_after_start_end_it(target: Target) {
    let router = VirtualRouter::start(target);
    let program = std::fs::read(hop_tests::fixture(target, "wait")).unwrap();
    let broken = [
        chunk(0, b"the program is complete"),
        run_request::Message::Stdin(Stdin { offset: 7, ..Stdin::default() }),
        run_request::Message::Stdin(Stdin { data: vec![0; 1 << 20].into(), ..Stdin::default() }),
        run_request::Message::OutputAck(OutputAck::default()),
        run_request::Message::Signal(Signal { name: "9".into(), number: 0 }),
    ];
    block_on(async {
        for message in broken {
            let first = run_request::Message::Spec(spec(sha256(&program), program.len() as u64));
            let mut raw = Raw::start(&router, first).await.unwrap();
            // The agent may have it from the time before.
            if raw.is_asked_for_the_program().await {
                for (index, piece) in program.chunks(BLOB_CHUNK_BYTES).enumerate() {
                    raw.send(chunk((index * BLOB_CHUNK_BYTES) as u64, piece)).await;
                }
            }
            while !matches!(raw.next().await.unwrap(), Some(run_reply::Message::Output(_))) {}
            raw.send(message.clone()).await;
            assert_eq!(raw.refusal().await.0, Reason::Protocol);
        }
    });
    router.wait_until_idle();
    router.assert_serves_on();
}
