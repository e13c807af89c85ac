//! Ends what a controller has on this router when its key is taken off the list: its connections and its jobs.
//!
//! The list is looked at once a second while anybody is connected or any job is there, and not at all otherwise: that costs a
//! stat(2), works on every file system, and needs nobody to tell the agent. A change counts when it has been the same for two
//! looks, because an editor may truncate the file before it writes it.
//!
//! **Invariants:** a key that the list does not have has no connection and no job two looks later. A list that cannot be
//! read ends nothing, though it lets nobody in: a stick that is pulled out is no decision of anybody's.

use std::sync::Arc;
use std::time::Duration;

use hop_proto::identity::Fingerprint;
use tokio::sync::{Notify, watch};

use crate::access::authorized_keys::{AuthorizedKeys, Key};
use crate::job::registry::JobRegistry;
use crate::system::runtime;

/// Between two looks at the list.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long a new list must have been the same.
const SETTLING: Duration = Duration::from_millis(100);

/// Watches the list of who may connect.
pub struct Revocation {
    keys: Arc<AuthorizedKeys>,
    jobs: Arc<JobRegistry>,
    /// The list as it was last found changed.
    list: watch::Sender<Arc<Vec<Key>>>,
    /// Somebody came in.
    arrival: Notify,
}

impl Revocation {
    /// Begins to watch `keys` for connections and for `jobs`.
    pub fn start(keys: Arc<AuthorizedKeys>, jobs: Arc<JobRegistry>) -> Arc<Self> {
        let list = watch::Sender::new(Arc::default());
        let revocation = Arc::new(Self { keys, jobs, list, arrival: Notify::new() });
        runtime::spawn(revocation.clone().watch());
        revocation
    }

    /// Waits until a key is taken off the list. This covers a key that was taken off before the call.
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
            // Read after it was looked at: what changes in between is a change at the next look.
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
