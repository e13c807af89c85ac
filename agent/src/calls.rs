//! The calls that are under way on a connection, and when its peer is asked whether it is still there.
//!
//! What must stay true: while a call is under way, a dead link is noticed as early as [`KEEPALIVE_INTERVAL`] and
//! [`KEEPALIVE_TIMEOUT`] say. While none is, there is only a place to be freed, and both are [`KEEPALIVE_LEISURE`] longer:
//! each question costs the router 0.2 ms of its CPU, and an idle connection would ask 720 times an hour.
//!
//! hyper asks, and knows one interval. But it leaves the sleeping to a timer, and the running of a call to an executor: this
//! is both.
//!
//! [`KEEPALIVE_INTERVAL`]: hop_proto::limits::KEEPALIVE_INTERVAL
//! [`KEEPALIVE_TIMEOUT`]: hop_proto::limits::KEEPALIVE_TIMEOUT

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hop_proto::limits::KEEPALIVE_LEISURE;
use hyper::rt::{Executor, Sleep, Timer};
use tokio::time;

/// Those of one connection. Each that is under way has a weak reference.
#[derive(Clone, Default)]
pub struct Calls(Arc<()>);

impl Calls {
    fn are_under_way(&self) -> bool {
        Arc::weak_count(&self.0) > 0
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Calls {
    /// Runs a call: its future ends when the answer is written, or the controller has gone.
    fn execute(&self, call: F) {
        let under_way = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            call.await;
            drop(under_way);
        });
    }
}

/// It is hyper's for nothing but the questions.
impl Timer for Calls {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let deadline = deadline.into();
        Box::pin(Wait { calls: self.clone(), deadline, sleep: Box::pin(time::sleep_until(deadline)) })
    }

    fn now(&self) -> Instant {
        time::Instant::now().into_std()
    }
}

/// A sleep that is longer while no call is under way. hyper polls it after each call that comes; when the last one goes, it
/// finds out when it would be over.
struct Wait {
    calls: Calls,
    deadline: time::Instant,
    sleep: Pin<Box<time::Sleep>>,
}

impl Sleep for Wait {}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let leisure = if self.calls.are_under_way() { Duration::ZERO } else { KEEPALIVE_LEISURE };
        let until = self.deadline + leisure;
        if self.sleep.deadline() != until {
            self.sleep.as_mut().reset(until);
        }
        self.sleep.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;

    use hop_proto::limits::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
    use hyper::body::Incoming;
    use hyper::server::conn::http2;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tonic::body::Body;

    use super::*;

    /// What a controller says first, its settings included.
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    /// A call, whose request does not end, nor does its answer: POST, /, https.
    const CALL: &[u8] = b"\0\0\x03\x01\x04\0\0\0\x01\x83\x84\x87";
    /// Its end: CANCEL.
    const RESET: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08";

    /// A controller that says what a test wants it to say, and nothing else.
    struct Controller {
        stream: DuplexStream,
        since: time::Instant,
    }

    impl Controller {
        async fn connect() -> Self {
            let (ours, mut stream) = tokio::io::duplex(64 * 1024);
            let calls = Calls::default();
            let service = service_fn(async |_: Request<Incoming>| {
                std::future::pending::<Result<Response<Body>, Infallible>>().await
            });
            tokio::spawn(
                http2::Builder::new(calls.clone())
                    .timer(calls)
                    .keep_alive_interval(KEEPALIVE_INTERVAL)
                    .keep_alive_timeout(KEEPALIVE_TIMEOUT)
                    .serve_connection(TokioIo::new(ours), service),
            );
            stream.write_all(PREFACE).await.unwrap();
            Self { stream, since: time::Instant::now() }
        }

        async fn says(&mut self, second: u64, what: &[u8]) {
            time::sleep_until(self.since + Duration::from_secs(second)).await;
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
        assert_eq!(controller.end().await, 25);
    }

    #[tokio::test(start_paused = true)]
    async fn when_its_last_call_has_ended_there_is_time_again() {
        let mut controller = Controller::connect().await;
        controller.says(1, CALL).await;
        controller.says(3, RESET).await;
        assert_eq!(controller.question().await.0, 21);
    }
}
