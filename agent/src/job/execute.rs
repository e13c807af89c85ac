//! One run of a program, from its admission to its outcome.
//!
//! A job owns all that it uses on the router: one of the slots for jobs, blobs, a directory, a process group.
//!
//! **Invariants:** the agent has released all of these before it sends the outcome to the controller, and it releases
//! them on every other path too, because a value owns each of them and releases it when dropped.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::files::core_dump::{self, Expected};
use crate::job::artifacts::FinishedProgram;
use crate::job::environment::{Arguments, environment};
use crate::job::error::Error;
use crate::job::job_log::{Controller, JobLog};
use crate::job::oom_guard::{OutOfMemory, Verdict};
use crate::job::outcome::Outcome;
use crate::job::registry::JobRegistry;
use crate::job::running::{Running, is_set};
use crate::job::session::{JobCommand, JobCommands, Phase, Session};
use crate::job::spec::Spec;
use crate::job::upload::{BlobState, receive};
use crate::job::workspace::JobDirectory;
use crate::process::child::{self, Child, Start};
use crate::process::user::User;
use crate::store::accounting::Reservation;
use crate::store::error as store;
use crate::system::error as system;
use crate::system::host;
use crate::system::resources::Exhausted;

/// A job that has been admitted, with its slot and its reservation, but perhaps without its program.
pub struct Job {
    jobs: Arc<JobRegistry>,
    session: Arc<Session>,
    commands: JobCommands,
    spec: Spec,
    /// The program, then the archives of its input files.
    parts: Vec<BlobState>,
    /// Reserved space for the input files.
    reservation: Reservation,
    place: OwnedSemaphorePermit,
}

impl Job {
    /// Takes over everything that the registry has reserved for the job.
    pub fn new(
        jobs: Arc<JobRegistry>,
        session: Arc<Session>,
        commands: JobCommands,
        spec: Spec,
        parts: Vec<BlobState>,
        reservation: Reservation,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self { jobs, session, commands, spec, parts, reservation, place }
    }

    /// The session to which the controller attaches.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Runs the job of `controller`, and then keeps its result until the job is released or its controller is away for
    /// too long.
    pub async fn run(self, controller: Controller) {
        let (jobs, session) = (self.jobs.clone(), self.session.clone());
        let log = JobLog::new(controller, &self.spec);
        let last = self.execute().await;
        jobs.store.trim();
        if last.is_err() {
            // A failed job has no outcome that would count its orphans.
            jobs.reaper.kill_orphans(None, None).await;
        }
        log.ended(session.job(), &last);
        session.end(last);
        jobs.bound_ended();
        session.abandoned().await;
        jobs.forget(&session);
    }

    async fn execute(self) -> Result<Outcome, Error> {
        let Self { jobs, session, mut commands, spec, mut parts, reservation, place } = self;
        if let Some(disk_cache) = &jobs.disk_cache {
            let mut fetched = Vec::new();
            for part in parts {
                fetched.push(part.fetch(disk_cache, &session, &jobs).await?);
            }
            parts = fetched;
        }
        let mut blobs = receive(parts, &spec, &session, &mut commands, &jobs).await?;
        if let Some(disk_cache) = &jobs.disk_cache {
            disk_cache.put(blobs[0].clone(), spec.program.digest, session.owner(), jobs.is_stopping());
        }
        session.set_phase(Phase::Complete);
        let directory = JobDirectory::create(&jobs.directory, &jobs.names)?;
        let executable = directory.executable(&spec.name);
        blobs[0].link_to(&executable)?;
        if let Some(user) = &spec.user {
            directory.open_to(user)?;
        }
        for (tree, archive) in spec.inputs.iter().zip(&blobs[1..]) {
            let archive = archive.open().map_err(Error::io("read", &directory.work()))?;
            let most = jobs.store.spare_inodes()?;
            let parent = if tree.is_aside { directory.path().to_owned() } else { directory.work() };
            tree.unpack(archive, &parent, spec.user.as_ref(), most).await?;
        }
        drop((reservation, blobs.split_off(1)));
        if spec.hold {
            wait_for_start(directory.path(), &session, &mut commands, &jobs).await?;
        }
        let mut memory = jobs.store.spare_memory()?;
        let owner = spec.user.as_ref().map(|user| user.uid);
        let start_in = directory.work().join(&spec.working_directory);
        if !start_in.is_dir() {
            return Err(Error::Protocol("the working directory of the program does not exist"));
        }
        let expect = || Expected::new(&start_in, directory.path(), owner);
        let mut core = spec.core.then(expect).transpose()?;
        let core_limit = core.as_ref().map_or(0, |_| core_dump::limit(memory));
        memory -= core_limit;
        if spec.hold {
            // The next program is uploaded while this one runs; and Go exceeds its limit for a while.
            memory /= 2;
        }
        let home = match &spec.user {
            Some(user) => user.home.clone(),
            None => User::own_home(),
        };
        let work = directory.work();
        let mut arguments = Arguments::new(&spec.workdir_placeholder, work.as_os_str());
        let args = spec.args.iter().map(|arg| arguments.argument(arg)).collect::<Result<Vec<_>, _>>();
        let env = environment(&spec, &directory, home.as_deref(), memory, &mut arguments);
        let (args, env) = match args.and_then(|args| Ok((args, env?))) {
            Ok(both) => both,
            Err(error) => return Ok(Outcome::NotExecuted(error.to_string())),
        };
        let cgroups = jobs.reaper.cgroups.as_ref();
        let cgroup = cgroups.and_then(|cgroups| cgroups.make(session.job()));
        let start = Start {
            program: &executable,
            launcher: &jobs.launcher,
            args: &args,
            env: &env,
            working_directory: &start_in,
            nice: spec.nice,
            user: spec.user.as_ref(),
            merges_outputs: spec.merges_outputs,
            terminal: spec.terminal,
            cgroup: cgroup.as_ref(),
            core: core_limit,
        };
        let started = if is_program(&executable)? {
            Child::start(&start, &jobs.reaper)
        } else {
            Err(child::not_executable())
        };
        let mut ran = match started {
            Ok((child, streams)) => {
                let program = spec.name.display();
                tracing::info!(job = %session.job(), pid = child.id(), %program, "job started");
                if let Some(core) = &mut core {
                    core.started(child.id());
                }
                let running = Running::new(child, cgroup, &spec, session.clone(), &jobs, directory.path());
                running.run_to_exit(streams, &mut commands).await?
            }
            Err(error) if is_ours(&error, &jobs.launcher) => return Err(Error::NotStarted(error)),
            Err(error) => return Ok(Outcome::NotExecuted(error.to_string())),
        };
        // The job releases its space before its controller gets the outcome, so that the next job can rely on it. The
        // store keeps the program in its cache, and evicts it as soon as it needs the space.
        drop((blobs, commands));
        let left = FinishedProgram { directory, place };
        let core = core.filter(|_| ran.ending.has_core()).map(Expected::take);
        if !spec.output_files.is_empty() || core.is_some() {
            ran.files_lost = left.offer(&spec, ran.cause.clone(), core, &session, &jobs).await;
        }
        Ok(Outcome::Ran(ran))
    }
}

fn is_program(path: &Path) -> Result<bool, Error> {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| (&file).take(64).read_to_end(&mut start));
    read.map_err(Error::io("read", path))?;
    Ok(host::can_execute(&start))
}

/// True if the program itself is not the reason why it did not start: the kernel had no memory, process or file
/// descriptor left (fork(2), pipe(2)), or the launcher does not exist.
fn is_ours(error: &io::Error, launcher: &[OsString]) -> bool {
    child::is_scarcity(error) || !launcher.is_empty() && error.kind() == io::ErrorKind::NotFound
}

/// Waits for the controller's `Start`. Fails if the router needs the memory; the controller then retries later.
async fn wait_for_start(
    directory: &Path,
    session: &Session,
    commands: &mut JobCommands,
    jobs: &JobRegistry,
) -> Result<(), Error> {
    let mut stopping = jobs.stopping();
    let handle = jobs.guard.watch_waiting(directory.to_owned());
    loop {
        let command = tokio::select! {
            biased;
            command = commands.recv() => command.ok_or(Error::Gone)?,
            () = session.abandoned() => return Err(Error::Gone),
            () = is_set(&mut stopping) => return Err(Error::Stopping),
            verdict = handle.must_end() => {
                let directory = jobs.store.directory().to_owned();
                return Err(match verdict {
                    Verdict::Memory(OutOfMemory { available, held: needed, of_promises: true }) => {
                        system::Error::NoPromise { needed, available }.into()
                    }
                    Verdict::Memory(OutOfMemory { available, held: needed, of_promises: false }) => {
                        system::Error::NoMemory { needed, available }.into()
                    }
                    Verdict::Exhausted(Exhausted { available, held, .. }) => {
                        store::Error::NoInodes { needed: held, available, directory }.into()
                    }
                });
            }
        };
        match command {
            JobCommand::Start => return Ok(()),
            JobCommand::Signal(_) => return Err(Error::Gone),
            JobCommand::Resize(_) => {}
            JobCommand::Chunk(_) => return Err(Error::Protocol("the program is complete")),
            JobCommand::Fault(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::*;
    use crate::job::outcome::Ran;
    use crate::job::session::{Event, Request};
    use crate::process::child::Ending;
    use crate::process::reaper::ProcessReaper;
    use crate::store::blobs::Store;
    use crate::store::decoder::Encoding;
    use crate::store::disk_cache::DiskCache;
    use crate::store::receiver::Chunk;

    /// Runs a script that exits with 3, and uploads it if the agent asks for it. Returns whether the agent did.
    async fn is_requested(jobs: &Arc<JobRegistry>) -> bool {
        const SCRIPT: &[u8] = b"#!/bin/sh\nexit 3\n";
        let spec = Spec::of_test(SCRIPT);
        let job = jobs.admit(spec, format!("SHA256:{}", "0".repeat(64)).parse().unwrap()).unwrap();
        let mut replies = job.session().connect([None, None], None, false).unwrap();
        let mut requests = replies.requests();
        let run = tokio::spawn(job.run(Controller::of_test()));
        let Some(Event::Accepted { needs, .. }) = replies.recv().await else {
            panic!("it is accepted first");
        };
        if !needs.is_empty() {
            let data = Bytes::from_static(SCRIPT);
            let chunk = Chunk { offset: 0, encoding: Some(Encoding::Identity), data };
            assert!(requests.handle(Request::Chunk(chunk)).await);
        }
        while let Some(reply) = replies.recv().await {
            if let Event::Ended(last) = reply {
                let Ok(Outcome::Ran(Ran { ending: Ending::Exited(3), .. })) = &*last else {
                    panic!("{last:?}");
                };
            }
        }
        drop(requests);
        run.await.unwrap();
        assert_eq!(jobs.list().len(), 0);
        jobs.store.evict_all();
        !needs.is_empty()
    }

    #[tokio::test]
    async fn cached_program_is_uploaded_only_if_broken() {
        // /tmp may be a tmpfs, where no disk cache can be.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let [ram, kept, work] = ["ram", "kept", "work"].map(|name| dir.path().join(name));
        for directory in [&ram, &kept, &work] {
            std::fs::create_dir(directory).unwrap();
        }
        let new = || {
            let disk_cache = DiskCache::new(kept.clone());
            let store = Store::new(ram.clone(), None);
            // With a launcher, the script itself is not executed: other tests fork meanwhile ("text file busy").
            Arc::new(JobRegistry::new(
                store,
                Some(disk_cache),
                ProcessReaper::of_none(),
                work.clone(),
                vec!["/bin/sh".into()],
            ))
        };
        let only_file = || {
            let mut files = std::fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path());
            files.next().filter(|file| file.extension().is_none())
        };
        let jobs = new();
        jobs.disk_cache.as_ref().unwrap().idle().await;
        assert!(is_requested(&jobs).await, "at first");
        jobs.disk_cache.as_ref().unwrap().idle().await;
        assert!(!is_requested(&jobs).await);
        let jobs = new();
        jobs.disk_cache.as_ref().unwrap().idle().await;
        assert!(!is_requested(&jobs).await, "after a restart");
        std::fs::write(only_file().unwrap(), b"#!/bin/sh\nexit 4\n").unwrap();
        assert!(is_requested(&jobs).await, "when it is broken");
        jobs.disk_cache.as_ref().unwrap().idle().await;
        assert!(!is_requested(&jobs).await, "and then it is good again");
        jobs.stop().await;
        assert_eq!(std::fs::read_dir(&ram).unwrap().count() + std::fs::read_dir(&work).unwrap().count(), 0);
    }
}
