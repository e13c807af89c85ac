//! Guards the router's memory, and its other scarce resources ([`crate::system::resources`]): kills a job before the
//! kernel kills a process, or refuses a request, of the router's own.
//!
//! Admission counts the memory that a program brings; the guard watches the memory that it takes while it runs,
//! including the files that it writes. They are in RAM as well, and DD-WRT's ramfs has no limit of its own.
//!
//! **Invariants:** before it kills a job, the guard evicts unused blobs, and then discards the output of ended jobs. It
//! polls only while jobs run or their files wait for a controller, and more often the less memory is left.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::process::cgroup::Cgroup;
use crate::process::reaper;
use crate::store::blobs::Store;
use crate::system::fs_walk;
use crate::system::memory::{Memory, RESERVE};
use crate::system::oom_kills::Killings;
use crate::system::pressure::{Poller, Pressure};
use crate::system::resources::{self, Exhausted, Level, Resource};
use crate::system::runtime;

/// The guard kills a job when fewer bytes than this are available above the kernel's lowest watermark. A kernel since
/// 5.0 may run its OOM killer with more than 5 MiB of that free: it raises its watermarks by up to a page block, 4 MiB
/// on MIPS, and does not count that in MemAvailable (watermark_boost_factor, admin-guide/sysctl/vm.rst). The rest of
/// the reserve is for the start of a program that the agent admitted with nothing to spare.
///
/// The limit also applies to the rest of the commit limit, on a kernel that enforces one: it covers one arena of Go's
/// heap, 4 MiB, that the job allocates between two polls, and the memory that such a kernel withholds from each process
/// (vm.user_reserve_kbytes).
pub const LIMIT: u64 = RESERVE / 4 * 3;

/// How fast programs can use up memory, in bytes per millisecond: a router writes to its RAM at some 100 MB/s.
const RATE: u64 = 128 * 1024;

/// The shortest and the longest polling interval. A poll takes a 500 MIPS CPU 0.2 ms.
const INTERVAL: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// How long a killed job may take to release its memory before the guard kills the next one.
const GOING_LIMIT: Duration = Duration::from_secs(3);

/// A PID that no process has: Linux assigns PIDs up to 4,194,304 (proc_sys_kernel(5), pid_max).
const NO_PROCESS: i32 = i32::MAX;

/// The state of the memory when the guard killed a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Bytes that were available on the router.
    pub available: u64,
    /// Bytes that the job held: its processes, and the files that it wrote.
    pub held: u64,
    /// The router had reached the kernel's commit limit, not the end of its RAM.
    pub of_promises: bool,
}

/// Why the guard kills a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The job holds most of the memory.
    Memory(OutOfMemory),
    /// The job holds most of another resource.
    Exhausted(Exhausted),
}

/// Watches the jobs of one agent.
pub struct OomGuard {
    store: Arc<Store>,
    /// Mount point of the file system that holds the jobs' directories.
    mount: Arc<Path>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    watched: Vec<Watched>,
    /// Number of jobs that were ever watched.
    count: u32,
    /// The polling task is running. It continues if it sleeps while the last job ends and the next one starts.
    running: bool,
}

struct Watched {
    number: u32,
    pid: i32,
    started: Instant,
    directory: PathBuf,
    /// Bytes that the job holds outside its directory and its processes.
    elsewhere: u64,
    /// Free inodes when the job started; 0 if the file system has no limit.
    inodes_before: u64,
    /// The program has not started, and waits for its controller.
    waits: bool,
    /// Sends the reason to the job's [`WatchHandle`]; closed when the job has released everything.
    verdict: watch::Sender<Option<Verdict>>,
}

/// Keeps a job watched until it is dropped.
pub struct WatchHandle {
    guard: Arc<OomGuard>,
    number: u32,
    verdict: watch::Receiver<Option<Verdict>>,
    /// The kernel's record of OOM kills when the job started.
    before: Killings,
}

impl OomGuard {
    /// Watches no job yet. May evict unused blobs of `store`.
    pub fn new(store: Arc<Store>) -> Arc<Self> {
        let mount = resources::mount_point(store.directory()).into();
        Arc::new(Self { store, mount, state: Mutex::default() })
    }

    /// Watches a running job: the process `pid`, its descendants, and the files in `directory`.
    pub fn watch(self: &Arc<Self>, pid: i32, directory: PathBuf) -> WatchHandle {
        self.add(pid, directory, 0, false)
    }

    /// Watches a job that waits for `Start`: its files in `directory`. The guard kills it before any job that runs.
    pub fn watch_waiting(self: &Arc<Self>, directory: PathBuf) -> WatchHandle {
        self.add(NO_PROCESS, directory, 0, true)
    }

    /// Watches the output of an ended job: its files in `directory`, and a number of bytes elsewhere.
    pub fn watch_files(self: &Arc<Self>, directory: PathBuf, elsewhere: u64) -> WatchHandle {
        self.add(NO_PROCESS, directory, elsewhere, false)
    }

    fn add(self: &Arc<Self>, pid: i32, directory: PathBuf, elsewhere: u64, waits: bool) -> WatchHandle {
        let (sender, verdict) = watch::channel(None);
        let inodes_before = self.inodes().map_or(0, |inodes| inodes.available);
        let mut state = self.state();
        state.count = state.count.wrapping_add(1);
        let (number, started) = (state.count, Instant::now());
        state.watched.push(Watched {
            number,
            pid,
            started,
            directory,
            elsewhere,
            inodes_before,
            waits,
            verdict: sender,
        });
        if !std::mem::replace(&mut state.running, true) {
            runtime::spawn(self.clone().run());
        }
        drop(state);
        let before = Killings::read(u32::try_from(pid).unwrap_or(0));
        WatchHandle { guard: self.clone(), number, verdict, before }
    }

    async fn run(self: Arc<Self>) {
        let mut poller = Poller::default();
        while self.is_needed() {
            let Pressure { surely_available, threads } = poller.poll();
            let (available, of_promises) = match surely_available {
                enough if enough >= LIMIT => (enough, false),
                // Without /proc the guard knows nothing; the next poll may find it mounted.
                _ => Memory::read()
                    .map_or((u64::MAX, false), |memory| (memory.least(), memory.least() < memory.available)),
            };
            // The output of ended jobs is small compared to a job's memory, and may not be enough.
            if available < LIMIT && self.store.evict_all() == 0 && available + self.store.reclaim() < LIMIT {
                self.kill_largest(available, of_promises).await;
            }
            let lasts = self.poll_other_resources(threads).await;
            sleep(interval(available).min(lasts)).await;
        }
    }

    /// Polls the inodes, and acts on the level of all resources other than memory. Returns the time until the next poll.
    async fn poll_other_resources(&self, threads: Option<Level>) -> Duration {
        let levels = [(Resource::Inodes(self.mount.clone()), self.inodes()), (Resource::Threads, threads)];
        let mut lasts = INTERVAL[1];
        for (resource, level) in levels {
            let Some(level) = level else { continue };
            // If no job here is the cause, polling all jobs more often is of no use.
            if level.missing() == 0 || self.kill_holder_of(resource, level).await {
                lasts = lasts.min(level.lasts());
            }
        }
        lasts.max(INTERVAL[0])
    }

    fn inodes(&self) -> Option<Level> {
        // Without an answer of the file system, there is nothing to guard.
        resources::inodes(self.store.directory()).ok().flatten()
    }

    /// Kills the job that holds most of the scarce resource, or the newest of several that hold equally much, and waits
    /// until it has released it. False if no job holds as much as is missing.
    pub(crate) async fn kill_holder_of(&self, resource: Resource, level: Level) -> bool {
        let chosen = {
            let state = self.state();
            let held: Vec<u64> = match &resource {
                Resource::Inodes(_) => {
                    state.watched.iter().map(|job| fs_walk::names(&job.directory)).collect()
                }
                Resource::Threads => {
                    reaper::threads(&state.watched.iter().map(|job| job.pid).collect::<Vec<_>>())
                }
            };
            let missing = level.missing();
            // A program that is root can create files elsewhere too: assume that it took all inodes that went while it
            // ran.
            let may_have = |job: &Watched| match &resource {
                Resource::Inodes(_) => job.inodes_before.saturating_sub(level.available),
                Resource::Threads => 0,
            };
            let jobs = state.watched.iter().zip(held);
            let to_blame = jobs.filter(|(job, held)| missing <= (*held).max(may_have(job)));
            to_blame
                .max_by_key(|(job, held)| (*held, job.started))
                .map(|(job, held)| (job.pid, job.verdict.clone(), held))
        };
        let Some((pid, sender, held)) = chosen else { return false };
        let Level { available, limit, .. } = level;
        end(pid, &sender, Verdict::Exhausted(Exhausted { resource, available, limit, held })).await;
        true
    }

    fn is_needed(&self) -> bool {
        let mut state = self.state();
        state.running = !state.watched.is_empty();
        state.running
    }

    /// Kills a job that waits for `Start`, or else the one that holds most memory, or the newest of several that hold
    /// equally much. Waits until the job has released it.
    pub(crate) async fn kill_largest(&self, available: u64, of_promises: bool) {
        let (pid, sender, held) = {
            let state = self.state();
            let roots: Vec<i32> = state.watched.iter().map(|job| job.pid).collect();
            let resident = reaper::resident(&roots).into_iter();
            let held = state.watched.iter().zip(resident);
            let held =
                held.map(|(job, sum)| (sum + fs_walk::usage(&job.directory).bytes + job.elsewhere, job));
            let Some((held, job)) = held.max_by_key(|(held, job)| (job.waits, *held, job.started)) else {
                return;
            };
            (job.pid, job.verdict.clone(), held)
        };
        end(pid, &sender, Verdict::Memory(OutOfMemory { available, held, of_promises })).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WatchHandle {
    /// Waits until the guard decides that the job must be killed. Cancel safe.
    pub async fn must_end(&self) -> Verdict {
        let mut receiver = self.verdict.clone();
        let verdict = receiver.wait_for(Option::is_some).await.ok().and_then(|verdict| verdict.clone());
        match verdict {
            Some(verdict) => verdict,
            // The guard keeps the sender until this handle is dropped.
            None => std::future::pending().await,
        }
    }

    /// True if the kernel's OOM killer sent the SIGKILL that killed this process, as happens when a program allocates
    /// faster than the guard polls. If the job's cgroup has a count of OOM kills, that count decides.
    pub fn kernel_was_first(&self, process: u32, cgroup: Option<&Cgroup>) -> bool {
        match cgroup.and_then(Cgroup::killed_for_memory) {
            Some(count) => count > 0,
            None => self.before.is_victim(&Killings::read(process)),
        }
    }
}

impl Drop for WatchHandle {
    fn drop(&mut self) {
        self.guard.state().watched.retain(|job| job.number != self.number);
    }
}

/// Tells a job to end, and waits until it has released its memory, for [`GOING_LIMIT`] at most.
async fn end(pid: i32, sender: &watch::Sender<Option<Verdict>>, verdict: Verdict) {
    // Has no effect on a job that got a verdict before and is still releasing its memory.
    sender.send_if_modified(|sent| {
        let is_first = sent.is_none();
        sent.get_or_insert(verdict);
        is_first
    });
    if timeout(GOING_LIMIT, sender.closed()).await.is_err() {
        tracing::warn!(pid, "a killed job has not released its memory yet");
    }
}

/// The time until the next poll: how long the available memory lasts at the fastest rate.
fn interval(available: u64) -> Duration {
    let lasts = Duration::from_millis(available.saturating_sub(LIMIT) / RATE);
    lasts.clamp(INTERVAL[0], INTERVAL[1])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    fn guard() -> Arc<OomGuard> {
        OomGuard::new(Store::new("/nonexistent".into(), None))
    }

    #[test]
    fn poll_interval_shrinks_with_free_memory() {
        assert_eq!(interval(0), INTERVAL[0]);
        assert_eq!(interval(LIMIT + (64 << 20)), Duration::from_millis(512));
        assert_eq!(interval(u64::MAX), INTERVAL[1]);
    }

    #[tokio::test]
    async fn one_guard_task_serves_all_jobs() {
        let guard = guard();
        for pid in 0..3 {
            drop(guard.watch(i32::MAX - pid, "/nonexistent".into()));
        }
        let handle = guard.watch(1 << 30, "/nonexistent".into());
        // The polling task has a reference too; no second one does.
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&guard), 3);
        drop(handle);
        assert!(!guard.is_needed());
    }

    #[tokio::test]
    async fn waiting_jobs_are_killed_before_running() {
        let guard = guard();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("large"), vec![1; 300_000]).unwrap();
        let runs = guard.watch(i32::MAX, directory.path().to_owned());
        let waits = guard.watch_waiting("/nonexistent".into());
        let ending = async {
            waits.must_end().await;
            drop(waits);
        };
        tokio::join!(guard.kill_largest(1234, false), ending);
        assert!(runs.verdict.borrow().is_none());
    }

    #[tokio::test]
    async fn largest_job_is_killed_with_amounts() {
        let guard = guard();
        let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        fs::write(directories[1].path().join("large"), vec![1; 300_000]).unwrap();
        // No such processes exist, so the jobs hold only the files in their directories.
        let [small, large] =
            [0, 1].map(|index| guard.watch(i32::MAX - index as i32, directories[index].path().to_owned()));
        let ending = async {
            let verdict = large.must_end().await;
            drop(large);
            verdict
        };
        let (_, verdict) = tokio::join!(guard.kill_largest(1234, false), ending);
        let Verdict::Memory(OutOfMemory { available: 1234, held, .. }) = verdict else {
            panic!("{verdict:?}")
        };
        assert!(held >= 300_000);
        assert!(small.verdict.borrow().is_none());
    }

    #[tokio::test]
    async fn job_with_most_inodes_is_killed() {
        let guard = guard();
        let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [few, many] =
            [0, 1].map(|index| guard.watch(i32::MAX - index as i32, directories[index].path().to_owned()));
        for number in 0..60 {
            fs::write(directories[1].path().join(number.to_string()), "").unwrap();
        }
        let resource = Resource::Inodes(Path::new("/tmp").into());
        // A job that holds fewer than are missing is not to blame.
        assert!(!guard.kill_holder_of(resource.clone(), Level::of_test(1000, 64, 125)).await);
        assert!(many.verdict.borrow().is_none());
        let ending = async {
            let verdict = many.must_end().await;
            drop(many);
            verdict
        };
        let (_, verdict) =
            tokio::join!(guard.kill_holder_of(resource.clone(), Level::of_test(1000, 65, 125)), ending);
        assert_eq!(verdict, Verdict::Exhausted(Exhausted { resource, available: 65, limit: 125, held: 60 }));
        assert!(few.verdict.borrow().is_none());
    }
}
