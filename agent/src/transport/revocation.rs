//! Closes the connections and kills the jobs of a controller when its key is removed from the list.
//!
//! The agent polls the list once a second while any job exists, every five seconds while controllers are only connected,
//! and not at all otherwise. A call reads the list itself, so nobody whose key is gone can begin anything meanwhile. A
//! poll takes one stat(2), works on every file system, and needs no notification. The agent acts on a
//! change when the file has stayed the same for [`SETTLING`], because an editor may truncate a file before it writes
//! it.
//!
//! **Invariants:** two seconds after its removal from the list, a key has no job, and six seconds after it no connection. If
//! the agent cannot read the list, it revokes nothing, though it accepts no new connection: a USB stick that was unplugged is nobody's
//! decision.

use std::sync::Arc;
use std::time::Duration;

use hop_proto::identity::Fingerprint;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::access::authorized_keys::{AuthorizedKeys, Key};
use crate::job::registry::JobRegistry;
use crate::system::runtime;

/// How often to poll the list while a job exists.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How often to poll it while there are only connections. At one poll a second, a connection that was kept took a
/// router 0.2 s of CPU time an hour.
const IDLE_POLL_INTERVAL: Duration = Duration::from_secs(5);

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
            match self.jobs.is_empty() {
                // A job that arrives makes the next poll earlier.
                true if timeout(IDLE_POLL_INTERVAL, self.jobs.arrival()).await.is_err() => {}
                _ => sleep(POLL_INTERVAL).await,
            }
            let mut stamp = self.keys.stamp();
            if stamp == applied {
                continue;
            }
            loop {
                sleep(SETTLING).await;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};

    use tokio::time::Instant;

    use super::*;
    use crate::job::spec::Spec;
    use crate::process::reaper::ProcessReaper;
    use crate::store::blobs::Store;

    const SCRIPT: &[u8] = b"#!/bin/sh\n";

    /// A list with one key, and what watches it.
    fn watched(directory: &Path) -> (PathBuf, Fingerprint, Arc<JobRegistry>, Arc<Revocation>) {
        let key: Fingerprint = format!("SHA256:{}", "1".repeat(64)).parse().unwrap();
        let [list, ram, work] = ["authorized_keys", "ram", "work"].map(|name| directory.join(name));
        for directory in [&ram, &work] {
            fs::create_dir(directory).unwrap();
        }
        write(&list, &format!("{key}\n"));
        let store = Store::new(ram, None);
        let jobs = Arc::new(JobRegistry::new(store, None, ProcessReaper::of_none(), work, Vec::new()));
        let revocation = Revocation::start(Arc::new(AuthorizedKeys::new(list.clone())), jobs.clone());
        (list, key, jobs, revocation)
    }

    /// Writes the list, of another size than before.
    fn write(list: &Path, content: &str) {
        fs::write(list, content).unwrap();
        fs::set_permissions(list, fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_end_within_six_seconds() {
        let dir = tempfile::tempdir().unwrap();
        let (list, key, _jobs, revocation) = watched(dir.path());
        let mut connection = std::pin::pin!(revocation.of(key));
        assert!(timeout(Duration::from_secs(60), &mut connection).await.is_err(), "the key is on the list");
        write(&list, "# nobody\n");
        let since = Instant::now();
        connection.await;
        assert!(since.elapsed() <= Duration::from_secs(6), "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn new_jobs_end_within_two_seconds() {
        let dir = tempfile::tempdir().unwrap();
        let (list, key, jobs, revocation) = watched(dir.path());
        let mut connection = std::pin::pin!(revocation.of(key));
        assert!(timeout(Duration::from_secs(61), &mut connection).await.is_err());
        let _job = jobs.admit(Spec::of_test(SCRIPT), key).unwrap();
        write(&list, "# nobody\n");
        let since = Instant::now();
        connection.await;
        assert!(since.elapsed() <= Duration::from_secs(2), "{:?}", since.elapsed());
    }
}
