//! Limits the size of messages, and the memory of messages that have not arrived as a whole.
//!
//! **Invariants:** incomplete messages of all connections together take at most [`MAX_RECEIVE_BYTES`]; each connection
//! has [`CONNECTION_SHARE_BYTES`] of that for itself, regardless of the others; and a message without memory is refused
//! as soon as its length is known, before a buffer is allocated.
//!
//! A [`MessageMeter`] reads the message headers in the bytes of a call (`doc/PROTOCOL-HTTP2.md` of gRPC). tonic keeps
//! the buffer of the largest message until the call's requests end, and so the memory of a large message stays reserved
//! here until then.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hop_proto::limits::{MAX_MESSAGE_BYTES, MAX_SPEC_BYTES};

use crate::job::error::Error;
use crate::service::bounds::UNDECODABLE;

/// Maximum number of simultaneous connections of authorized controllers. Each takes up to 400 kB for HTTP/2 windows and
/// TLS buffers while it carries data, and for incomplete messages what this module allows.
pub const MAX_CONNECTIONS: u32 = 16;

/// Maximum size of all incomplete messages together: a sixteenth of the RAM of a router with 64 MB.
pub const MAX_RECEIVE_BYTES: usize = 4 * 1024 * 1024;

/// Memory that each connection has for itself: two messages of the usual maximum size. A controller with one job sends
/// at most one at a time.
const CONNECTION_SHARE_BYTES: usize = 2 * MAX_MESSAGE_BYTES;

/// Memory that all connections share, for specifications with many arguments and for jobs that share a connection.
const COMMON_BYTES: usize = MAX_RECEIVE_BYTES - MAX_CONNECTIONS as usize * CONNECTION_SHARE_BYTES;

// One specification of the maximum size always fits, however the connections use their own shares.
const _: () = assert!(COMMON_BYTES + CONNECTION_SHARE_BYTES >= MAX_SPEC_BYTES);

/// Size of the header of each message: a compression flag, and the length.
const HEADER_BYTES: usize = 5;

/// The shared receive memory of all connections.
pub struct ReceiveBudget(Mutex<usize>);

impl Default for ReceiveBudget {
    /// A budget of which nothing is reserved.
    fn default() -> Self {
        Self(Mutex::new(COMMON_BYTES))
    }
}

impl ReceiveBudget {
    fn common(&self) -> MutexGuard<'_, usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The receive memory of one connection: its own share, and access to the common part.
pub struct ConnectionBudget {
    all: Arc<ReceiveBudget>,
    own: Mutex<usize>,
}

impl ConnectionBudget {
    /// The budget of a new connection. At most [`MAX_CONNECTIONS`] may receive messages at a time.
    pub fn new(all: Arc<ReceiveBudget>) -> Self {
        Self { all, own: Mutex::new(CONNECTION_SHARE_BYTES) }
    }

    fn own(&self) -> MutexGuard<'_, usize> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves memory for a message, first of the connection's own share.
    fn reserve(self: &Arc<Self>, bytes: usize) -> Result<Reservation, Error> {
        let (mut own, mut common) = (self.own(), self.all.common());
        let of_own = bytes.min(*own);
        let of_common = bytes - of_own;
        if of_common > *common {
            return Err(Error::NoReceiveMemory { needed: bytes as u64, available: (*own + *common) as u64 });
        }
        *own -= of_own;
        *common -= of_common;
        Ok(Reservation { budget: self.clone(), of_own, of_common })
    }
}

/// The reserved memory of a message, which is released on drop.
struct Reservation {
    budget: Arc<ConnectionBudget>,
    of_own: usize,
    of_common: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        *self.budget.own() += self.of_own;
        *self.budget.all.common() += self.of_common;
    }
}

/// Measures the messages of one call as they arrive.
pub struct MessageMeter {
    budget: Arc<ConnectionBudget>,
    /// Maximum size of the next message.
    limit: usize,
    /// The header of the next message, as far as it has arrived.
    header: [u8; HEADER_BYTES],
    header_length: usize,
    /// Bytes of the current message that have not arrived, and the memory reserved for it.
    missing: usize,
    held: Option<Reservation>,
    /// The memory of a first message larger than [`MAX_MESSAGE_BYTES`], reserved until the call's requests end.
    kept: Option<Reservation>,
    /// True once a message has begun.
    has_message: bool,
}

impl MessageMeter {
    /// A meter for a call whose first message may have `first` bytes, and every other [`MAX_MESSAGE_BYTES`].
    pub fn new(budget: Arc<ConnectionBudget>, first: usize) -> Self {
        Self {
            budget,
            limit: first,
            header: [0; HEADER_BYTES],
            header_length: 0,
            missing: 0,
            held: None,
            kept: None,
            has_message: false,
        }
    }

    /// Measures the next piece of the call.
    ///
    /// # Errors
    /// A message in it is compressed or too long, or there is no memory for it.
    pub fn measure(&mut self, mut piece: &[u8]) -> Result<(), Error> {
        while !piece.is_empty() {
            if self.missing == 0 {
                let taken = piece.len().min(HEADER_BYTES - self.header_length);
                self.header[self.header_length..][..taken].copy_from_slice(&piece[..taken]);
                self.header_length += taken;
                piece = &piece[taken..];
                if self.header_length == HEADER_BYTES {
                    self.begin()?;
                }
            } else {
                let taken = piece.len().min(self.missing);
                self.missing -= taken;
                piece = &piece[taken..];
                if self.missing == 0 {
                    self.held = None;
                }
            }
        }
        Ok(())
    }

    /// Checks that the call may end here.
    ///
    /// # Errors
    /// The call ends within a message, or before the first.
    pub fn end(&self) -> Result<(), Error> {
        match self {
            Self { has_message: false, header_length: 0, .. } => {
                Err(Error::Protocol("a call without a message"))
            }
            Self { missing: 0, header_length: 0, .. } => Ok(()),
            _ => Err(UNDECODABLE),
        }
    }

    /// Begins a message whose header has arrived.
    fn begin(&mut self) -> Result<(), Error> {
        let [compressed, length @ ..] = self.header;
        if compressed != 0 {
            return Err(UNDECODABLE);
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > self.limit {
            return Err(Error::Protocol(if self.limit > MAX_MESSAGE_BYTES {
                "the first message of a run is larger than 2 MiB"
            } else {
                "a message is larger than 64 KiB"
            }));
        }
        (self.header_length, self.missing, self.limit) = (0, length, MAX_MESSAGE_BYTES);
        self.has_message = true;
        if length > MAX_MESSAGE_BYTES {
            self.kept = Some(self.budget.reserve(length)?);
        } else if length > 0 {
            self.held = Some(self.budget.reserve(length)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn header(length: usize) -> [u8; HEADER_BYTES] {
        let [a, b, c, d] = (length as u32).to_be_bytes();
        [0, a, b, c, d]
    }

    fn refusal(result: Result<(), Error>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn only_the_first_message_may_be_large() {
        let budget = Arc::new(ConnectionBudget::new(Arc::default()));
        let meter = |first| MessageMeter::new(budget.clone(), first);
        let mut run = meter(MAX_SPEC_BYTES);
        run.measure(&header(MAX_SPEC_BYTES)).unwrap();
        run.measure(&vec![0; MAX_SPEC_BYTES]).unwrap();
        run.measure(&header(MAX_MESSAGE_BYTES)).unwrap();
        run.measure(&vec![0; MAX_MESSAGE_BYTES]).unwrap();
        let too_large = "protocol: a message is larger than 64 KiB";
        assert_eq!(refusal(run.measure(&header(MAX_MESSAGE_BYTES + 1))), too_large);
        assert_eq!(refusal(meter(MAX_MESSAGE_BYTES).measure(&header(MAX_MESSAGE_BYTES + 1))), too_large);
        let too_large = "protocol: the first message of a run is larger than 2 MiB";
        assert_eq!(refusal(meter(MAX_SPEC_BYTES).measure(&header(MAX_SPEC_BYTES + 1))), too_large);
    }

    #[test]
    fn announced_messages_share_one_budget() {
        let all = Arc::<ReceiveBudget>::default();
        let greedy = Arc::new(ConnectionBudget::new(all.clone()));
        let mut calls = Vec::new();
        for call in 0..16 {
            let mut meter = MessageMeter::new(greedy.clone(), MAX_SPEC_BYTES);
            let begun = meter.measure(&header(MAX_SPEC_BYTES));
            assert_eq!(begun.is_ok(), call == 0, "only one of the largest fits: {call}");
            calls.push(meter);
        }
        let mut others = Vec::new();
        for _ in 1..MAX_CONNECTIONS {
            let own = Arc::new(ConnectionBudget::new(all.clone()));
            for _ in 0..CONNECTION_SHARE_BYTES / MAX_MESSAGE_BYTES {
                let mut meter = MessageMeter::new(own.clone(), MAX_MESSAGE_BYTES);
                meter.measure(&header(MAX_MESSAGE_BYTES)).unwrap();
                others.push(meter);
            }
        }
        drop(calls);
        assert_eq!(*greedy.own(), CONNECTION_SHARE_BYTES);
        drop(others);
        assert_eq!(*all.common(), COMMON_BYTES, "everything is released");
    }

    #[test]
    fn large_messages_hold_their_memory() {
        let budget = Arc::new(ConnectionBudget::new(Arc::default()));
        let mut run = MessageMeter::new(budget.clone(), MAX_SPEC_BYTES);
        run.measure(&header(MAX_SPEC_BYTES)).unwrap();
        run.measure(&vec![0; MAX_SPEC_BYTES]).unwrap();
        let mut next = MessageMeter::new(budget, MAX_SPEC_BYTES);
        assert!(next.measure(&header(MAX_SPEC_BYTES)).is_err());
        drop(run);
        let mut last = MessageMeter::new(next.budget.clone(), MAX_SPEC_BYTES);
        last.measure(&header(MAX_SPEC_BYTES)).unwrap();
    }

    #[test]
    fn broken_framing_is_refused() {
        let meter = || MessageMeter::new(Arc::new(ConnectionBudget::new(Arc::default())), MAX_SPEC_BYTES);
        assert_eq!(refusal(meter().end()), "protocol: a call without a message");
        let undecodable = "protocol: a message that cannot be decoded";
        assert_eq!(refusal(meter().measure(&[1, 0, 0, 0, 1])), undecodable);
        let whole = [&header(3)[..], b"abc"].concat();
        for cut in 1..whole.len() {
            let mut meter = meter();
            meter.measure(&whole[..cut]).unwrap();
            assert_eq!(refusal(meter.end()), undecodable, "{cut}");
        }
        let mut meter = meter();
        meter.measure(&whole).unwrap();
        meter.end().unwrap();
    }

    #[test]
    fn messages_are_measured_across_any_split() {
        let lengths = [3, 0, 70, 1, 0, 0, 300];
        let said: Vec<u8> =
            lengths.iter().flat_map(|length| [&header(*length)[..], &vec![1; *length]].concat()).collect();
        for size in 1..said.len() {
            let all = Arc::<ReceiveBudget>::default();
            let budget = Arc::new(ConnectionBudget::new(all));
            let mut meter = MessageMeter::new(budget.clone(), MAX_MESSAGE_BYTES);
            for piece in said.chunks(size) {
                meter.measure(piece).unwrap();
            }
            assert_eq!(
                (meter.missing, meter.header_length, *budget.own()),
                (0, 0, CONNECTION_SHARE_BYTES),
                "{size}"
            );
        }
    }
}
