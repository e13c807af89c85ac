//! How many peers may be here: those that have not proved a key yet, and the connections of those that have.
//!
//! **Invariants:**
//! - A new peer always comes in: another one is dropped for it, never the new one refused. So nobody can hold the door shut by
//!   holding places.
//! - The peers that have not proved a key are at most [`MAX_PENDING`], of which [`MAX_HANDSHAKES`] cost more than a few
//!   kilobytes, and take nothing from the connections of controllers.
//! - One source takes no place that another one needs, and one key does not take all connections.
//!
//! Dropped first is the oldest that has not said a whole ClientHello, because saying it takes a controller no time; then, at
//! random and early, as `MaxStartups` of sshd_config(5) does, one of the source that has most.

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

/// Peers that have not proved a key yet. One that has not begun its handshake costs 11 kB, its ClientHello and its task, so
/// all of them 700 kB. Fifty controllers that start at once find room.
const MAX_PENDING: usize = 64;

/// From this many on, one may be dropped for a new one though there is room: at this number never, at [`MAX_PENDING`] always,
/// and between them as often as it is near.
const EARLY_DROP_FROM: usize = 48;

/// Peers of one source that have not said a whole ClientHello.
const MAX_SILENT_OF_SOURCE: usize = 8;

/// Handshakes at a time. One costs 40 kB, the buffers of TLS, and 0.02 s of a 400 MHz MIPS. As one that fails holds its
/// place for [`crate::transport::acceptor::REJECT_BACKOFF`], strangers take a sixth of such a CPU at most.
const MAX_HANDSHAKES: usize = 8;

/// How long a handshake holds its place while others wait for one.
const HANDSHAKE_SHARE: Duration = Duration::from_secs(2);

/// The last connections, which are only for keys that have fewer than [`KEY_SHARE`]: one key may have all others, as a CI
/// machine with many jobs wants, and two more controllers still get in.
const RESERVED_CONNECTIONS: u32 = 4;

/// Connections that a key may have out of the last ones: one that is kept, and one for a controller that does not use it.
const KEY_SHARE: usize = 2;

/// The peers of an agent.
pub struct ConnectionLimits {
    pending: Mutex<Table>,
    refusals: Arc<RefusalLog>,
    connections: Arc<Semaphore>,
    /// Whose connections there are, one entry each.
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
    /// It has not said a whole ClientHello.
    Hello,
    /// It has, and waits for the word that its handshake may go on.
    Waiting(oneshot::Sender<()>),
    /// Its handshake goes on, or has failed and is not forgotten yet; since then.
    Handshake(Instant),
}

/// Where a peer comes from, as far as somebody may have many addresses: an IPv4 address, or the 64 bits of an IPv6 network.
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
    /// Takes one out that must go.
    fn take(&mut self, index: usize) -> Peer {
        let peer = self.peers.remove(index);
        if let Some(task) = &peer.task {
            task.abort();
        }
        peer
    }

    /// The peer that goes when one must: the oldest that is silent, or one of the source that has most.
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

    /// Lets handshakes begin for which there are places: first of the source that has fewest; of a source any, so that a queue
    /// which somebody else at the same address fills does not make each peer wait for all of it.
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
                // One that has just gone gives its place back when its task does.
                let _ = turn.send(());
            }
        }
    }
}

impl ConnectionLimits {
    /// Limits, of which nothing is used. `refusals` records what is dropped.
    pub fn new(refusals: Arc<RefusalLog>) -> Self {
        Self {
            pending: Mutex::default(),
            refusals,
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS as usize)),
            keys: Mutex::default(),
        }
    }

    /// Takes a new peer in, and drops another one for it if there are too many. What `serve` starts is aborted when the peer has to go itself.
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
        self.tell(dropped);
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
        self.tell(dropped);
    }

    /// Takes a connection for a controller with this key.
    ///
    /// # Errors
    /// There is none for it.
    pub fn connect(self: &Arc<Self>, key: Fingerprint) -> Result<Connected, NoConnection> {
        let permit = self.connections.clone().try_acquire_owned().map_err(|_| NoConnection::AllTaken)?;
        let mut keys = self.keys();
        let held = keys.iter().filter(|other| **other == key).count();
        // One of those that are left is taken now.
        if held >= KEY_SHARE && self.connections.available_permits() < RESERVED_CONNECTIONS as usize {
            return Err(NoConnection::Reserved { held: held as u32 });
        }
        keys.push(key);
        drop(keys);
        Ok(Connected { limits: self.clone(), key, _permit: permit })
    }

    /// Waits until no controller is connected.
    pub async fn disconnected(&self) {
        // It is never closed.
        let _ = self.connections.acquire_many(MAX_CONNECTIONS).await;
    }

    /// Lets a peer that has said its ClientHello wait; what this gives tells when that is over.
    fn enqueue(&self, id: u64) -> oneshot::Receiver<()> {
        let (tell, turn) = oneshot::channel();
        let mut table = self.table();
        if let Some(peer) = table.peers.iter_mut().find(|peer| peer.id == id) {
            peer.stage = Stage::Waiting(tell);
        }
        table.dispatch();
        turn
    }

    /// Drops the handshake that has had its time, and lets the next one begin.
    fn end_overdue(&self) {
        let mut table = self.table();
        let has_had_its_time = |since: Instant| since.elapsed() >= HANDSHAKE_SHARE;
        let overdue =
            table.handshakes().filter(|(_, since)| has_had_its_time(*since)).min_by_key(|(_, since)| *since);
        let dropped = overdue.map(|(index, _)| table.take(index));
        table.dispatch();
        drop(table);
        self.tell(dropped);
    }

    fn tell(&self, dropped: Option<Peer>) {
        let Some(Peer { address, stage, .. }) = dropped else { return };
        self.refusals.record(
            address,
            match stage {
                Stage::Hello => "it had not said a whole ClientHello when others came",
                Stage::Waiting(_) | Stage::Handshake(_) => "too many wanted in at once",
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

/// A peer that has not proved a key yet. It has its place as long as this lives.
pub struct PendingPeer {
    limits: Arc<ConnectionLimits>,
    id: u64,
}

impl PendingPeer {
    /// Waits, after its ClientHello, until its handshake may go on.
    pub async fn handshake_turn(&self) {
        let mut turn = self.limits.enqueue(self.id);
        loop {
            let first = self.limits.table().handshakes().map(|(_, since)| since).min();
            tokio::select! {
                biased;
                begun = &mut turn => match begun {
                    Ok(()) => return,
                    // It was dropped, and its task will be told.
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

/// Why there is no connection for a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoConnection {
    /// There are [`MAX_CONNECTIONS`].
    AllTaken,
    /// Those that are left are for keys that have fewer.
    Reserved {
        /// How many this key has.
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

/// A number below `limit` that nobody can foresee; 0 where the kernel gives no randomness.
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

    /// Lets a peer in whose task does nothing, and gives its place.
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

    /// Says its hello, and tells whether its handshake may begin by now.
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
