//! A controller whose messages lie: about their length, and about names.

use hop::client::Error;
use hop::client::connection::Connection;
use hop_proto::v1::{Blob, ErrorReason, InputArchive, JobSpec, RunRequest, run_request};
use hop_tests::{TIMEOUT, Target};

use super::attacked_router::AttackedRouter;
use super::client::{DATA, END_HEADERS, END_STREAM, HEADERS, RawClient, block_on, call, frame, message};
use crate::plan::Case;

pub const ALL: &[Case] =
    &cases![announced_messages_take_no_memory, false_lengths_are_refused, path_traversal_is_refused,];

const LARGEST: u32 = 2 << 20;

/// A call that sends `content`, and no more.
fn unfinished(stream: u32, method: &str, content: &[u8]) -> Vec<u8> {
    [frame(HEADERS, END_HEADERS, stream, &call(method)), frame(DATA, 0, stream, content)].concat()
}

fn announced_messages_take_no_memory() {
    let attacked = AttackedRouter::start(Target::Host);
    block_on(async {
        let mut clients = Vec::new();
        for _ in 0..8 {
            let mut client = RawClient::connect(&attacked.router).await;
            for call in 0..16 {
                client.send(&unfinished(2 * call + 1, "Run", &message(LARGEST, &[b'x'; 1000]))).await;
            }
            clients.push(client);
        }
        attacked.assert_unharmed("sixteen calls that announce 2 MiB each");
        for mut client in clients {
            // One of all calls has room.
            client.refusals(15).await;
            client.finish().await;
        }
    });
}

fn false_lengths_are_refused() {
    let attacked = AttackedRouter::start(Target::Host);
    block_on(async {
        for announced in [u32::MAX, LARGEST + 1] {
            let mut client = RawClient::connect(&attacked.router).await;
            client.send(&unfinished(1, "Run", &message(announced, b"x"))).await;
            client.send(&unfinished(3, "SignalJob", &message(64 * 1024 + 1, b"x"))).await;
            client.refusals(2).await;
            client.finish().await;
        }
        // More than the frame says, and less.
        let mut client = RawClient::connect(&attacked.router).await;
        let mut lying = unfinished(1, "Info", &message(0, b""));
        lying.extend_from_slice(&[0, 0x40, 0, DATA, END_STREAM, 0, 0, 0, 1, b'x']);
        client.send(&lying).await;
        client.finish().await;
        // A frame that is longer than any may be (RFC 9113, section 4.2).
        let mut client = RawClient::connect(&attacked.router).await;
        client.send(&frame(DATA, 0, 1, &vec![0; (1 << 14) + 1])).await;
        client.ended().await;
    });
    attacked.assert_unharmed("lengths that lie");
}

/// What the agent says to a job.
async fn refusal(attacked: &AttackedRouter, spec: JobSpec) -> ErrorReason {
    let identity = attacked.router.home().identity().unwrap();
    let (mut connection, _) = Connection::open(&attacked.router.entry(), &identity, TIMEOUT).await.unwrap();
    let first = RunRequest { message: Some(run_request::Message::Spec(spec)) };
    let status = match connection.client().run(tokio_stream::iter([first])).await {
        Err(status) => status,
        Ok(replies) => replies.into_inner().message().await.unwrap_err(),
    };
    match connection.explain(status).await {
        Error::Refused { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

fn path_traversal_is_refused() {
    let attacked = AttackedRouter::start(Target::Host);
    let blob = || Some(Blob { sha256: vec![7; 32], size: 1000, checksum: None });
    let spec = || JobSpec { name: "x".into(), program: blob(), output_window: 1, ..JobSpec::default() };
    let tree = |directory: &str| InputArchive {
        archive: blob(),
        directory: directory.into(),
        ..InputArchive::default()
    };
    block_on(async {
        for path in ["..", "../x", "/etc", "a/../../x", ""] {
            let lying = [
                JobSpec { name: path.into(), ..spec() },
                JobSpec { job_id: format!("{path}/"), ..spec() },
                JobSpec { working_directory: format!("{path}/..").into(), ..spec() },
                JobSpec { output_files: vec![path.into()], ..spec() },
                JobSpec { inputs: vec![tree(path)], ..spec() },
            ];
            for spec in lying {
                assert_eq!(refusal(&attacked, spec.clone()).await, ErrorReason::Protocol, "{spec:?}");
            }
        }
    });
    attacked.assert_unharmed("names");
    assert_eq!(attacked.router.leftovers(), [""; 0]);
}
