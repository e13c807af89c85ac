//! The guard over the router's memory, and over what else runs short ([`crate::system::resources`]): ends a job before the kernel ends
//! or refuses something that the router needs.
//!
//! Admission counts what a program brings; this watches what it takes while it runs, files that it writes included: they are
//! in RAM as well, and DD-WRT's ramfs has no limit of its own. **Invariants:** blobs that nobody uses, and then the output of
//! jobs that have ended, go before a job is killed; the guard looks only while jobs run, or the files of one wait for their controller; and the less there is left, the
//! sooner it looks again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::process::cgroup::Cgroup;
use crate::process::reaper;
use crate::store::blobs::Store;
use crate::system::fs_walk;
use crate::system::memory::{self, Memory, RESERVE};
use crate::system::oom_kills::Killings;
use crate::system::resources::{self, Exhausted, Level, Resource};
use crate::system::runtime;

/// When less than this is available, above the kernel's lowest watermark, a job is killed. A kernel since 5.0 gives up with more
/// than 5 MiB of that free: it raises its watermarks by up to a page block, 4 MiB on MIPS, and does not count that in
/// MemAvailable (watermark_boost_factor, admin-guide/sysctl/vm.rst). The rest of the reserve is what a program that was
/// admitted with nothing to spare takes to start.
///
/// Of what a kernel still promises that promises no more than it has, the same is left: one arena of Go's heap, 4 MiB, for
/// the job that takes it between two looks, and what such a kernel keeps back from each process (vm.user_reserve_kbytes).
pub const LIMIT: u64 = RESERVE / 4 * 3;

/// How fast memory can go, in bytes a millisecond: a router writes to its RAM at some 100 MB/s.
const RATE: u64 = 128 * 1024;

/// The shortest and the longest time between two looks. A look costs a 500 MIPS CPU 0.2 ms.
const INTERVAL: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// How long a job that was killed may take to give its memory back before the next one is killed.
const GOING_LIMIT: Duration = Duration::from_secs(3);

/// A number that no process has: Linux counts to 4,194,304 (proc_sys_kernel(5), pid_max).
const NO_PROCESS: i32 = i32::MAX;

/// Why a job was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Bytes that were available on the router.
    pub available: u64,
    /// Bytes that the job held: its processes, and the files that it wrote.
    pub held: u64,
    /// Not RAM was short: the kernel promises no more.
    pub of_promises: bool,
}

/// Why a job must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds most of the memory.
    Memory(OutOfMemory),
    /// It holds most of something else.
    Exhausted(Exhausted),
}

/// Watches over the jobs of one agent.
pub struct OomGuard {
    store: Arc<Store>,
    /// Where the file system is mounted that jobs work on.
    mount: Arc<Path>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    watched: Vec<Watched>,
    /// How many there ever were.
    count: u32,
    /// The task that looks is running. One that sleeps while the last job ends and the next one begins goes on.
    running: bool,
}

struct Watched {
    number: u32,
    pid: i32,
    started: Instant,
    directory: PathBuf,
    /// Bytes that it holds elsewhere.
    elsewhere: u64,
    /// Inodes that were left when it began, if the file system has a limit.
    inodes_before: u64,
    /// Nothing of it runs yet.
    waits: bool,
    /// Why the job must end, for its [`WatchHandle`]; closed when the job is gone.
    verdict: watch::Sender<Option<Verdict>>,
}

/// A job that is watched over, until this is dropped.
pub struct WatchHandle {
    guard: Arc<OomGuard>,
    number: u32,
    verdict: watch::Receiver<Option<Verdict>>,
    /// The kernel's record of OOM kills when the job began.
    before: Killings,
}

impl OomGuard {
    /// Watches over nothing yet, and may let go what nobody uses of `store`.
    pub fn new(store: Arc<Store>) -> Arc<Self> {
        let mount = resources::mount_point(store.directory()).into();
        Arc::new(Self { store, mount, state: Mutex::default() })
    }

    /// Watches over a job: the process `pid`, with all that is below it, and what is in `directory`.
    pub fn watch(self: &Arc<Self>, pid: i32, directory: PathBuf) -> WatchHandle {
        self.add(pid, directory, 0, false)
    }

    /// Watches over what a job has brought that waits for its turn: what is in `directory`. It is killed before any that runs.
    pub fn watch_waiting(self: &Arc<Self>, directory: PathBuf) -> WatchHandle {
        self.add(NO_PROCESS, directory, 0, true)
    }

    /// Watches over what a job has left: what is in `directory`, and so many bytes elsewhere.
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
        while self.is_needed() {
            let (available, of_promises) = match memory::surely_available() {
                enough if enough >= LIMIT => (enough, false),
                // Without /proc there is nothing to guard by, and the next look may find it.
                _ => Memory::read()
                    .map_or((u64::MAX, false), |memory| (memory.least(), memory.least() < memory.available)),
            };
            // Output of ended jobs is less than what a job has, and may not do.
            if available < LIMIT && self.store.evict_all() == 0 && available + self.store.reclaim() < LIMIT {
                self.end_largest(available, of_promises).await;
            }
            let lasts = self.look_beside_memory().await;
            sleep(interval(available).min(lasts)).await;
        }
    }

    /// Looks at what a job can use up beside memory; gives how soon that is to be looked at again.
    async fn look_beside_memory(&self) -> Duration {
        let levels = [
            (Resource::Inodes(self.mount.clone()), self.inodes()),
            (Resource::Threads, resources::threads()),
        ];
        let mut lasts = INTERVAL[1];
        for (resource, level) in levels {
            let Some(level) = level else { continue };
            // If it is nobody's doing here, to look through all jobs again and again is of no use.
            if level.missing() == 0 || self.end_for(resource, level).await {
                lasts = lasts.min(level.lasts());
            }
        }
        lasts.max(INTERVAL[0])
    }

    fn inodes(&self) -> Option<Level> {
        // A file system that does not answer is none that could be guarded.
        resources::inodes(self.store.directory()).ok().flatten()
    }

    /// Ends the job that holds most of what runs short, the newest of those that hold the same, and waits until it is gone. False
    /// if none holds as much as is missing.
    pub(crate) async fn end_for(&self, resource: Resource, level: Level) -> bool {
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
            // One that is root makes files elsewhere, too: while it ran, so many have gone.
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

    /// Ends a job that waits for its turn, or else the one that holds most, the newest of those that hold the same; and waits
    /// until it is gone.
    pub(crate) async fn end_largest(&self, available: u64, of_promises: bool) {
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
    /// Waits until the job must be ended. Cancel safe.
    pub async fn must_end(&self) -> Verdict {
        let mut receiver = self.verdict.clone();
        let verdict = receiver.wait_for(Option::is_some).await.ok().and_then(|verdict| verdict.clone());
        match verdict {
            Some(verdict) => verdict,
            // The guard keeps the sender until this handle goes.
            None => std::future::pending().await,
        }
    }

    /// True if the kernel has killed this process, which a SIGKILL ended, for want of memory, as it does when memory goes faster
    /// than the guard looks. Where the kernel counts for the job's cgroup, that decides.
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

/// Ends a job and waits until it is gone.
async fn end(pid: i32, sender: &watch::Sender<Option<Verdict>>, verdict: Verdict) {
    // Ended already, and not gone yet: what it has is on its way back.
    sender.send_if_modified(|sent| {
        let is_first = sent.is_none();
        sent.get_or_insert(verdict);
        is_first
    });
    if timeout(GOING_LIMIT, sender.closed()).await.is_err() {
        tracing::warn!(pid, "a job that was killed for what it held is still there");
    }
}

/// How long what is available lasts at the fastest rate.
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
        // This and the one that stands; no further one holds the guard.
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
        tokio::join!(guard.end_largest(1234, false), ending);
        assert!(runs.verdict.borrow().is_none());
    }

    #[tokio::test]
    async fn largest_job_is_killed_with_figures() {
        let guard = guard();
        let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        fs::write(directories[1].path().join("large"), vec![1; 300_000]).unwrap();
        // No such processes, so what they hold is what is in their directories.
        let [small, large] =
            [0, 1].map(|index| guard.watch(i32::MAX - index as i32, directories[index].path().to_owned()));
        let ending = async {
            let verdict = large.must_end().await;
            drop(large);
            verdict
        };
        let (_, verdict) = tokio::join!(guard.end_largest(1234, false), ending);
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
        assert!(!guard.end_for(resource.clone(), Level::of_test(1000, 64, 125)).await);
        assert!(many.verdict.borrow().is_none());
        let ending = async {
            let verdict = many.must_end().await;
            drop(many);
            verdict
        };
        let (_, verdict) =
            tokio::join!(guard.end_for(resource.clone(), Level::of_test(1000, 65, 125)), ending);
        assert_eq!(verdict, Verdict::Exhausted(Exhausted { resource, available: 65, limit: 125, held: 60 }));
        assert!(few.verdict.borrow().is_none());
    }
}
