//! A controller that floods its connection: frames of HTTP/2 and messages of TLS that are cheap to send and may be dear to
//! take.

use std::time::Duration;

use hop_tests::Target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::attacked_router::AttackedRouter;
use super::client::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, RawClient, SETTINGS, block_on,
    call, frame, preface, reason, secure,
};
use crate::plan::Case;

pub const ALL: &[Case] = &cases![floods_do_not_starve_other_controllers, floods_do_not_starve_on_mips,];

/// How often the key is changed before there is anything else.
const KEYS_AT_ONCE: usize = 50;

/// How long the agent's answers to that are waited for.
const ANSWERS: Duration = Duration::from_millis(1);

/// A call that ends as soon as it has begun (CVE-2023-44487), with each number that a call can have.
fn rapid_resets(count: u32) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(|index| {
        let stream = 2 * index + 1;
        let begin = frame(HEADERS, END_HEADERS | END_STREAM, stream, &call("GetInfo"));
        // Its reason: CANCEL.
        [begin, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    })
}

/// Headers without an end (CVE-2024-27316).
fn endless_headers(count: usize) -> impl Iterator<Item = Vec<u8>> {
    // A header of its own in each frame, which is not put into the table.
    let more = frame(CONTINUATION, 0, 1, &[&b"\0\x01x\x7f\x81\x07"[..], &[b'y'; 1000]].concat());
    std::iter::once(frame(HEADERS, 0, 1, &call("GetInfo"))).chain(std::iter::repeat_n(more, count))
}

/// Pieces of a call in which there is nothing (CVE-2019-9518).
fn empty_data(count: usize) -> impl Iterator<Item = Vec<u8>> {
    let begin = frame(HEADERS, END_HEADERS, 1, &call("Run"));
    std::iter::once(begin).chain(std::iter::repeat_n(frame(DATA, 0, 1, b""), count))
}

/// Settings, each of which is to be acknowledged (CVE-2019-9515): the size of the table of headers, large and small.
fn settings(count: usize) -> impl Iterator<Item = Vec<u8>> {
    let table = |bytes: u32| frame(SETTINGS, 0, 0, &[&[0, 1][..], &bytes.to_be_bytes()].concat());
    (0..count).map(move |index| table(if index % 2 == 0 { 1 << 30 } else { 0 }))
}

/// Questions whether it is there (CVE-2019-9512).
fn pings(count: usize) -> impl Iterator<Item = Vec<u8>> {
    std::iter::repeat_n(frame(PING, 0, 0, &[7; 8]), count)
}

/// Sends a flood, as far as the agent takes it.
async fn flood(attacked: &AttackedRouter, pieces: impl Iterator<Item = Vec<u8>>) {
    RawClient::connect(&attacked.router).await.flood(pieces).await;
}

/// Sends a flood for which the agent ends the connection, and gives the reason that it says.
async fn ending_of(attacked: &AttackedRouter, pieces: impl Iterator<Item = Vec<u8>>) -> Option<u32> {
    let mut client = RawClient::connect(&attacked.router).await;
    client.flood(pieces).await;
    reason(&client.ended().await)
}

/// Floods with `count` frames of each kind.
fn attack(attacked: &AttackedRouter, count: usize) {
    block_on(async {
        let reason = ending_of(attacked, rapid_resets(count as u32)).await;
        // ENHANCE_YOUR_CALM, if it is not overtaken by the end of the connection.
        assert!(matches!(reason, None | Some(11)), "{reason:?}");
        attacked.assert_unharmed("calls that are given up at once");
        ending_of(attacked, endless_headers(count)).await;
        attacked.assert_unharmed("headers without an end");
        flood(attacked, empty_data(count)).await;
        attacked.assert_unharmed("empty pieces");
        flood(attacked, settings(count)).await;
        attacked.assert_unharmed("settings");
        flood(attacked, pings(count)).await;
        attacked.assert_unharmed("pings");
        change_keys(attacked, count).await;
        attacked.assert_unharmed("changes of keys");
    });
}

/// Changes the key of TLS again and again, and asks the agent to do so too (RFC 8446, section 4.6.3).
async fn change_keys(attacked: &AttackedRouter, count: usize) {
    let mut stream = secure(&attacked.router).await;
    stream.write_all(&preface()).await.unwrap();
    for _ in 0..count / KEYS_AT_ONCE {
        for _ in 0..KEYS_AT_ONCE {
            stream.get_mut().1.refresh_traffic_keys().unwrap();
        }
        if stream.write_all(&frame(PING, 0, 0, &[7; 8])).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        // What the agent says is read, or neither side could go on.
        let mut answers = [0; 4096];
        let reading = stream.read(&mut answers);
        if matches!(tokio::time::timeout(ANSWERS, reading).await, Ok(Ok(0) | Err(_))) {
            return;
        }
    }
}

fn floods_do_not_starve_other_controllers() {
    attack(&AttackedRouter::start(Target::Host), 20_000);
}

fn floods_do_not_starve_on_mips() {
    attack(&AttackedRouter::start(Target::DIR_505), 2000);
}
