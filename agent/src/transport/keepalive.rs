//! The keepalive timer of hyper's server: when the agent pings an idle peer, and when it closes the connection.
//!
//! **Invariants:** while a call is in progress, the agent detects a dead link within [`KEEPALIVE_INTERVAL`] and
//! [`KEEPALIVE_TIMEOUT`]. Without a call, a dead connection only occupies a slot, and both times are
//! [`KEEPALIVE_LEISURE`] longer: each ping takes the router 0.2 ms of CPU time, and an idle connection would need 720
//! of them per hour. All data that arrives counts as a sign of life, so the agent does not close a slow link on which
//! the answer queues behind other data.
//!
//! hyper sends the PINGs and closes the connection. By itself, it would ping idle connections as often as others, and
//! would accept nothing but the PING's acknowledgement as an answer. So this timer for hyper expires only after such a
//! silence.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hop_proto::limits::{KEEPALIVE_INTERVAL, KEEPALIVE_LEISURE, KEEPALIVE_TIMEOUT};
use hyper::rt;
use tokio::time::{Instant, sleep_until};

// The two are equal, so an `IdleClock` need not know which one hyper waits for.
const _: () = assert!(KEEPALIVE_INTERVAL.as_millis() == KEEPALIVE_TIMEOUT.as_millis());

/// Longest silence of a connection. The peer has not answered a ping, and hyper would wait until it has sent a GOAWAY,
/// which a peer that reads nothing can block.
const LOST_AFTER: Duration = KEEPALIVE_INTERVAL
    .saturating_add(KEEPALIVE_TIMEOUT)
    .saturating_add(KEEPALIVE_LEISURE)
    .saturating_add(KEEPALIVE_LEISURE)
    .saturating_add(Duration::from_secs(1));

/// Bytes of a client's connection preface (RFC 9113, section 3.4), without its settings.
const PREFACE_BYTES: usize = 24;

/// The activity of a connection's peer.
#[derive(Clone)]
pub struct Activity(Arc<Mutex<State>>);

struct State {
    /// When the last data arrived.
    heard: Instant,
    /// Bytes that have arrived, at most [`PREFACE_BYTES`].
    received: usize,
    /// Calls in progress.
    calls: u32,
}

impl Default for Activity {
    /// The activity of a new connection.
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { heard: Instant::now(), received: 0, calls: 0 })))
    }
}

impl Activity {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the arrival of this many bytes.
    pub fn heard(&self, bytes: usize) {
        let mut state = self.state();
        state.heard = Instant::now();
        state.received = state.received.saturating_add(bytes).min(PREFACE_BYTES);
    }

    /// True if the peer has sent its connection preface.
    pub fn has_preface(&self) -> bool {
        self.state().received == PREFACE_BYTES
    }

    /// Counts a call as in progress until the returned value is dropped.
    pub fn call(&self) -> UnderWay {
        self.state().calls += 1;
        UnderWay(self.clone())
    }

    /// Waits until the peer counts as dead, even if hyper cannot send it a GOAWAY. Cancel safe.
    pub async fn lost(&self) {
        loop {
            let until = self.state().heard + LOST_AFTER;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// A call in progress.
pub struct UnderWay(Activity);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.state().calls -= 1;
    }
}

/// The timer that a connection gives to hyper.
pub struct SilenceTimer(pub Activity);

impl rt::Timer for SilenceTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        self.sleep_until((Instant::now() + duration).into_std())
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn rt::Sleep>> {
        let deadline = Instant::from_std(deadline);
        let is_over = deadline <= Instant::now();
        Box::pin(IdleClock {
            activity: self.0.clone(),
            deadline,
            is_over,
            sleep: Box::pin(tokio::time::sleep_until(deadline)),
        })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

/// Completes after `deadline`, and only when nothing has arrived for as long as a peer may be silent.
struct IdleClock {
    activity: Activity,
    deadline: Instant,
    /// The timer has expired. True from the start if `deadline` had passed: hyper has waited already.
    is_over: bool,
    sleep: Pin<Box<tokio::time::Sleep>>,
}

impl IdleClock {
    fn until(&self) -> Instant {
        let state = self.activity.state();
        let leisure = if state.calls > 0 { Duration::ZERO } else { KEEPALIVE_LEISURE };
        self.deadline.max(state.heard + KEEPALIVE_INTERVAL) + leisure
    }
}

impl Future for IdleClock {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.is_over {
            return Poll::Ready(());
        }
        loop {
            // A new call makes the time earlier, and hyper polls this timer after each one. Data makes it later, which
            // the check at expiry takes into account.
            let until = self.until();
            if until < self.sleep.deadline() || self.sleep.is_elapsed() {
                self.sleep.as_mut().reset(until);
            }
            if self.sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if self.until() <= Instant::now() {
                self.is_over = true;
                return Poll::Ready(());
            }
        }
    }
}

impl rt::Sleep for IdleClock {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::transport::http2::serve;
    use crate::transport::http2::tests::{Answer, PREFACE, WINDOWS};

    /// A call whose request and answer do not end: POST, /, https.
    const CALL: &[u8] = b"\0\0\x03\x01\x04\0\0\0\x01\x83\x84\x87";
    /// Resets the call with CANCEL.
    const RESET: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08";

    /// An empty SETTINGS, which changes nothing.
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

    /// A controller that sends only what a test tells it to send.
    struct Controller {
        stream: DuplexStream,
        since: Instant,
    }

    impl Controller {
        async fn connect() -> Self {
            let (ours, mut stream) = tokio::io::duplex(64 * 1024);
            tokio::spawn(serve(ours, Answer::Never, WINDOWS, 16, CancellationToken::new()));
            stream.write_all(PREFACE).await.unwrap();
            Self { stream, since: Instant::now() }
        }

        async fn says(&mut self, second: u64, what: &[u8]) {
            sleep_until(self.since + Duration::from_secs(second)).await;
            self.stream.write_all(what).await.unwrap();
        }

        /// Waits for a ping; returns the second of its arrival, and the answer to it.
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

        /// Waits until the agent closes the connection; returns the second.
        async fn end(mut self) -> u64 {
            self.stream.read_to_end(&mut Vec::new()).await.unwrap();
            self.since.elapsed().as_secs()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_peer_is_pinged_then_dropped() {
        let mut controller = Controller::connect().await;
        assert_eq!(controller.question().await.0, 20);
        assert_eq!(controller.end().await, 40);
    }

    #[tokio::test(start_paused = true)]
    async fn answering_peer_is_pinged_periodically() {
        let mut controller = Controller::connect().await;
        for second in [20, 40, 60] {
            let (asked, answer) = controller.question().await;
            assert_eq!(asked, second);
            controller.says(asked, &answer).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn open_call_shortens_ping_interval() {
        for begin in [0, 3, 7, 12] {
            let mut controller = Controller::connect().await;
            controller.says(begin, CALL).await;
            assert_eq!(controller.question().await.0, begin + 5);
            assert_eq!(controller.end().await, begin + 10);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn new_call_shortens_pending_ping_timeout() {
        let mut controller = Controller::connect().await;
        assert_eq!(controller.question().await.0, 20);
        controller.says(22, CALL).await;
        assert_eq!(controller.end().await, 27, "five seconds after its last sign of life");
    }

    #[tokio::test(start_paused = true)]
    async fn late_answer_behind_other_traffic_keeps_peer() {
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
    async fn end_of_calls_restores_idle_interval() {
        let mut controller = Controller::connect().await;
        controller.says(1, CALL).await;
        controller.says(3, RESET).await;
        assert_eq!(controller.question().await.0, 23);
    }
}
