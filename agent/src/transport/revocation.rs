//! Closes the connections and kills the jobs of a controller when its key is removed from the list.
//!
//! The agent polls the list once a second while any controller is connected or any job exists, and not at all
//! otherwise. A poll takes one stat(2), works on every file system, and needs no notification. The agent acts on a
//! change when the file has stayed the same for [`SETTLING`], because an editor may truncate a file before it writes
//! it.
//!
//! **Invariants:** two polls after its removal from the list, a key has no connection and no job. If the agent cannot
//! read the list, it revokes nothing, though it accepts no new connection: a USB stick that was unplugged is nobody's
//! decision.

use std::sync::Arc;
use std::time::Duration;

use hop_proto::identity::Fingerprint;
use tokio::sync::{Notify, watch};

use crate::access::authorized_keys::{AuthorizedKeys, Key};
use crate::job::registry::JobRegistry;
use crate::system::runtime;

/// How often to poll the list.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long a changed list must stay unchanged before the agent acts on it.
const SETTLING: Duration = Duration::from_millis(100);

/// Watches the list of authorized keys.
pub struct Revocation {
    keys: Arc<AuthorizedKeys>,
    jobs: Arc<JobRegistry>,
    /// The list after its last change.
    list: watch::Sender<Arc<Vec<Key>>>,
    /// Signals a new connection.
    arrival: Notify,
}

impl Revocation {
    /// Starts to watch `keys` on behalf of connections and of `jobs`.
    pub fn start(keys: Arc<AuthorizedKeys>, jobs: Arc<JobRegistry>) -> Arc<Self> {
        let list = watch::Sender::new(Arc::default());
        let revocation = Arc::new(Self { keys, jobs, list, arrival: Notify::new() });
        runtime::spawn(revocation.clone().watch());
        revocation
    }

    /// Waits until a key is removed from the list. Also returns if the key was removed before the call.
    pub async fn of(&self, key: Fingerprint) {
        let mut list = self.list.subscribe();
        self.arrival.notify_one();
        while list.changed().await.is_ok() {
            if lacks(&list.borrow_and_update(), &key) {
                return;
            }
        }
    }

    async fn watch(self: Arc<Self>) {
        let mut applied = None;
        loop {
            if self.list.receiver_count() == 0 && self.jobs.is_empty() {
                self.arrival.notified().await;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
            let mut stamp = self.keys.stamp();
            if stamp == applied {
                continue;
            }
            loop {
                tokio::time::sleep(SETTLING).await;
                let now = self.keys.stamp();
                if now == stamp {
                    break;
                }
                stamp = now;
            }
            // Reads the list after its stamp: a change in between is found by the next poll.
            if let Ok(keys) = self.keys.read() {
                self.jobs.revoke(|owner| lacks(&keys, owner));
                self.list.send_replace(Arc::new(keys));
                applied = stamp;
            }
        }
    }
}

fn lacks(keys: &[Key], fingerprint: &Fingerprint) -> bool {
    !keys.iter().any(|key| key.fingerprint == *fingerprint)
}
