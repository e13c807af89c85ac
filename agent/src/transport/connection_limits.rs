//! Limits the number of peers: of those that have not proved a key yet, and of the connections of controllers.
//!
//! **Invariants:**
//! - The agent admits every new peer: if there are too many, it drops another one, and never refuses the new one. So
//!   nobody can lock others out by occupying slots.
//! - At most [`MAX_PENDING`] peers have not proved a key, of which at most [`MAX_HANDSHAKES`] cost more than a few
//!   kilobytes; and they take nothing from the connections of controllers.
//! - No source takes a slot that another one needs, and no key takes all connections.
//!
//! The agent first drops the oldest peer that has not sent a whole ClientHello, because a controller sends it at once;
//! then, at random and early, as `MaxStartups` of sshd_config(5) does, one of the source that has most.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hop_proto::identity::Fingerprint;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::access::refusal_log::RefusalLog;
use crate::service::error::Error;
use crate::service::receive_budget::MAX_CONNECTIONS;
use crate::system::time::sleep_until_opt;

/// Maximum number of peers that have not proved a key. A peer before its handshake takes 11 kB, for its ClientHello and
/// its task, so all of them take 700 kB. The limit admits fifty controllers that start at once.
const MAX_PENDING: usize = 64;

/// From this number of peers on, the agent may drop one for a new one although the limit is not reached: never at this
/// number, always at [`MAX_PENDING`], and in between the more often, the nearer the limit is.
const EARLY_DROP_FROM: usize = 56;

/// Maximum number of peers of one source that have not sent a whole ClientHello.
const MAX_SILENT_OF_SOURCE: usize = 8;

/// Maximum number of handshakes at a time. One takes 40 kB, for the buffers of TLS, and a 400 MHz MIPS 0.02 s. A failed
/// one occupies its slot for [`crate::transport::acceptor::REJECT_BACKOFF`], so strangers take a sixth of such a CPU at
/// most.
const MAX_HANDSHAKES: usize = 8;

/// How long a handshake may occupy its slot while others wait for one.
const HANDSHAKE_SHARE: Duration = Duration::from_secs(2);

/// The last connections, which are reserved for keys that have fewer than [`KEY_SHARE`]: one key may have all others,
/// as a CI machine with many jobs needs, and two more controllers can still connect.
const RESERVED_CONNECTIONS: u32 = 4;

/// Connections that a key may have of the reserved ones: that of a connection master, and one for a controller that
/// does not use it.
const KEY_SHARE: usize = 2;

/// The peers of an agent.
pub struct ConnectionLimits {
    pending: Mutex<Table>,
    refusals: Arc<RefusalLog>,
    connections: Arc<Semaphore>,
    /// The key of each connection.
    keys: Mutex<Vec<Fingerprint>>,
}

/// The peers that have not proved a key, the oldest first.
#[derive(Default)]
struct Table {
    peers: Vec<Peer>,
    last_id: u64,
}

struct Peer {
    id: u64,
    address: SocketAddr,
    stage: Stage,
    task: Option<AbortHandle>,
}

enum Stage {
    /// The peer has not sent a whole ClientHello.
    Hello,
    /// It has sent one, and waits for the signal that its handshake may continue.
    Waiting(oneshot::Sender<()>),
    /// Its handshake is in progress, or has failed and still occupies its slot; since this time.
    Handshake(Instant),
}

/// The source of a peer, as one user may have many addresses: an IPv4 address, or the 64-bit prefix of an IPv6 address.
fn source(address: &SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

impl Peer {
    fn is_silent(&self) -> bool {
        matches!(self.stage, Stage::Hello)
    }
}

impl Table {
    /// Removes a peer, and aborts its task.
    fn take(&mut self, index: usize) -> Peer {
        let peer = self.peers.remove(index);
        if let Some(task) = &peer.task {
            task.abort();
        }
        peer
    }

    /// The peer to drop: the oldest one that is silent, or one of the source that has most.
    fn victim(&self) -> Option<usize> {
        if let Some(oldest) = self.peers.iter().position(Peer::is_silent) {
            return Some(oldest);
        }
        let of_source = |peer: &Peer| self.of_source(source(&peer.address), |_| true).count();
        let most = self.peers.iter().map(of_source).max()?;
        let candidates: Vec<_> =
            (0..self.peers.len()).filter(|index| of_source(&self.peers[*index]) == most).collect();
        candidates.get(random_below(candidates.len())).copied()
    }

    fn of_source(&self, wanted: IpAddr, is_counted: fn(&Peer) -> bool) -> impl Iterator<Item = usize> {
        let peers = self.peers.iter().enumerate();
        peers
            .filter(move |(_, peer)| is_counted(peer) && source(&peer.address) == wanted)
            .map(|(index, _)| index)
    }

    fn handshakes(&self) -> impl Iterator<Item = (usize, Instant)> {
        let peers = self.peers.iter().enumerate();
        peers.filter_map(|(index, peer)| match peer.stage {
            Stage::Handshake(since) => Some((index, since)),
            _ => None,
        })
    }

    /// Starts handshakes while there are free slots: first of the source that has fewest; within a source at random, so
    /// that a queue that somebody else at the same address fills does not make each peer wait for all of it.
    fn dispatch(&mut self) {
        let is_handshake = |peer: &Peer| matches!(peer.stage, Stage::Handshake(_));
        while self.handshakes().count() < MAX_HANDSHAKES {
            let of_source = |peer: &Peer| self.of_source(source(&peer.address), is_handshake).count();
            let waiting = self.peers.iter().enumerate();
            let waiting = waiting.filter(|(_, peer)| matches!(peer.stage, Stage::Waiting(_)));
            let waiting: Vec<_> = waiting.map(|(index, peer)| (of_source(peer), index)).collect();
            let Some((fewest, _)) = waiting.iter().min() else { return };
            let next: Vec<_> = waiting.iter().filter(|(count, _)| count == fewest).collect();
            let (_, index) = *next[random_below(next.len())];
            let before = std::mem::replace(&mut self.peers[index].stage, Stage::Handshake(Instant::now()));
            if let Stage::Waiting(turn) = before {
                // A peer that has just gone releases its slot when its task ends.
                let _ = turn.send(());
            }
        }
    }
}

impl ConnectionLimits {
    /// Limits of which nothing is used. `refusals` records dropped peers.
    pub fn new(refusals: Arc<RefusalLog>) -> Self {
        Self {
            pending: Mutex::default(),
            refusals,
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS as usize)),
            keys: Mutex::default(),
        }
    }

    /// Admits a new peer, and drops another one for it if there are too many. Dropping this peer later aborts the task
    /// that `serve` starts.
    pub fn admit(
        self: &Arc<Self>,
        address: SocketAddr,
        serve: impl FnOnce(PendingPeer) -> Option<AbortHandle>,
    ) {
        let mut table = self.table();
        let silent = table.of_source(source(&address), Peer::is_silent).collect::<Vec<_>>();
        let is_early = |count: usize| {
            count >= EARLY_DROP_FROM && random_below(MAX_PENDING - EARLY_DROP_FROM) < count - EARLY_DROP_FROM
        };
        let victim = match silent.first() {
            Some(oldest) if silent.len() >= MAX_SILENT_OF_SOURCE => Some(*oldest),
            _ if is_early(table.peers.len()) => table.victim(),
            _ => None,
        };
        let dropped = victim.map(|index| table.take(index));
        table.last_id += 1;
        let id = table.last_id;
        table.peers.push(Peer { id, address, stage: Stage::Hello, task: None });
        table.dispatch();
        drop(table);
        self.record_drop(dropped);
        let task = serve(PendingPeer { limits: self.clone(), id });
        if let Some(peer) = self.table().peers.iter_mut().find(|peer| peer.id == id) {
            peer.task = task;
        }
    }

    /// Drops a peer because the kernel has no more descriptors or memory.
    pub fn shed(&self) {
        let mut table = self.table();
        let dropped = table.victim().map(|index| table.take(index));
        table.dispatch();
        drop(table);
        self.record_drop(dropped);
    }

    /// Takes a connection for a controller with this key.
    ///
    /// # Errors
    /// No connection is left for it.
    pub fn connect(self: &Arc<Self>, key: Fingerprint) -> Result<Connected, NoConnection> {
        let permit = self.connections.clone().try_acquire_owned().map_err(|_| NoConnection::AllTaken)?;
        let mut keys = self.keys();
        let held = keys.iter().filter(|other| **other == key).count();
        // This connection is already one of those that are taken.
        if held >= KEY_SHARE && self.connections.available_permits() < RESERVED_CONNECTIONS as usize {
            return Err(NoConnection::Reserved { held: held as u32 });
        }
        keys.push(key);
        drop(keys);
        Ok(Connected { limits: self.clone(), key, _permit: permit })
    }

    /// Waits until no controller is connected.
    pub async fn disconnected(&self) {
        // The semaphore is never closed.
        let _ = self.connections.acquire_many(MAX_CONNECTIONS).await;
    }

    /// Enqueues a peer that has sent its ClientHello. The receiver returns when its turn has come.
    fn enqueue(&self, id: u64) -> oneshot::Receiver<()> {
        let (start, turn) = oneshot::channel();
        let mut table = self.table();
        if let Some(peer) = table.peers.iter_mut().find(|peer| peer.id == id) {
            peer.stage = Stage::Waiting(start);
        }
        table.dispatch();
        turn
    }

    /// Drops a handshake that has exceeded its share of time, and starts the next one.
    fn end_overdue(&self) {
        let mut table = self.table();
        let has_had_its_time = |since: Instant| since.elapsed() >= HANDSHAKE_SHARE;
        let overdue =
            table.handshakes().filter(|(_, since)| has_had_its_time(*since)).min_by_key(|(_, since)| *since);
        let dropped = overdue.map(|(index, _)| table.take(index));
        table.dispatch();
        drop(table);
        self.record_drop(dropped);
    }

    fn record_drop(&self, dropped: Option<Peer>) {
        let Some(Peer { address, stage, .. }) = dropped else { return };
        self.refusals.record(
            address,
            match stage {
                Stage::Hello => "it had not sent a whole ClientHello when others connected",
                Stage::Waiting(_) | Stage::Handshake(_) => "too many peers connected at once",
            },
        );
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys(&self) -> MutexGuard<'_, Vec<Fingerprint>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A peer that has not proved a key yet. It keeps its slot until this is dropped.
pub struct PendingPeer {
    limits: Arc<ConnectionLimits>,
    id: u64,
}

impl PendingPeer {
    /// Waits, after the ClientHello, until the handshake may continue.
    pub async fn handshake_turn(&self) {
        let mut turn = self.limits.enqueue(self.id);
        loop {
            let first = self.limits.table().handshakes().map(|(_, since)| since).min();
            tokio::select! {
                biased;
                begun = &mut turn => match begun {
                    Ok(()) => return,
                    // The peer was dropped, and its task is being aborted.
                    Err(_) => std::future::pending().await,
                },
                () = sleep_until_opt(first.map(|since| since + HANDSHAKE_SHARE)) => self.limits.end_overdue(),
            }
        }
    }
}

impl Drop for PendingPeer {
    fn drop(&mut self) {
        let mut table = self.limits.table();
        table.peers.retain(|peer| peer.id != self.id);
        table.dispatch();
    }
}

/// Why a controller gets no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoConnection {
    /// All [`MAX_CONNECTIONS`] are in use.
    AllTaken,
    /// The remaining ones are reserved for keys that have fewer.
    Reserved {
        /// Number of connections that this key has.
        held: u32,
    },
}

impl From<NoConnection> for Error {
    fn from(why: NoConnection) -> Self {
        let limit = MAX_CONNECTIONS;
        match why {
            NoConnection::AllTaken => Self::TooManyConnections { limit },
            NoConnection::Reserved { held } => {
                Self::TooManyConnectionsOfKey { held, reserved: RESERVED_CONNECTIONS, limit }
            }
        }
    }
}

/// A connection of an authorized controller.
pub struct Connected {
    limits: Arc<ConnectionLimits>,
    key: Fingerprint,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut keys = self.limits.keys();
        if let Some(index) = keys.iter().position(|key| *key == self.key) {
            keys.swap_remove(index);
        }
    }
}

/// A number below `limit` that nobody can predict; 0 if the kernel provides no random numbers.
fn random_below(limit: usize) -> usize {
    let mut bytes = [0; 4];
    if limit == 0 || SystemRandom::new().fill(&mut bytes).is_err() {
        return 0;
    }
    u32::from_ne_bytes(bytes) as usize % limit
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn limits() -> Arc<ConnectionLimits> {
        Arc::new(ConnectionLimits::new(Arc::default()))
    }

    fn address(host: u8, port: usize) -> SocketAddr {
        ([10, 0, 0, host], port as u16).into()
    }

    /// Admits a peer whose task does nothing, and returns it.
    fn admit(limits: &Arc<ConnectionLimits>, address: SocketAddr) -> PendingPeer {
        let mut place = None;
        limits.admit(address, |peer| {
            place = Some(peer);
            None
        });
        place.unwrap()
    }

    fn is_in(limits: &ConnectionLimits, peer: &PendingPeer) -> bool {
        limits.table().peers.iter().any(|other| other.id == peer.id)
    }

    /// Sends the ClientHello, and returns whether the handshake may begin now.
    async fn begins(peer: &PendingPeer) -> bool {
        tokio::time::timeout(Duration::ZERO, peer.handshake_turn()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn oldest_silent_peer_is_dropped() {
        let limits = limits();
        let speaker = admit(&limits, address(1, 0));
        assert!(begins(&speaker).await);
        let silent: Vec<_> = (0..100).map(|port| admit(&limits, address(1, port))).collect();
        let (gone, there) = silent.split_at(100 - MAX_SILENT_OF_SOURCE);
        assert!(
            gone.iter().all(|peer| !is_in(&limits, peer)) && there.iter().all(|peer| is_in(&limits, peer))
        );
        assert!(is_in(&limits, &speaker), "a peer that has said its hello stays");
        assert_eq!(limits.table().peers.len(), MAX_SILENT_OF_SOURCE + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn full_source_displaces_only_itself() {
        let limits = limits();
        let mut crowd = Vec::new();
        for port in 0..200 {
            crowd.push(admit(&limits, address(1, port)));
            begins(crowd.last().unwrap()).await;
            assert!(limits.table().peers.len() <= MAX_PENDING);
        }
        let other = admit(&limits, address(2, 1));
        assert!(!begins(&other).await, "all places are taken");
        for port in 200..400 {
            crowd.push(admit(&limits, address(1, port)));
            begins(crowd.last().unwrap()).await;
        }
        assert!(is_in(&limits, &other), "it is the crowd that gives way");
        tokio::time::sleep(HANDSHAKE_SHARE).await;
        assert!(begins(&other).await, "it is the next, before those that came first");
        assert!(limits.table().handshakes().count() <= MAX_HANDSHAKES);
    }

    #[tokio::test(start_paused = true)]
    async fn many_sources_stay_below_limit() {
        let limits = limits();
        let mut crowd = Vec::new();
        for number in 0..1000 {
            crowd.push(admit(&limits, address((number % 250) as u8, number)));
            assert!(is_in(&limits, crowd.last().unwrap()), "a new one always comes in");
            begins(crowd.last().unwrap()).await;
            assert!(limits.table().peers.len() <= MAX_PENDING);
        }
        drop(crowd);
        assert!(limits.table().peers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_peer_aborts_its_task() {
        let limits = limits();
        let mut tasks = Vec::new();
        for port in 0..=MAX_SILENT_OF_SOURCE {
            limits.admit(address(1, port), |peer| {
                let task = tokio::spawn(async move {
                    let _peer = peer;
                    std::future::pending::<()>().await;
                });
                let abort = task.abort_handle();
                tasks.push(task);
                Some(abort)
            });
        }
        assert!(tasks.remove(0).await.unwrap_err().is_cancelled());
        assert_eq!(limits.table().peers.len(), MAX_SILENT_OF_SOURCE);
        assert!(tasks.iter().all(|task| !task.is_finished()));
    }

    #[test]
    fn ipv6_network_counts_as_one_source() {
        let of = |text: &str| source(&SocketAddr::new(text.parse().unwrap(), 1));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn one_key_leaves_connections_to_others() {
        let limits = limits();
        let [one, two, three, four] = [1_u8, 2, 3, 4].map(|number| Fingerprint::of(&[number]));
        let most = MAX_CONNECTIONS - RESERVED_CONNECTIONS;
        let mut of_one: Vec<_> = (0..most).map(|_| limits.connect(one).ok().unwrap()).collect();
        let refused = |key| limits.connect(key).err();
        assert_eq!(refused(one), Some(NoConnection::Reserved { held: 12 }));
        let of_two = [limits.connect(two), limits.connect(two)].map(Result::ok);
        assert!(of_two.iter().all(Option::is_some));
        assert_eq!(refused(two), Some(NoConnection::Reserved { held: 2 }));
        let _of_three = [limits.connect(three), limits.connect(three)].map(Result::ok);
        assert_eq!(refused(four), Some(NoConnection::AllTaken));
        of_one.pop();
        assert_eq!(refused(one), Some(NoConnection::Reserved { held: 11 }));
        assert!(limits.connect(four).is_ok());
        drop((of_one, of_two));
        assert!((0..most - 2).map(|_| limits.connect(two)).collect::<Result<Vec<_>, _>>().is_ok());
    }
}
