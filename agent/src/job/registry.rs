//! The registry of all jobs of this agent: admission, lookup, and the resources that jobs share.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hop_proto::identity::Fingerprint;
use hop_proto::limits::MAX_JOB_ID_BYTES;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use crate::files::core_dump::Pattern;
use crate::job::error::Error;
use crate::job::execute::Job;
use crate::job::oom_guard::OomGuard;
use crate::job::session::{FinalResult, Ownership, Phase, Session, Wait};
use crate::job::spec::Spec;
use crate::job::upload::BlobState;
use crate::job::workspace::Names;
use crate::process::reaper::ProcessReaper;
use crate::store::blobs::{Reclaim, Store};
use crate::store::disk_cache::{Cancelled, DiskCache};
use crate::store::error as store;
use crate::store::receiver::BlobDescriptor;
use crate::system::error as system;
use crate::system::resources::JOB_INODES;

/// Jobs at a time. Each one has a program in RAM, so a 64 MB router runs out of memory long before this; on a larger
/// one, the limit bounds the damage of a mistake.
pub const MAX_JOBS: u32 = 8;

/// Ended jobs whose outcome no controller has fetched. Each one keeps its unread output, at most two windows.
const MAX_ENDED: usize = 8;

/// All jobs of this agent, and the resources that they share.
pub struct JobRegistry {
    /// The programs and archives in RAM.
    pub store: Arc<Store>,
    /// Keeps programs across reboots, if there is one.
    pub disk_cache: Option<Arc<DiskCache>>,
    /// Finds and kills the processes that programs leave behind.
    pub reaper: Arc<ProcessReaper>,
    /// Watches the memory.
    pub guard: Arc<OomGuard>,
    /// Parent of the jobs' directories.
    pub directory: PathBuf,
    /// Names for them.
    pub names: Names,
    /// Command and arguments with which the agent starts every program.
    pub launcher: Vec<OsString>,
    places: Arc<Semaphore>,
    entries: Arc<Entries>,
    instance: u64,
    stopping: watch::Sender<bool>,
    /// Signals that a job was admitted.
    arrival: Notify,
}

/// All jobs, the oldest first.
#[derive(Default)]
struct Entries(Mutex<VecDeque<Entry>>);

impl Entries {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        // Nothing panics while it holds the entries; in the agent a panic aborts anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reclaims the output of ended jobs that a controller may still fetch.
impl Reclaim for Entries {
    fn bytes(&self) -> u64 {
        self.lock().iter().map(|entry| entry.session.discardable_output()).sum()
    }

    fn discard_oldest(&self) -> u64 {
        let entries = self.lock();
        let mut discarded = entries.iter().map(|entry| entry.session.discard_output());
        discarded.find(|bytes| *bytes > 0).unwrap_or(0)
    }
}

/// A job that runs, or has ended and still has its outcome.
struct Entry {
    name: OsString,
    admitted: Instant,
    session: Arc<Session>,
}

/// A job in the list that the agent sends to controllers.
pub struct JobSummary {
    /// The job's id.
    pub job: String,
    /// The program's name.
    pub name: OsString,
    /// The job's phase.
    pub phase: Phase,
    /// Time since its admission.
    pub age: Duration,
    /// A controller is attached to the job.
    pub is_attached: bool,
    /// The job runs without a controller until it exits.
    pub is_detached: bool,
    /// Key of the controller that owns the job.
    pub owner: Fingerprint,
    /// Bytes of output that no controller has acknowledged.
    pub unread: u64,
    /// Bytes of output that the job's log has dropped unread; `None` for a job without a log.
    pub dropped: Option<u64>,
    /// What the job waits for, if it waits for something.
    pub waits_for: Option<Wait>,
    /// Its outcome, or its error, if it has ended.
    pub final_result: Option<FinalResult>,
}

impl JobRegistry {
    /// Keeps the jobs' directories in `directory`, which must be an empty directory on the file system of `store`.
    pub fn new(
        store: Arc<Store>,
        disk_cache: Option<Arc<DiskCache>>,
        reaper: Arc<ProcessReaper>,
        directory: PathBuf,
        launcher: Vec<OsString>,
    ) -> Self {
        let guard = OomGuard::new(store.clone());
        let entries = Arc::<Entries>::default();
        store.reclaim_from(entries.clone());
        Self {
            store,
            disk_cache,
            reaper,
            guard,
            directory,
            names: Names::default(),
            launcher,
            places: Arc::new(Semaphore::new(MAX_JOBS as usize)),
            entries,
            instance: random_instance(),
            stopping: watch::Sender::new(false),
            arrival: Notify::new(),
        }
    }

    /// A random number that distinguishes this start of the agent from all others.
    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// Number of jobs that hold a slot now.
    pub fn running(&self) -> u32 {
        MAX_JOBS - self.places.available_permits() as u32
    }

    /// Decides whether to admit a job, before the agent receives any of its blobs. An admitted job has a session from
    /// now on, until [`JobRegistry::forget`].
    ///
    /// # Errors
    /// The reason for the refusal, with the amounts needed and available.
    pub fn admit(self: &Arc<Self>, spec: Spec, owner: Fingerprint) -> Result<Job, Error> {
        if *self.stopping.borrow() {
            return Err(Error::Stopping);
        }
        let place =
            self.places.clone().try_acquire_owned().map_err(|_| Error::TooManyJobs { limit: MAX_JOBS })?;
        let id = match &spec.id {
            Some(id) if self.entries().iter().any(|entry| entry.session.job() == id) => {
                return Err(Error::JobExists(id.clone()));
            }
            Some(id) => id.clone(),
            None => random_id()?,
        };
        if !self.store.is_executable()? {
            return Err(Error::NotExecutable(self.store.directory().to_owned()));
        }
        if spec.core {
            Pattern::read()?;
        }
        let mut parts = vec![self.provide(&spec.program, owner)?];
        for tree in &spec.inputs {
            parts.push(self.provide(&tree.archive, owner)?);
        }
        let entries = spec.inputs.iter().map(|tree| u64::from(tree.entries)).sum::<u64>();
        let bytes = spec.inputs.iter().map(|tree| tree.size).sum();
        let reservation = self.store.reserve(bytes, entries + JOB_INODES)?;
        let ownership = Ownership {
            owner,
            linger: spec.linger,
            log_size: spec.log_size,
            output_window: spec.output_window,
            has_terminal: spec.terminal.is_some(),
        };
        let (session, commands) = Session::new(id, ownership);
        let entry = Entry { name: spec.name.clone(), admitted: Instant::now(), session: session.clone() };
        self.entries().push_back(entry);
        self.arrival.notify_one();
        Ok(Job::new(self.clone(), session, commands, spec, parts, reservation, place))
    }

    /// Finds a blob, or reserves space for it. In that case it also keeps the first base for a delta, if both fit.
    fn provide(&self, announced: &BlobDescriptor, owner: Fingerprint) -> Result<BlobState, Error> {
        let BlobDescriptor { digest, size, bases, .. } = announced;
        if let Some(blob) = self.store.get(digest, owner) {
            return Ok(BlobState::Cached(blob));
        }
        let mut base = bases.iter().find_map(|digest| Some((*digest, self.store.get(digest, owner)?)));
        let upload = match self.store.upload(*digest, *size, owner) {
            Err(
                store::Error::NoSpace { .. }
                | store::Error::System(system::Error::NoMemory { .. } | system::Error::NoPromise { .. }),
            ) if base.is_some() => {
                base = None;
                self.store.upload(*digest, *size, owner)?
            }
            made => made?,
        };
        Ok(BlobState::Uploading(Box::new(upload), base))
    }

    /// The session of a job that belongs to this controller.
    ///
    /// # Errors
    /// [`Error::NoSuchJob`], [`Error::NotYours`].
    pub fn find(&self, id: &str, controller: Fingerprint) -> Result<Arc<Session>, Error> {
        let entries = self.entries();
        let session = entries.iter().map(|entry| &entry.session).find(|session| session.job() == id);
        // The error quotes no more characters than a valid id has.
        let session = session.ok_or_else(|| Error::NoSuchJob(id.chars().take(MAX_JOB_ID_BYTES).collect()))?;
        if session.owner() != controller {
            return Err(Error::NotYours(id.to_owned()));
        }
        Ok(session.clone())
    }

    /// All jobs, the oldest first.
    pub fn list(&self) -> Vec<JobSummary> {
        let listed = |entry: &Entry| JobSummary {
            job: entry.session.job().to_owned(),
            name: entry.name.clone(),
            phase: entry.session.phase(),
            age: entry.admitted.elapsed(),
            is_attached: entry.session.is_attached(),
            is_detached: entry.session.is_detached(),
            owner: entry.session.owner(),
            unread: entry.session.unread(),
            dropped: entry.session.dropped(),
            waits_for: entry.session.waits_for(),
            final_result: entry.session.final_result(),
        };
        self.entries().iter().map(listed).collect()
    }

    /// Waits until a job is admitted, if none was since the last call that returned. For one caller at a time. Cancel safe.
    pub async fn arrival(&self) {
        self.arrival.notified().await;
    }

    /// True if there is no job, not even an ended one.
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// Kills all jobs of controllers that may not use this router any more.
    pub fn revoke(&self, is_revoked: impl Fn(&Fingerprint) -> bool) {
        let revoked = |entry: &&Entry| is_revoked(&entry.session.owner());
        let sessions: Vec<_> =
            self.entries().iter().filter(revoked).map(|entry| entry.session.clone()).collect();
        for session in sessions {
            tracing::warn!(job = %session.job(), "killing the job: its controller's key was removed from the list");
            session.revoke();
        }
    }

    /// Transfers all jobs and blobs of a controller from its old key to its next one.
    pub fn transfer(&self, from: Fingerprint, to: Fingerprint) {
        for entry in self.entries().iter().filter(|entry| entry.session.owner() == from) {
            entry.session.transfer(to);
        }
        self.store.transfer(from, to);
    }

    /// Releases all ended jobs but the latest [`MAX_ENDED`]. Call it when a job has ended.
    pub fn bound_ended(&self) {
        let entries = self.entries();
        let ended = entries.iter().filter(|entry| entry.session.phase() == Phase::Ended);
        for entry in ended.rev().skip(MAX_ENDED) {
            entry.session.release();
        }
    }

    /// Removes a job that has released everything.
    pub fn forget(&self, session: &Arc<Session>) {
        self.entries().retain(|entry| !Arc::ptr_eq(&entry.session, session));
    }

    /// Kills all jobs, waits until they have released everything, and admits no new ones.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        // The semaphore is never closed; when all its permits are free, no job runs.
        let _ = self.places.acquire_many(MAX_JOBS).await;
        // A detached job whose files wait for a controller has no permit.
        let sessions: Vec<_> = self.entries().iter().map(|entry| entry.session.clone()).collect();
        for session in sessions {
            session.over().await;
        }
        if let Some(disk_cache) = &self.disk_cache {
            disk_cache.idle().await;
        }
    }

    /// Becomes true when the agent begins to stop.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// A function for other threads that returns whether the agent is stopping.
    pub fn is_stopping(&self) -> Cancelled {
        let stopping = self.stopping.subscribe();
        Box::new(move || *stopping.borrow())
    }

    fn entries(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.entries.lock()
    }
}

/// Uses the random hash keys of Rust's standard library, which differ for each process. The number is not a secret.
fn random_instance() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Sixteen random hexadecimal digits.
fn random_id() -> Result<String, Error> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::NoRandom)?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::job::job_log::Controller;
    use crate::job::session::Event;

    #[tokio::test]
    async fn only_latest_ended_jobs_are_kept() {
        const SCRIPT: &[u8] = b"#!/bin/sh\nexit 3\n";
        let dir = tempfile::tempdir().unwrap();
        let [ram, work] = ["ram", "work"].map(|name| dir.path().join(name));
        for directory in [&ram, &work] {
            std::fs::create_dir(directory).unwrap();
        }
        let store = Store::new(ram, None);
        let owner = format!("SHA256:{}", "0".repeat(64)).parse().unwrap();
        let mut upload =
            store.upload(Spec::of_test(SCRIPT).program.digest, SCRIPT.len() as u64, owner).unwrap();
        upload.write(0, SCRIPT).unwrap();
        let _kept = upload.finish().unwrap();
        // With a launcher, the script itself is not executed: other tests fork meanwhile ("text file busy").
        let jobs =
            Arc::new(JobRegistry::new(store, None, ProcessReaper::of_none(), work, vec!["/bin/sh".into()]));
        for number in 0..MAX_ENDED + 2 {
            let id = Some(format!("job{number}"));
            let spec = Spec { id, linger: None, ..Spec::of_test(SCRIPT) };
            let job = jobs.admit(spec, owner).unwrap();
            let session = job.session().clone();
            tokio::spawn(job.run(Controller::of_test()));
            while session.phase() != Phase::Ended {
                tokio::task::yield_now().await;
            }
        }
        let ids = || jobs.list().into_iter().map(|listed| listed.job).collect::<Vec<_>>();
        while ids().len() > MAX_ENDED {
            tokio::task::yield_now().await;
        }
        let latest: Vec<_> = (2..MAX_ENDED + 2).map(|number| format!("job{number}")).collect();
        assert_eq!(ids(), latest);
        assert_eq!(jobs.running(), 0);
        assert!(matches!(jobs.find("job0", owner), Err(Error::NoSuchJob(_))));
    }

    #[tokio::test]
    async fn ended_output_is_discarded_before_refusal() {
        const SCRIPT: &[u8] = b"#!/bin/sh\nprintf 'seven!!'\n";
        let dir = tempfile::tempdir().unwrap();
        let [ram, work] = ["ram", "work"].map(|name| dir.path().join(name));
        for directory in [&ram, &work] {
            std::fs::create_dir(directory).unwrap();
        }
        let store = Store::new(ram, None);
        let owner = format!("SHA256:{}", "0".repeat(64)).parse().unwrap();
        let mut upload =
            store.upload(Spec::of_test(SCRIPT).program.digest, SCRIPT.len() as u64, owner).unwrap();
        upload.write(0, SCRIPT).unwrap();
        let _kept = upload.finish().unwrap();
        let jobs =
            Arc::new(JobRegistry::new(store, None, ProcessReaper::of_none(), work, vec!["/bin/sh".into()]));
        let mut sessions = Vec::new();
        for _ in 0..2 {
            let job = jobs.admit(Spec { linger: None, ..Spec::of_test(SCRIPT) }, owner).unwrap();
            sessions.push(job.session().clone());
            tokio::spawn(job.run(Controller::of_test()));
            sessions.last().unwrap().over().await;
        }
        assert_eq!(jobs.entries.bytes(), 0, "a controller that is there has time to read");
        sessions.iter().for_each(|session| drop(session.connect([None, None], None, false).unwrap()));
        assert_eq!(jobs.entries.bytes(), 14);
        // More than any machine has: the store discards nothing, because that would be in vain.
        assert!(matches!(
            jobs.store.reserve(1 << 50, 0),
            Err(store::Error::System(system::Error::NoMemory { .. }) | store::Error::NoSpace { .. })
        ));
        assert_eq!(jobs.entries.bytes(), 14);
        assert_eq!((jobs.entries.discard_oldest(), sessions[0].unread(), sessions[1].unread()), (7, 0, 7));
        assert_eq!((jobs.store.reclaim(), jobs.entries.bytes()), (7, 0));
        // A controller that comes for it learns that it is lost, from any offset.
        for had in [None, Some(0), Some(7)] {
            let mut connection = sessions[0].connect([had, None], None, false).unwrap();
            let last = loop {
                match connection.recv().await.unwrap() {
                    Event::Ended(last) => break last,
                    Event::Output { .. } => panic!("there is none"),
                    _ => {}
                }
            };
            let Err(error @ Error::OutputLost { bytes: 7, .. }) = &*last else { panic!("{last:?}") };
            assert!(error.to_string().contains("exited with 0"), "{error}");
        }
        assert!(matches!(sessions[0].has_its_output(), Err(Error::OutputLost { .. })));
        jobs.stop().await;
    }
}
