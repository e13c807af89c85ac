//! When the peer of a connection is asked whether it is still there, and when it is given up.
//!
//! What must stay true: while a call is under way, a dead link is noticed as early as [`KEEPALIVE_INTERVAL`] and
//! [`KEEPALIVE_TIMEOUT`] say. While none is, there is only a place to be freed, and both are [`KEEPALIVE_LEISURE`] longer:
//! each question costs the router 0.2 ms of its CPU, and an idle connection would ask 720 times an hour. Whatever arrives is
//! a sign of life, so a slow link on which the answer comes behind much else is not given up; but nothing arrives while a question
//! cannot be sent.

use std::sync::Arc;
use std::time::Duration;

use h2::{Ping, PingPong};
use hop_proto::limits::{KEEPALIVE_INTERVAL, KEEPALIVE_LEISURE, KEEPALIVE_TIMEOUT};
use tokio::time::{Instant, sleep_until};

use crate::board::Board;

/// What is known of a peer's life, on the connection's side.
pub struct Signs(Board<State>);

struct State {
    /// When something arrived last.
    heard: Instant,
    /// Calls that are under way.
    calls: u32,
}

impl Default for Signs {
    /// Those of a connection that begins.
    fn default() -> Self {
        Self(Board::new(State { heard: Instant::now(), calls: 0 }))
    }
}

impl Signs {
    /// Something has arrived.
    pub fn heard(&self) {
        // Who waits for silence wakes by itself, and finds that it has to wait longer.
        self.0.look(|state| state.heard = Instant::now());
    }

    /// A call is under way as long as what this gives lives.
    pub fn call(self: &Arc<Self>) -> UnderWay {
        self.0.change(|state| state.calls += 1);
        UnderWay(self.clone())
    }

    /// Waits until nothing has arrived for `limit` since `begin`, or longer if no call is under way. Cancel safe.
    async fn silent(&self, begin: Instant, limit: Duration) {
        loop {
            let (heard, calls) = self.0.look(|state| (state.heard, state.calls));
            let leisure = if calls > 0 { Duration::ZERO } else { KEEPALIVE_LEISURE };
            let until = heard.max(begin) + limit + leisure;
            if until <= Instant::now() {
                return;
            }
            tokio::select! {
                () = sleep_until(until) => {}
                () = self.0.until(|state| state.calls != calls) => {}
            }
        }
    }
}

/// A call.
pub struct UnderWay(Arc<Signs>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.change(|state| state.calls -= 1);
    }
}

/// Asks a silent peer, again and again, until it does not answer. An end of the connection does not end this.
pub async fn lost(mut pings: PingPong, signs: &Signs) {
    loop {
        signs.silent(Instant::now(), KEEPALIVE_INTERVAL).await;
        tokio::select! {
            answer = pings.ping(Ping::opaque()) => if answer.is_err() {
                std::future::pending::<()>().await;
            },
            () = signs.silent(Instant::now(), KEEPALIVE_TIMEOUT) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::http2::serve;
    use crate::http2::tests::{Answer, PREFACE, WINDOWS};

    /// A call, whose request does not end, nor does its answer: POST, /, https.
    const CALL: &[u8] = b"\0\0\x03\x01\x04\0\0\0\x01\x83\x84\x87";
    /// Its end: CANCEL.
    const RESET: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08";

    /// What does no harm: an empty SETTINGS.
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

    /// A controller that says what a test wants it to say, and nothing else.
    struct Controller {
        stream: DuplexStream,
        since: Instant,
    }

    impl Controller {
        async fn connect() -> Self {
            let (ours, mut stream) = tokio::io::duplex(64 * 1024);
            tokio::spawn(serve(ours, Answer::Never, WINDOWS, 16, Arc::default()));
            stream.write_all(PREFACE).await.unwrap();
            Self { stream, since: Instant::now() }
        }

        async fn says(&mut self, second: u64, what: &[u8]) {
            sleep_until(self.since + Duration::from_secs(second)).await;
            self.stream.write_all(what).await.unwrap();
        }

        /// The second in which it is asked, and how to answer.
        async fn question(&mut self) -> (u64, Vec<u8>) {
            loop {
                let mut head = [0; 9];
                self.stream.read_exact(&mut head).await.unwrap();
                let mut content = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
                self.stream.read_exact(&mut content).await.unwrap();
                if (head[3], head[4]) == (6, 0) {
                    head[4] = 1;
                    return (self.since.elapsed().as_secs(), [&head, &*content].concat());
                }
            }
        }

        /// The second in which it is given up.
        async fn end(mut self) -> u64 {
            self.stream.read_to_end(&mut Vec::new()).await.unwrap();
            self.since.elapsed().as_secs()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_without_calls_is_asked_after_twenty_seconds_and_given_up_after_forty() {
        let mut controller = Controller::connect().await;
        assert_eq!(controller.question().await.0, 20);
        assert_eq!(controller.end().await, 40);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_answers_is_asked_again_and_again() {
        let mut controller = Controller::connect().await;
        for second in [20, 40, 60] {
            let (asked, answer) = controller.question().await;
            assert_eq!(asked, second);
            controller.says(asked, &answer).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_with_a_call_is_asked_after_five_seconds_and_given_up_after_ten() {
        for begin in [0, 3, 7, 12] {
            let mut controller = Controller::connect().await;
            controller.says(begin, CALL).await;
            assert_eq!(controller.question().await.0, begin + 5);
            assert_eq!(controller.end().await, begin + 10);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_begins_while_an_answer_is_due_makes_it_urgent() {
        let mut controller = Controller::connect().await;
        assert_eq!(controller.question().await.0, 20);
        controller.says(22, CALL).await;
        assert_eq!(controller.end().await, 27, "five seconds after its last sign of life");
    }

    #[tokio::test(start_paused = true)]
    async fn one_whose_answer_comes_behind_much_else_is_not_given_up() {
        let mut controller = Controller::connect().await;
        controller.says(0, CALL).await;
        let (asked, answer) = controller.question().await;
        assert_eq!(asked, 5);
        for second in [9, 13, 17] {
            controller.says(second, SETTINGS).await;
        }
        controller.says(21, &answer).await;
        assert_eq!(controller.question().await.0, 26);
    }

    #[tokio::test(start_paused = true)]
    async fn when_its_last_call_has_ended_there_is_time_again() {
        let mut controller = Controller::connect().await;
        controller.says(1, CALL).await;
        controller.says(3, RESET).await;
        assert_eq!(controller.question().await.0, 23);
    }
}
