//! How long a message may be, and how much memory messages take that have not arrived as a whole.
//!
//! **Invariants:** messages on their way take no more than [`MAX_RECEIVE_BYTES`], of all connections together; of that each
//! connection has [`CONNECTION_SHARE_BYTES`] for itself, whatever the others do; and a message that has no room is refused
//! when its length is known, before there is a buffer for it.
//!
//! It looks at the bytes of a call as they pass (`doc/PROTOCOL-HTTP2.md` of gRPC). What decodes them keeps the buffer of the largest
//! message for as long as the call's requests go on, and so does the memory of a large one that is reserved here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hop_proto::limits::{MAX_MESSAGE_BYTES, MAX_SPEC_BYTES};

use crate::job::error::Error;
use crate::service::bounds::UNDECODABLE;

/// Connections of authorized controllers at a time. Each costs up to 400 kB while it carries data, its HTTP/2 windows
/// and the buffers of TLS; what its messages are put together from is bounded here.
pub const MAX_CONNECTIONS: u32 = 16;

/// Bytes of all messages on their way: a sixteenth of the RAM of a router with 64 MB.
pub const MAX_RECEIVE_BYTES: usize = 4 * 1024 * 1024;

/// Bytes that each connection has for itself: two messages of the usual kind. A controller with one job has at most one on
/// its way.
const CONNECTION_SHARE_BYTES: usize = 2 * MAX_MESSAGE_BYTES;

/// Bytes for whoever needs more: the specification of a job with many arguments, jobs that share a connection.
const COMMON_BYTES: usize = MAX_RECEIVE_BYTES - MAX_CONNECTIONS as usize * CONNECTION_SHARE_BYTES;

// One specification of the largest size has room, whatever the connections do with what is their own.
const _: () = assert!(COMMON_BYTES + CONNECTION_SHARE_BYTES >= MAX_SPEC_BYTES);

/// What is before each message: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

/// The memory of all connections.
pub struct ReceiveBudget(Mutex<usize>);

impl Default for ReceiveBudget {
    /// All of it is free.
    fn default() -> Self {
        Self(Mutex::new(COMMON_BYTES))
    }
}

impl ReceiveBudget {
    fn common(&self) -> MutexGuard<'_, usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The memory of one connection.
pub struct ConnectionBudget {
    all: Arc<ReceiveBudget>,
    own: Mutex<usize>,
}

impl ConnectionBudget {
    /// That of a new connection. There must be no more than [`MAX_CONNECTIONS`] at a time that receive messages.
    pub fn new(all: Arc<ReceiveBudget>) -> Self {
        Self { all, own: Mutex::new(CONNECTION_SHARE_BYTES) }
    }

    fn own(&self) -> MutexGuard<'_, usize> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes memory for a message, first of what is the connection's own.
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

/// Memory for a message, given back when this goes.
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
    /// What the next message may be.
    limit: usize,
    /// The head of the next message, as far as it has arrived.
    head: [u8; HEAD_BYTES],
    head_length: usize,
    /// Bytes of the message that have not arrived, and its memory.
    missing: usize,
    held: Option<Reservation>,
    /// The memory of a first message that was larger than any other may be.
    kept: Option<Reservation>,
    /// A message has begun.
    has_message: bool,
}

impl MessageMeter {
    /// For a call whose first message has at most `first` bytes, and every other [`MAX_MESSAGE_BYTES`].
    pub fn new(budget: Arc<ConnectionBudget>, first: usize) -> Self {
        Self {
            budget,
            limit: first,
            head: [0; HEAD_BYTES],
            head_length: 0,
            missing: 0,
            held: None,
            kept: None,
            has_message: false,
        }
    }

    /// Looks at the next piece of the call.
    ///
    /// # Errors
    /// A message in it is compressed or too long, or there is no memory for it.
    pub fn arrived(&mut self, mut piece: &[u8]) -> Result<(), Error> {
        while !piece.is_empty() {
            if self.missing == 0 {
                let taken = piece.len().min(HEAD_BYTES - self.head_length);
                self.head[self.head_length..][..taken].copy_from_slice(&piece[..taken]);
                self.head_length += taken;
                piece = &piece[taken..];
                if self.head_length == HEAD_BYTES {
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

    /// The call has no further piece.
    ///
    /// # Errors
    /// It ends within a message, or before the first.
    pub fn end(&self) -> Result<(), Error> {
        match self {
            Self { has_message: false, head_length: 0, .. } => {
                Err(Error::Protocol("a call without a message"))
            }
            Self { missing: 0, head_length: 0, .. } => Ok(()),
            _ => Err(UNDECODABLE),
        }
    }

    /// A message begins, whose head is here.
    fn begin(&mut self) -> Result<(), Error> {
        let [compressed, length @ ..] = self.head;
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
        (self.head_length, self.missing, self.limit) = (0, length, MAX_MESSAGE_BYTES);
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

    fn head(length: usize) -> [u8; HEAD_BYTES] {
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
        run.arrived(&head(MAX_SPEC_BYTES)).unwrap();
        run.arrived(&vec![0; MAX_SPEC_BYTES]).unwrap();
        run.arrived(&head(MAX_MESSAGE_BYTES)).unwrap();
        run.arrived(&vec![0; MAX_MESSAGE_BYTES]).unwrap();
        let too_large = "protocol: a message is larger than 64 KiB";
        assert_eq!(refusal(run.arrived(&head(MAX_MESSAGE_BYTES + 1))), too_large);
        assert_eq!(refusal(meter(MAX_MESSAGE_BYTES).arrived(&head(MAX_MESSAGE_BYTES + 1))), too_large);
        let too_large = "protocol: the first message of a run is larger than 2 MiB";
        assert_eq!(refusal(meter(MAX_SPEC_BYTES).arrived(&head(MAX_SPEC_BYTES + 1))), too_large);
    }

    #[test]
    fn announced_messages_share_one_budget() {
        let all = Arc::<ReceiveBudget>::default();
        let greedy = Arc::new(ConnectionBudget::new(all.clone()));
        let mut calls = Vec::new();
        for call in 0..16 {
            let mut meter = MessageMeter::new(greedy.clone(), MAX_SPEC_BYTES);
            let begun = meter.arrived(&head(MAX_SPEC_BYTES));
            assert_eq!(begun.is_ok(), call == 0, "one of the largest has room: {call}");
            calls.push(meter);
        }
        let mut others = Vec::new();
        for _ in 1..MAX_CONNECTIONS {
            let own = Arc::new(ConnectionBudget::new(all.clone()));
            for _ in 0..CONNECTION_SHARE_BYTES / MAX_MESSAGE_BYTES {
                let mut meter = MessageMeter::new(own.clone(), MAX_MESSAGE_BYTES);
                meter.arrived(&head(MAX_MESSAGE_BYTES)).unwrap();
                others.push(meter);
            }
        }
        drop(calls);
        assert_eq!(*greedy.own(), CONNECTION_SHARE_BYTES);
        drop(others);
        assert_eq!(*all.common(), COMMON_BYTES, "all of it is given back");
    }

    #[test]
    fn large_messages_keep_their_memory_while_requests_go_on() {
        let budget = Arc::new(ConnectionBudget::new(Arc::default()));
        let mut run = MessageMeter::new(budget.clone(), MAX_SPEC_BYTES);
        run.arrived(&head(MAX_SPEC_BYTES)).unwrap();
        run.arrived(&vec![0; MAX_SPEC_BYTES]).unwrap();
        let mut next = MessageMeter::new(budget, MAX_SPEC_BYTES);
        assert!(next.arrived(&head(MAX_SPEC_BYTES)).is_err());
        drop(run);
        let mut last = MessageMeter::new(next.budget.clone(), MAX_SPEC_BYTES);
        last.arrived(&head(MAX_SPEC_BYTES)).unwrap();
    }

    #[test]
    fn broken_framing_is_refused() {
        let meter = || MessageMeter::new(Arc::new(ConnectionBudget::new(Arc::default())), MAX_SPEC_BYTES);
        assert_eq!(refusal(meter().end()), "protocol: a call without a message");
        let undecodable = "protocol: a message that cannot be decoded";
        assert_eq!(refusal(meter().arrived(&[1, 0, 0, 0, 1])), undecodable);
        let whole = [&head(3)[..], b"abc"].concat();
        for cut in 1..whole.len() {
            let mut meter = meter();
            meter.arrived(&whole[..cut]).unwrap();
            assert_eq!(refusal(meter.end()), undecodable, "{cut}");
        }
        let mut meter = meter();
        meter.arrived(&whole).unwrap();
        meter.end().unwrap();
    }

    #[test]
    fn messages_count_in_pieces_of_any_size() {
        let lengths = [3, 0, 70, 1, 0, 0, 300];
        let said: Vec<u8> =
            lengths.iter().flat_map(|length| [&head(*length)[..], &vec![1; *length]].concat()).collect();
        for size in 1..said.len() {
            let all = Arc::<ReceiveBudget>::default();
            let budget = Arc::new(ConnectionBudget::new(all));
            let mut meter = MessageMeter::new(budget.clone(), MAX_MESSAGE_BYTES);
            for piece in said.chunks(size) {
                meter.arrived(piece).unwrap();
            }
            assert_eq!(
                (meter.missing, meter.head_length, *budget.own()),
                (0, 0, CONNECTION_SHARE_BYTES),
                "{size}"
            );
        }
    }
}
