//! The artifacts of a job, from the exit of its program until its controller has fetched them.
//!
//! **Invariants:** files wait for a controller as long as the job's outcome would, and no longer: for its disconnect
//! timeout, or until eight more jobs have ended; the agent discards them as soon as the router needs their memory, or
//! the agent stops; and a controller that does not get them learns why.

use std::fs::File;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::files::outputs::{ArtifactSet, Problem};
use crate::job::outcome::Cause;
use crate::job::registry::JobRegistry;
use crate::job::running::is_set;
use crate::job::session::Session;
use crate::job::spec::Spec;
use crate::job::workspace::JobDirectory;

/// The resources that a program still holds after its exit.
pub struct FinishedProgram {
    /// The job's directory.
    pub directory: JobDirectory,
    /// The job's slot.
    pub place: OwnedSemaphorePermit,
}

impl FinishedProgram {
    /// Offers the requested artifacts of a program that ended by `cause`, and its core dump, to the controller, and
    /// releases everything else. Returns the reason if the controller does not get them.
    pub async fn offer(
        self,
        spec: &Spec,
        cause: Cause,
        core: Option<(Vec<u8>, Result<File, Problem>)>,
        session: &Arc<Session>,
        jobs: &JobRegistry,
    ) -> Option<Cause> {
        let Self { directory, place } = self;
        if matches!(
            cause,
            Cause::Memory(_) | Cause::Exhausted(_) | Cause::AgentStopped | Cause::ControllerGone
        ) {
            return Some(cause);
        }
        directory.remove_program();
        let (work, owner) = (directory.work(), spec.user.as_ref().map(|user| user.uid));
        let mut offer = ArtifactSet::find(&work, &spec.output_files, owner, spec.output_window);
        // The core has been unlinked, and so is not in the directory.
        let mut elsewhere = 0;
        if let Some((name, core)) = core {
            let length = |core: &File| core.metadata().map_or(0, |metadata| metadata.len());
            elsewhere = core.as_ref().map_or(0, length);
            offer.add_core(&name, core);
        }
        // Nobody knows when a controller fetches the files of a detached job, so they must not occupy a slot.
        let _place = (!session.is_detached()).then_some(place);
        let handle = jobs.guard.watch_files(directory.path().to_owned(), elsewhere + session.unread());
        let mut stopping = jobs.stopping();
        session.offer(offer);
        jobs.bound_ended();
        let lost = tokio::select! {
            // A controller that has everything need not know what happened afterwards.
            biased;
            () = session.fetched() => None,
            () = session.abandoned() => Some(Cause::ControllerGone),
            verdict = handle.must_end() => Some(verdict.into()),
            () = is_set(&mut stopping) => Some(Cause::AgentStopped),
        };
        session.withdraw();
        lost
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use tokio::sync::Semaphore;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::job::oom_guard::OutOfMemory;
    use crate::job::session::Ownership;
    use crate::job::workspace::Names;
    use crate::process::reaper::ProcessReaper;
    use crate::store::blobs::Store;

    const LINGER: Duration = Duration::from_secs(60);

    /// A job whose program has left a file of 1,000 bytes and a core of 2,000.
    struct Fixture {
        jobs: Arc<JobRegistry>,
        session: Arc<Session>,
        job: std::path::PathBuf,
        outcome: JoinHandle<Option<Cause>>,
    }

    async fn fixture(ground: &Path, linger: Option<Duration>, cause: Cause) -> Fixture {
        let [ram, work] = ["ram", "work"].map(|name| ground.join(name));
        for directory in [&ram, &work] {
            fs::create_dir(directory).unwrap();
        }
        let jobs = Arc::new(JobRegistry::new(
            Store::new(ram, None),
            None,
            ProcessReaper::of_none(),
            work.clone(),
            Vec::new(),
        ));
        let (session, _) = Session::new("7".into(), Ownership::of_test(linger));
        let directory = JobDirectory::create(&work, &Names::default()).unwrap();
        let job = directory.path().to_owned();
        fs::write(directory.work().join("x"), [7; 1000]).unwrap();
        fs::write(directory.executable("program".as_ref()), [7; 4000]).unwrap();
        let core = ground.join("core");
        fs::write(&core, [7; 2000]).unwrap();
        let core = Some((b"core".to_vec(), Ok(File::open(core).unwrap())));
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (spec, of) = (Spec { output_files: vec![b"x".to_vec()], ..Spec::of_test(b"") }, session.clone());
        let its = jobs.clone();
        let outcome = tokio::spawn(async move {
            FinishedProgram { directory, place }.offer(&spec, cause, core, &of, &its).await
        });
        tokio::task::yield_now().await;
        Fixture { jobs, session, job, outcome }
    }

    #[tokio::test]
    async fn low_memory_discards_waiting_files() {
        let ground = tempfile::tempdir().unwrap();
        let Fixture { jobs, job, outcome, .. } = fixture(ground.path(), None, Cause::Program).await;
        assert!(job.join("w/x").exists() && !job.join("bin").exists(), "the program itself is not kept");
        jobs.guard.kill_largest(1234, false).await;
        let Some(Cause::Memory(OutOfMemory { available: 1234, held, .. })) = outcome.await.unwrap() else {
            panic!("the cause is reported")
        };
        // With a kilobyte each for the directory and the file.
        assert!((5000..6000).contains(&held), "{held}");
        assert!(!job.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn files_wait_for_the_disconnect_timeout() {
        let ground = tempfile::tempdir().unwrap();
        let Fixture { session, job, mut outcome, .. } =
            fixture(ground.path(), Some(LINGER), Cause::Program).await;
        let replies = session.connect([None, None], None, false).unwrap();
        let requests = replies.requests();
        assert!(tokio::time::timeout(10 * LINGER, &mut outcome).await.is_err(), "it is there");
        drop((requests, replies));
        assert!(tokio::time::timeout(LINGER / 2, &mut outcome).await.is_err());
        assert_eq!(outcome.await.unwrap(), Some(Cause::ControllerGone));
        assert!(!job.exists());
    }

    #[tokio::test]
    async fn agent_shutdown_discards_waiting_files() {
        let ground = tempfile::tempdir().unwrap();
        let Fixture { jobs, job, outcome, .. } = fixture(ground.path(), None, Cause::Program).await;
        jobs.stop().await;
        assert_eq!(outcome.await.unwrap(), Some(Cause::AgentStopped));
        assert!(!job.exists());
        let ground = tempfile::tempdir().unwrap();
        let shortage = Cause::Memory(OutOfMemory { available: 1, held: 2, of_promises: false });
        let Fixture { job, outcome, .. } = fixture(ground.path(), None, shortage.clone()).await;
        assert_eq!(outcome.await.unwrap(), Some(shortage));
        assert!(!job.exists());
    }
}
