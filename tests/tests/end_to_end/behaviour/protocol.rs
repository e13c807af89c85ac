//! The agent tells a controller which rule of the protocol it has broken, and takes no harm.

use super::Behaviour;
use hop::client::Error;
use hop::client::connection::Connection;
use hop::config::home::Home;
use hop::transfer::encode;
use hop_proto::limits::{BLOB_CHUNK_BYTES, MAX_MESSAGE_BYTES};
use hop_proto::v1::outcome::Ending;
use hop_proto::v1::{
    Attach, Blob, BlobChunk, Detach, Discard, Encoding, ErrorReason, InputArchive, JobSpec, Output,
    OutputAck, RunRequest, RunResponse, Signal, SignalJobRequest, Stdin, Stream, run_request, run_response,
};
use hop_tests::{TIMEOUT, Target, VirtualRouter, wait_until};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};
use tonic_types::StatusExt;

pub const ALL: &[Behaviour] = &behaviours! {
    Everywhere:
        argument_too_long_is_an_outcome,
        unexecutable_content_is_an_outcome;
    Portable:
        wrong_digest_runs_nothing,
        oversized_decoded_lists_are_refused,
        output_is_compressed_only_on_request,
        message_over_the_limit_is_refused,
        unfinished_upload_leaves_nothing,
        rules_broken_before_start_are_refused,
        rules_broken_after_start_kill_job,
        half_close_ends_stdin,
        detach_and_reset_keep_stdin_open,
        every_grpc_client_reads_refusals;
};

/// A controller made of nothing but messages.
struct Raw {
    connection: Connection,
    requests: mpsc::Sender<RunRequest>,
    replies: Streaming<RunResponse>,
}

impl Raw {
    /// Starts a run with `first`, or attaches to one.
    async fn start(router: &VirtualRouter, first: run_request::Message) -> Result<Self, Error> {
        let identity = router.home().identity().unwrap();
        let (mut connection, _) = Connection::open(&router.entry(), &identity, TIMEOUT).await?;
        let (requests, outgoing) = mpsc::channel(16);
        requests.send(RunRequest { message: Some(first) }).await.unwrap();
        let (client, outgoing) = (connection.client(), ReceiverStream::new(outgoing));
        match client.run(outgoing).await {
            Ok(replies) => Ok(Self { connection, requests, replies: replies.into_inner() }),
            Err(status) => Err(connection.explain(status).await),
        }
    }

    async fn send(&self, message: run_request::Message) {
        self.requests.send(RunRequest { message: Some(message) }).await.unwrap();
    }

    async fn next(&mut self) -> Result<Option<run_response::Message>, Error> {
        match tokio::time::timeout(TIMEOUT, self.replies.message()).await.unwrap() {
            Ok(reply) => Ok(reply.and_then(|reply| reply.message)),
            Err(status) => Err(self.connection.explain(status).await),
        }
    }

    /// Reads the first answer, which must be that the job is accepted. True if the program is to be sent.
    async fn is_asked_for_the_program(&mut self) -> bool {
        match self.next().await.unwrap() {
            Some(run_response::Message::Accepted(accepted)) => !accepted.missing_blobs.is_empty(),
            other => panic!("{other:?}"),
        }
    }

    /// Reads up to the end, which must be a refusal.
    async fn refusal(mut self) -> (ErrorReason, String) {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a refusal"),
                Err(error) => return refused(error),
            }
        }
    }
}

fn refused(error: Error) -> (ErrorReason, String) {
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
    run_request::Message::Blob(BlobChunk {
        offset,
        data: data.to_vec().into(),
        encoding: Encoding::Identity.into(),
    })
}

/// Why a program of some length is refused that comes as `content` in an encoding.
pub fn refusal_of_content(router: &VirtualRouter, encoding: Encoding, content: &[u8]) -> ErrorReason {
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
        assert_eq!(raw.refusal().await.0, ErrorReason::DigestMismatch);
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
            if let Some(run_response::Message::Outcome(outcome)) = raw.next().await.unwrap() {
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
        let workdir_placeholder = MARK.to_vec();
        let spec = JobSpec { args, workdir_placeholder, ..spec(sha256(content), content.len() as u64) };
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

fn oversized_decoded_lists_are_refused(target: Target) {
    let router = VirtualRouter::start(target);
    let full = || spec(vec![7; 32], 9);
    for (spec, rule) in [
        (JobSpec { inputs: vec![InputArchive::default(); 900_000], ..full() }, "more than 4 trees"),
        (JobSpec { args: vec![Vec::new(); 900_000], ..full() }, "more than 16,384 arguments"),
        (JobSpec { workdir_placeholder: b"a".to_vec(), ..full() }, "the placeholder of the job's directory"),
    ] {
        let (reason, message) = block_on(async {
            match Raw::start(&router, run_request::Message::Spec(spec)).await {
                Err(error) => refused(error),
                Ok(raw) => raw.refusal().await,
            }
        });
        assert!(reason == ErrorReason::Protocol && message.contains(rule), "{message}");
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
                Some(run_response::Message::Output(piece)) => pieces.push(piece),
                Some(run_response::Message::Outcome(_)) => {
                    if attaches {
                        raw.send(run_request::Message::Discard(Discard {})).await;
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
            disconnect_timeout_ms: 60_000,
            output_window: 1 << 20,
            accept_compressed_output: runs_packed,
            ..spec(sha256(TALKATIVE), TALKATIVE.len() as u64)
        };
        let ran = pieces_of_output(&router, run_request::Message::Spec(first));
        // Another controller, of another age, has all of it once more.
        let attach =
            Attach { job_id: id.into(), accept_compressed_output: attaches_packed, ..Attach::default() };
        let attached = pieces_of_output(&router, run_request::Message::Attach(attach));
        for (pieces, packs) in [(ran, runs_packed), (attached, attaches_packed)] {
            let is_packed = |piece: &Output| piece.uncompressed_size > 0;
            assert_eq!(pieces.iter().any(is_packed), packs);
            let mut all = Vec::new();
            for piece in pieces {
                assert_eq!(piece.offset, all.len() as u64, "offsets count what is unpacked");
                all.extend_from_slice(&encode::decompress(piece.data, piece.uncompressed_size).unwrap());
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
                (ErrorReason::Protocol, "protocol: the first message of a run is larger than 2 MiB".into())
            ),
            Ok(_) => panic!("3 MiB in one message"),
        }
        let raw = Raw::start(&router, run_request::Message::Spec(spec(vec![7; 32], 4 << 20))).await.unwrap();
        raw.send(chunk(0, &vec![0; MAX_MESSAGE_BYTES])).await;
        let (reason, why) = raw.refusal().await;
        assert_eq!((reason, &*why), (ErrorReason::Protocol, "protocol: a message is larger than 64 KiB"));
    });
    router.wait_until_idle();
    router.assert_serves_on();
}

fn unfinished_upload_leaves_nothing(target: Target) {
    let router = VirtualRouter::start(target);
    block_on(async {
        let first = run_request::Message::Spec(spec(vec![7; 32], 1_000_000));
        let mut raw = Raw::start(&router, first).await.unwrap();
        assert!(matches!(raw.next().await, Ok(Some(run_response::Message::Accepted(_)))));
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
            assert_eq!(raw.refusal().await.0, ErrorReason::Protocol, "{message:?}");
        }
        match Raw::start(&router, chunk(0, b"no specification")).await {
            Err(error) => assert_eq!(refused(error).0, ErrorReason::Protocol),
            Ok(_) => panic!("a run without a specification"),
        }
    });
    router.wait_until_idle();
    router.assert_serves_on();
}

fn rules_broken_after_start_kill_job(target: Target) {
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
            while !matches!(raw.next().await.unwrap(), Some(run_response::Message::Output(_))) {}
            raw.send(message.clone()).await;
            assert_eq!(raw.refusal().await.0, ErrorReason::Protocol);
        }
    });
    router.wait_until_idle();
    router.assert_serves_on();
}

/// A script that writes its input, and then that this has ended.
const COPIES_INPUT: &[u8] = b"#!/bin/sh\ncat\necho end\n";

impl Raw {
    /// Runs a script as `id`, whose job is kept for a minute, until it has started.
    async fn run(router: &VirtualRouter, id: &str, script: &[u8]) -> Self {
        let spec = JobSpec {
            job_id: id.into(),
            disconnect_timeout_ms: 60_000,
            ..spec(sha256(script), script.len() as u64)
        };
        let mut raw = Self::start(router, run_request::Message::Spec(spec)).await.unwrap();
        if raw.is_asked_for_the_program().await {
            raw.send(chunk(0, script)).await;
        }
        while !matches!(raw.next().await.unwrap(), Some(run_response::Message::Started(_))) {}
        raw
    }

    /// Half-closes the stream, and gives all that comes on it: the outputs, and the exit code.
    async fn half_close(self) -> (Vec<u8>, Option<Ending>) {
        let Self { mut replies, requests, connection } = self;
        drop(requests);
        let (mut output, mut ending) = (Vec::new(), None);
        while let Some(reply) = tokio::time::timeout(TIMEOUT, replies.message()).await.unwrap().unwrap() {
            match reply.message {
                Some(run_response::Message::Output(piece)) => output.extend_from_slice(&piece.data),
                Some(run_response::Message::Outcome(outcome)) => ending = outcome.ending,
                _ => {}
            }
        }
        drop(replies);
        // What was sent last may still be on its way.
        connection.close().await;
        (output, ending)
    }
}

fn attach(id: &str) -> run_request::Message {
    run_request::Message::Attach(Attach { job_id: id.into(), ..Attach::default() })
}

fn half_close_ends_stdin(target: Target) {
    let router = VirtualRouter::start(target);
    block_on(async {
        let raw = Raw::run(&router, "a", COPIES_INPUT).await;
        let data = b"in\n".to_vec().into();
        raw.send(run_request::Message::Stdin(Stdin { offset: 0, data, end: false })).await;
        let (output, ending) = raw.half_close().await;
        assert_eq!((&*output, ending), (&b"in\nend\n"[..], Some(Ending::ExitCode(0))));
        // No client has acknowledged the output, so one that attaches gets it; and half-closing may come first.
        let raw = Raw::start(&router, attach("a")).await.unwrap();
        assert_eq!(raw.half_close().await.0, b"in\nend\n");
        let raw = Raw::start(&router, attach("a")).await.unwrap();
        raw.send(run_request::Message::Discard(Discard {})).await;
        raw.half_close().await;
    });
    router.wait_until_forgotten();
    router.assert_serves_on();
}

fn detach_and_reset_keep_stdin_open(target: Target) {
    let router = VirtualRouter::start(target);
    block_on(async {
        let mut raw = Raw::run(&router, "a", COPIES_INPUT).await;
        raw.send(run_request::Message::Detach(Detach::default())).await;
        while raw.next().await.unwrap().is_some() {}
        // Dropping the call resets its stream.
        drop(Raw::start(&router, attach("a")).await.unwrap());
        let mut raw = Raw::start(&router, attach("a")).await.unwrap();
        loop {
            match raw.next().await.unwrap() {
                Some(run_response::Message::Started(_)) => break,
                Some(run_response::Message::StdinAck(ack)) => assert!(!ack.closed, "its input has ended"),
                _ => {}
            }
        }
        let data = b"still open\n".to_vec().into();
        raw.send(run_request::Message::Stdin(Stdin { offset: 0, data, end: false })).await;
        assert_eq!(raw.half_close().await.0, b"still open\nend\n");
        router.hop().args(["kill", "-r", "router", "a"]).run();
    });
    router.assert_serves_on();
}

fn every_grpc_client_reads_refusals(target: Target) {
    let router = VirtualRouter::start(target);
    let other = Home::at(&router.path("other"));
    let keys = [router.home(), other].map(|home| home.identity().unwrap());
    router.write_authorized(&format!("{} me\n{} other\n", keys[0].fingerprint(), keys[1].fingerprint()));
    let too_large = JobSpec { job_id: "b".into(), ..spec(vec![7; 32], 1 << 40) };
    let taken = JobSpec { job_id: "a".into(), ..spec(vec![7; 32], 1) };
    let user = JobSpec { user: "nobody-of-this-name".into(), ..spec(vec![7; 32], 1) };
    let broken = JobSpec { name: "..".into(), ..spec(vec![7; 32], 1) };
    let run = |spec| run_request::Message::Spec(spec);
    block_on(async {
        let _raw = Raw::run(&router, "a", COPIES_INPUT).await;
        for (first, code, reasons) in [
            (run(broken), Code::InvalidArgument, ["PROTOCOL"; 3]),
            (chunk(0, b"no specification"), Code::InvalidArgument, ["PROTOCOL"; 3]),
            (run(taken), Code::AlreadyExists, ["JOB_EXISTS"; 3]),
            (attach("none"), Code::NotFound, ["NO_SUCH_JOB"; 3]),
            (attach("a"), Code::PermissionDenied, ["NOT_YOURS"; 3]),
            (run(user), Code::FailedPrecondition, ["NO_SUCH_USER"; 3]),
            (run(too_large), Code::ResourceExhausted, ["NO_MEMORY", "NO_SPACE", "NO_PROMISE"]),
        ] {
            let opened = Connection::open(&router.entry(), &keys[1], TIMEOUT).await;
            let (mut connection, _) = opened.unwrap();
            let request = tokio_stream::iter([RunRequest { message: Some(first) }]);
            let status = match connection.client().run(request).await {
                Err(status) => status,
                Ok(replies) => replies.into_inner().message().await.unwrap_err(),
            };
            assert_eq!(status.code(), code, "{status}");
            let rich = tonic_types::Status::decode(status.details()).unwrap();
            assert_eq!((rich.code, &*rich.message), (status.code().into(), status.message()));
            let info = status.get_details_error_info().unwrap();
            assert!(reasons.contains(&&*info.reason) && info.domain == "hop.v1", "{info:?}");
            let figures = ["needed", "available"].map(|name| info.metadata.contains_key(name));
            assert_eq!(figures, [status.code() == Code::ResourceExhausted; 2]);
        }
        // A call with one answer.
        let opened = Connection::open(&router.entry(), &keys[1], TIMEOUT).await;
        let (mut connection, _) = opened.unwrap();
        let request = SignalJobRequest { job_id: "a".into(), signal: "9".into() };
        let status = connection.client().signal_job(request).await.unwrap_err();
        assert_eq!(status.get_details_error_info().unwrap().reason, "PROTOCOL");
    });
    router.hop().args(["kill", "-r", "router", "a"]).run();
    wait_until("the job has ended", || router.leftovers().is_empty());
    router.assert_serves_on();
}
