//! One run of a program, from its admission to its outcome.
//!
//! A job owns everything that it brings to the router: a place among the jobs, a blob, a directory, a process group. What
//! must stay true: all of that is gone before the controller hears the outcome, and it goes on every other path too,
//! because each thing is owned by a value that gives it back when dropped.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::Signal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_stream::{Stream, StreamExt};

use crate::child::{Child, Ending, Pipes, Start, Usage};
use crate::error::Error;
use crate::family::{Family, Orphans};
use crate::guard::{Guard, Shortage, Ward};
use crate::input;
use crate::machine;
use crate::output::{self, Control, Summary};
use crate::shelf::{GivenUp, Shelf};
use crate::store::{Blob, Digest, Store, Upload};
use crate::tree;

/// Jobs at a time. Each one has a program in RAM, so memory is refused long before this on a 64 MB router; the limit
/// bounds what a mistake costs on a larger one.
pub const MAX_JOBS: u32 = 8;

/// Messages on their way to a controller, of at most one output chunk each.
pub const OUTBOX_MESSAGES: usize = 8;

/// How long an upload may stand still before its promised memory is taken back.
const UPLOAD_PATIENCE: Duration = Duration::from_secs(60);

/// Longest time between TERM and KILL when the agent itself is stopped: procd kills it after 5 s.
const STOPPING_GRACE: Duration = Duration::from_secs(3);

/// Where programs look for programs, if the agent was started without a PATH: what OpenWrt's init sets.
const DEFAULT_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// What GOMEMLIMIT is at least, in bytes: below it Go does little else than collect garbage, and starts with this.
const LEAST_GO_MEMORY: u64 = 4 * 1024 * 1024;

/// The variable that names a job's directory: the mark by which a next agent finds what this one left.
pub const JOB_DIRECTORY: &str = "HOP_JOB_DIR";

/// What to run.
#[derive(Debug)]
pub struct Spec {
    /// File name of the program.
    pub name: OsString,
    /// Digest of the program.
    pub digest: Digest,
    /// Size of the program in bytes.
    pub size: u64,
    /// argv[1] and on.
    pub args: Vec<OsString>,
    /// Added to the environment that every program gets.
    pub env: Vec<(OsString, OsString)>,
    /// When to end it.
    pub timeout: Option<Duration>,
    /// When to end it after its last output.
    pub idle_timeout: Option<Duration>,
    /// Time between TERM and KILL.
    pub grace: Duration,
    /// Bytes of each output that may be unacknowledged.
    pub output_window: u64,
}

/// What a controller says during a job.
#[derive(Debug)]
pub enum FromController {
    /// A piece of the program.
    Chunk {
        /// Where it belongs.
        offset: u64,
        /// What it is.
        data: Bytes,
    },
    /// A piece of standard input.
    Stdin {
        /// Where it belongs.
        offset: u64,
        /// What it is.
        data: Bytes,
        /// Nothing follows.
        end: bool,
    },
    /// A signal for the process group.
    Signal(Signal),
    /// How far an output was passed on.
    Acknowledge {
        /// Which output.
        stream: OutputStream,
        /// Everything before this is done.
        offset: u64,
        /// Nobody reads it any more.
        closed: bool,
    },
}

/// What a job says to its controller.
#[derive(Debug)]
pub enum ToController {
    /// There is room.
    Accepted {
        /// The job's name.
        job: String,
        /// The blob to send, and from where on; `None` if the agent has it.
        needs: Option<(Digest, u64)>,
    },
    /// The program runs.
    Started,
    /// A piece of output.
    Output {
        /// Which output.
        stream: OutputStream,
        /// Where it belongs.
        offset: u64,
        /// What it is.
        data: Bytes,
    },
    /// How far the program read.
    StdinAck {
        /// Everything before this is in its pipe.
        offset: u64,
        /// It reads no more.
        closed: bool,
    },
    /// The last message.
    Outcome(Outcome),
}

/// One of the two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// How a job ended.
#[derive(Debug)]
pub enum Outcome {
    /// The program ran.
    Ran(Ran),
    /// The kernel refused to execute it.
    NotExecuted(String),
}

/// How a program that ran ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code or signal.
    pub ending: Ending,
    /// Who ended it.
    pub cause: Cause,
    /// What it used.
    pub usage: Usage,
    /// From its start to its end.
    pub wall: Duration,
    /// What it wrote to standard output.
    pub stdout: Summary,
    /// What it wrote to standard error.
    pub stderr: Summary,
    /// What it had left behind.
    pub orphans: Orphans,
}

/// Who ended a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It did, or a signal that somebody sent.
    Program,
    /// Its time was over.
    Timeout,
    /// It was silent for too long.
    IdleTimeout,
    /// It held most of the memory when that ran out.
    Memory(Shortage),
    /// The agent is stopping.
    AgentStopped,
    /// The controller is gone.
    ControllerGone,
}

/// The job's way to its controller.
pub type Outbox = mpsc::Sender<Result<ToController, Error>>;

/// All jobs of this agent, and what they share.
pub struct Jobs {
    store: Arc<Store>,
    shelf: Option<Arc<Shelf>>,
    family: Arc<Family>,
    guard: Arc<Guard>,
    directory: PathBuf,
    launcher: Vec<OsString>,
    places: Arc<Semaphore>,
    /// Distinguishes this start of the agent from the ones before it, since the router booted.
    epoch: u64,
    count: AtomicU32,
    stopping: watch::Sender<bool>,
}

impl Jobs {
    /// Keeps the jobs' directories in `directory`, which must be an empty directory on the file system of `store`.
    pub fn new(
        store: Arc<Store>,
        shelf: Option<Arc<Shelf>>,
        family: Arc<Family>,
        directory: PathBuf,
        launcher: Vec<OsString>,
    ) -> Self {
        Self {
            store,
            shelf,
            family,
            guard: Arc::default(),
            directory,
            launcher,
            places: Arc::new(Semaphore::new(MAX_JOBS as usize)),
            epoch: machine::uptime_ms(),
            count: AtomicU32::new(0),
            stopping: watch::Sender::new(false),
        }
    }

    /// The files that jobs share.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// True if everything that a program starts is ended with it.
    pub fn contains_everything(&self) -> bool {
        self.family.finds_everything()
    }

    /// Words in front of every program.
    pub fn launcher(&self) -> &[OsString] {
        &self.launcher
    }

    /// Jobs that hold a place now.
    pub fn running(&self) -> u32 {
        MAX_JOBS - self.places.available_permits() as u32
    }

    /// Decides whether a job may come in, before anything of it is received.
    ///
    /// # Errors
    /// The reason why not, with figures.
    pub fn admit(self: &Arc<Self>, spec: Spec) -> Result<Job, Error> {
        if *self.stopping.borrow() {
            return Err(Error::Stopping);
        }
        let place =
            self.places.clone().try_acquire_owned().map_err(|_| Error::TooManyJobs { limit: MAX_JOBS })?;
        if !self.store.is_executable()? {
            return Err(Error::NotExecutable(self.store.directory().to_owned()));
        }
        let program = match self.store.get(&spec.digest) {
            Some(blob) => Program::Here(blob),
            None => Program::OnItsWay(Box::new(self.store.upload(spec.digest, spec.size)?)),
        };
        let id = format!("{:x}-{}", self.epoch, self.count.fetch_add(1, Ordering::Relaxed) + 1);
        Ok(Job { jobs: self.clone(), id, spec, program, place })
    }

    /// Ends all jobs, and waits until they are gone. New ones are refused from now on.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        // The semaphore is never closed; all places free means that no job is left.
        let _ = self.places.acquire_many(MAX_JOBS).await;
        if let Some(shelf) = &self.shelf {
            shelf.idle().await;
        }
    }

    /// For another thread: whether the agent is stopping.
    fn is_stopping(&self) -> GivenUp {
        let stopping = self.stopping.subscribe();
        Box::new(move || *stopping.borrow())
    }
}

enum Program {
    Here(Arc<Blob>),
    OnItsWay(Box<Upload>),
}

/// A job that has its place and its room, but may still miss its program.
pub struct Job {
    jobs: Arc<Jobs>,
    id: String,
    spec: Spec,
    program: Program,
    place: OwnedSemaphorePermit,
}

impl Job {
    /// The job's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Sees the job through. Whatever happens is told to `outbox`, the outcome or an error last.
    pub async fn run(self, inbox: impl Stream<Item = Result<FromController, Error>> + Unpin, outbox: Outbox) {
        let id = self.id.clone();
        let family = self.jobs.family.clone();
        let last = self.run_to_outcome(inbox, &outbox).await;
        if last.is_err() {
            // Of a job that failed nobody counts what it left.
            family.end_orphans(None).await;
        }
        match &last {
            Ok(outcome) => tracing::info!(job = id, ?outcome, "job ended"),
            Err(error) => tracing::warn!(job = id, %error, "job failed"),
        }
        // Fails if the controller is gone, and then there is nobody to tell.
        let _ = outbox.send(last.map(ToController::Outcome)).await;
    }

    async fn run_to_outcome(
        self,
        mut inbox: impl Stream<Item = Result<FromController, Error>> + Unpin,
        outbox: &Outbox,
    ) -> Result<Outcome, Error> {
        let Self { jobs, id, spec, program, place } = self;
        let program = match (program, &jobs.shelf) {
            (Program::OnItsWay(upload), Some(shelf)) => {
                fetch(shelf, upload, outbox, jobs.is_stopping()).await?
            }
            (program, _) => program,
        };
        let needs = match &program {
            Program::Here(_) => None,
            Program::OnItsWay(upload) => Some((spec.digest, upload.offset())),
        };
        tell(outbox, ToController::Accepted { job: id.clone(), needs }).await?;
        let blob = match program {
            Program::Here(blob) => blob,
            Program::OnItsWay(upload) => {
                let blob = receive(*upload, &mut inbox, jobs.stopping.subscribe()).await?;
                if let Some(shelf) = &jobs.shelf {
                    shelf.keep(blob.clone(), spec.digest, jobs.is_stopping());
                }
                blob
            }
        };
        let directory = JobDirectory::create(&jobs.directory, &id)?;
        let executable = directory.path.join("bin").join(&spec.name);
        let working_directory = directory.path.join("work");
        create_directory(&directory.path.join("bin"))?;
        create_directory(&working_directory)?;
        blob.link_to(&executable)?;
        let memory = jobs.store.spare_memory()?;
        let env = environment(&spec.env, &directory.path, &working_directory, memory);
        let start = Start {
            program: &executable,
            launcher: &jobs.launcher,
            args: &spec.args,
            env: &env,
            working_directory: &working_directory,
        };
        let started = if is_program(&executable)? {
            Child::start(&start, &jobs.family)
        } else {
            Err(io::Error::from_raw_os_error(libc::ENOEXEC))
        };
        let outcome = match started {
            Ok((child, pipes)) => {
                tracing::info!(job = id, pid = child.id(), program = ?spec.name, "job started");
                tell(outbox, ToController::Started).await?;
                let running = Running::new(child, &spec, outbox.clone(), &jobs, &directory.path);
                Outcome::Ran(running.see_through(pipes, &mut inbox).await?)
            }
            Err(error) if is_ours(&error, &jobs.launcher) => return Err(Error::NotStarted(error)),
            Err(error) => Outcome::NotExecuted(error.to_string()),
        };
        // Nothing of a job is left when its outcome is told: the next one may count on the room.
        drop((directory, blob, place));
        Ok(outcome)
    }
}

fn is_program(path: &Path) -> Result<bool, Error> {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(64).read_to_end(&mut start));
    read.map_err(Error::io("read", path))?;
    Ok(machine::can_execute(&start))
}

/// True if a program did not start for a reason that is not in the program: no memory, no process, no file descriptor to
/// be had (fork(2), pipe(2)), or a launcher that is not there.
fn is_ours(error: &io::Error, launcher: &[OsString]) -> bool {
    let scarce = [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE];
    error.raw_os_error().is_some_and(|errno| scarce.contains(&errno))
        || !launcher.is_empty() && error.kind() == io::ErrorKind::NotFound
}

async fn tell(outbox: &Outbox, message: ToController) -> Result<(), Error> {
    outbox.send(Ok(message)).await.map_err(|_| Error::Gone)
}

/// Looks for the program on the shelf. That may take seconds on a slow medium; what the controller says meanwhile waits,
/// and one that goes ends it.
async fn fetch(
    shelf: &Arc<Shelf>,
    upload: Box<Upload>,
    outbox: &Outbox,
    is_stopping: GivenUp,
) -> Result<Program, Error> {
    let controller = outbox.clone();
    let upload = shelf.fetch(upload, Box::new(move || controller.is_closed() || is_stopping())).await?;
    Ok(if upload.is_complete() { Program::Here(upload.finish()?) } else { Program::OnItsWay(upload) })
}

/// Receives the program to its last byte.
async fn receive(
    mut upload: Upload,
    inbox: &mut (impl Stream<Item = Result<FromController, Error>> + Unpin),
    mut stopping: watch::Receiver<bool>,
) -> Result<Arc<Blob>, Error> {
    while !upload.is_complete() {
        let message = tokio::select! {
            message = inbox.next() => message.ok_or(Error::Gone)??,
            () = tokio::time::sleep(UPLOAD_PATIENCE) => {
                return Err(Error::Protocol("the upload stood still for a minute"));
            }
            () = is_set(&mut stopping) => return Err(Error::Stopping),
        };
        match message {
            FromController::Chunk { offset, data } => upload.write(offset, &data)?,
            // A signal ends what would become the program, as it would end the program.
            FromController::Signal(_) => return Err(Error::Gone),
            FromController::Stdin { .. } | FromController::Acknowledge { .. } => {
                return Err(Error::Protocol("the program has not started yet"));
            }
        }
    }
    upload.finish()
}

/// The environment of a program: names that every program may count on, then what the user gave. GOMEMLIMIT makes Go
/// collect its garbage before `memory`, the bytes that it may have, is used up (pkg.go.dev/runtime).
///
/// Nothing else is inherited: procd puts an LD_PRELOAD into its services that breaks what they start.
fn environment(
    given: &[(OsString, OsString)],
    directory: &Path,
    working_directory: &Path,
    memory: u64,
) -> Vec<(OsString, OsString)> {
    let inherited = |name: &str, default: &str| std::env::var_os(name).unwrap_or_else(|| default.into());
    let mut env = BTreeMap::from([
        ("PATH".into(), inherited("PATH", DEFAULT_PATH)),
        ("HOME".into(), inherited("HOME", "/")),
        ("TMPDIR".into(), working_directory.into()),
        ("GOMEMLIMIT".into(), memory.max(LEAST_GO_MEMORY).to_string().into()),
        (JOB_DIRECTORY.into(), directory.into()),
    ]);
    env.extend(given.iter().cloned());
    env.into_iter().collect()
}

/// A directory of one job, with everything in it.
struct JobDirectory {
    path: PathBuf,
}

impl JobDirectory {
    fn create(parent: &Path, id: &str) -> Result<Self, Error> {
        let path = parent.join(id);
        create_directory(&path)?;
        Ok(Self { path })
    }
}

impl Drop for JobDirectory {
    fn drop(&mut self) {
        if let Err(error) = tree::remove(&self.path) {
            tracing::error!(path = %self.path.display(), %error, "cannot remove a job's directory");
        }
    }
}

fn create_directory(path: &Path) -> Result<(), Error> {
    DirBuilder::new().mode(0o700).create(path).map_err(Error::io("create", path))
}

/// A program that runs, and whoever has a say in when it ends.
struct Running {
    child: Child,
    started: Instant,
    timeout_at: Option<Instant>,
    idle_timeout: Option<Duration>,
    /// When it wrote last.
    wrote: watch::Sender<Instant>,
    grace: Duration,
    window: u64,
    family: Arc<Family>,
    ward: Ward,
    /// Why the job is being ended, and when the KILL is due that follows the TERM.
    ending: Option<(Cause, Option<Instant>)>,
    /// What the controller did wrong, to be told when the program is gone.
    fault: Option<Error>,
    stdout: watch::Sender<Control>,
    stderr: watch::Sender<Control>,
    stdin: input::Queue,
    outbox: Outbox,
    stopping: watch::Receiver<bool>,
}

impl Running {
    fn new(child: Child, spec: &Spec, outbox: Outbox, jobs: &Jobs, directory: &Path) -> Self {
        let started = Instant::now();
        let ward = jobs.guard.watch(child.id() as i32, directory.to_owned());
        Self {
            child,
            started,
            timeout_at: spec.timeout.and_then(|timeout| started.checked_add(timeout)),
            idle_timeout: spec.idle_timeout,
            wrote: watch::Sender::new(started),
            family: jobs.family.clone(),
            ward,
            grace: spec.grace,
            window: spec.output_window,
            ending: None,
            fault: None,
            stdout: watch::Sender::default(),
            stderr: watch::Sender::default(),
            stdin: input::Queue::default(),
            outbox,
            stopping: jobs.stopping.subscribe(),
        }
    }

    async fn see_through(
        mut self,
        pipes: Pipes,
        inbox: &mut (impl Stream<Item = Result<FromController, Error>> + Unpin),
    ) -> Result<Ran, Error> {
        let stdout = self.pump(pipes.stdout, OutputStream::Stdout);
        let stderr = self.pump(pipes.stderr, OutputStream::Stderr);
        let feed = self.feed(pipes.stdin);
        self.until_ended(inbox).await;

        let ended = Instant::now();
        let wall = ended - self.started;
        feed.abort();
        let (ending, usage) = self.child.reap().map_err(Error::io("wait for", Path::new("the program")))?;
        let orphans = self.family.end_orphans(Some(self.child.id())).await;
        for control in [&self.stdout, &self.stderr] {
            control.send_modify(|control| control.ended = Some(ended));
        }
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let (stdout, stderr) = self.drain(stdout, stderr, inbox).await?;
        let cause = self.ending.as_ref().map_or_else(|| self.whose_doing(&ending), |(cause, _)| *cause);
        Ok(Ran { ending, cause, usage, wall, stdout, stderr, orphans })
    }

    /// Who ended a program that this agent did not end: itself, or the kernel, which was faster than the guard.
    fn whose_doing(&self, ending: &Ending) -> Cause {
        let is_killed = matches!(ending, Ending::Signaled { name, .. } if name == "KILL");
        if is_killed && self.ward.kernel_was_first() {
            return Cause::Memory(Shortage { available: 0, held: 0 });
        }
        Cause::Program
    }

    /// Waits until the last output of a program that has ended is sent. Only acknowledgements matter now.
    async fn drain(
        &mut self,
        stdout: Pump,
        stderr: Pump,
        inbox: &mut (impl Stream<Item = Result<FromController, Error>> + Unpin),
    ) -> Result<(Summary, Summary), Error> {
        let drained = async { (summary(stdout).await, summary(stderr).await) };
        let stopping = async {
            is_set(&mut self.stopping).await;
            // A controller that reads at all has read the rest by then.
            tokio::time::sleep(output::AFTERLIFE).await;
        };
        tokio::pin!(drained, stopping);
        let mut listening = true;
        loop {
            tokio::select! {
                summaries = &mut drained => return Ok(summaries),
                message = inbox.next(), if listening => match message {
                    Some(Ok(FromController::Acknowledge { stream, offset, closed })) => {
                        acknowledge([&self.stdout, &self.stderr], stream, offset, closed);
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                    None => {
                        listening = false;
                        acknowledge_all([&self.stdout, &self.stderr]);
                    }
                },
                () = self.outbox.closed() => return Err(Error::Gone),
                () = &mut stopping => return Err(Error::Stopping),
            }
        }
    }

    /// Returns when the program has ended, whoever ended it.
    async fn until_ended(&mut self, inbox: &mut (impl Stream<Item = Result<FromController, Error>> + Unpin)) {
        let mut listening = true;
        let mut is_stopping = false;
        let mut wrote = self.wrote.subscribe();
        loop {
            let is_ending = self.ending.is_some();
            let kill_at = self.ending.as_ref().and_then(|(_, kill_at)| *kill_at);
            tokio::select! {
                () = self.child.ended() => return,
                message = inbox.next(), if listening => match message {
                    Some(Ok(message)) => self.hear(message),
                    Some(Err(error)) => {
                        listening = false;
                        self.fail(error);
                    }
                    None => {
                        listening = false;
                        acknowledge_all([&self.stdout, &self.stderr]);
                    }
                },
                () = self.outbox.closed(), if !is_ending => self.end(Cause::ControllerGone, self.grace),
                () = is_set(&mut self.stopping), if !is_stopping => {
                    is_stopping = true;
                    self.end(Cause::AgentStopped, self.grace.min(STOPPING_GRACE));
                }
                () = at(self.timeout_at), if !is_ending => self.end(Cause::Timeout, self.grace),
                () = silence(&mut wrote, self.idle_timeout), if !is_ending => {
                    self.end(Cause::IdleTimeout, self.grace);
                }
                // At once: there is nothing left for a grace.
                shortage = self.ward.must_end(), if !is_ending => {
                    self.end(Cause::Memory(shortage), Duration::ZERO);
                }
                () = at(kill_at) => {
                    self.child.signal(Signal::KILL);
                    self.ending = self.ending.take().map(|(cause, _)| (cause, None));
                }
            }
        }
    }

    fn hear(&mut self, message: FromController) {
        match message {
            FromController::Signal(signal) => self.child.signal(signal),
            FromController::Acknowledge { stream, offset, closed } => {
                acknowledge([&self.stdout, &self.stderr], stream, offset, closed);
            }
            FromController::Stdin { offset, data, end } => {
                if let Err(error) = self.stdin.push(offset, &data, end) {
                    self.fail(error);
                }
            }
            FromController::Chunk { .. } => self.fail(Error::Protocol("the program is complete")),
        }
    }

    /// The controller broke a rule, and cannot be believed any more: the program goes at once. One that is only gone gets
    /// the grace that it asked for.
    fn fail(&mut self, error: Error) {
        let grace = if matches!(error, Error::Gone) { self.grace } else { Duration::ZERO };
        self.fault.get_or_insert(error);
        self.end(Cause::ControllerGone, grace);
    }

    /// Begins to end the program: TERM now, and KILL after the grace. A job that is being ended already keeps its cause,
    /// and the earlier KILL.
    fn end(&mut self, cause: Cause, grace: Duration) {
        let kill_at = Instant::now() + grace;
        match &mut self.ending {
            None => {
                if !grace.is_zero() {
                    self.child.signal(Signal::TERM);
                }
                self.ending = Some((cause, Some(kill_at)));
            }
            Some((_, Some(planned))) => *planned = kill_at.min(*planned),
            Some((_, None)) => {}
        }
    }

    fn pump(&self, pipe: OwnedFd, stream: OutputStream) -> Pump {
        let control = match stream {
            OutputStream::Stdout => self.stdout.subscribe(),
            OutputStream::Stderr => self.stderr.subscribe(),
        };
        let outbox = self.outbox.clone();
        let wrote = self.wrote.clone();
        tokio::spawn(output::pump(pipe, self.window, control, move |offset, data| {
            let outbox = outbox.clone();
            wrote.send_replace(Instant::now());
            async move { tell(&outbox, ToController::Output { stream, offset, data }).await.is_ok() }
        }))
    }

    fn feed(&self, pipe: std::os::fd::OwnedFd) -> tokio::task::JoinHandle<io::Result<()>> {
        let outbox = self.outbox.clone();
        tokio::spawn(input::feed(pipe, self.stdin.clone(), move |offset, closed| {
            let outbox = outbox.clone();
            async move {
                // Fails if the controller is gone; the job ends for that reason elsewhere.
                let _ = tell(&outbox, ToController::StdinAck { offset, closed }).await;
            }
        }))
    }
}

/// A task that carries one output.
type Pump = tokio::task::JoinHandle<io::Result<Summary>>;

/// The controller has said everything, so it will acknowledge nothing more: HTTP/2 alone holds the outputs back now.
fn acknowledge_all(outputs: [&watch::Sender<Control>; 2]) {
    for control in outputs {
        control.send_modify(|control| control.acknowledged = u64::MAX);
    }
}

fn acknowledge(
    [stdout, stderr]: [&watch::Sender<Control>; 2],
    stream: OutputStream,
    offset: u64,
    closed: bool,
) {
    let control = match stream {
        OutputStream::Stdout => stdout,
        OutputStream::Stderr => stderr,
    };
    control.send_modify(|control| {
        control.acknowledged = control.acknowledged.max(offset);
        control.closed |= closed;
    });
}

/// What a pump came to. One that failed has lost its pipe: what was still in it is reported as abandoned.
async fn summary(pump: Pump) -> Summary {
    match pump.await {
        Ok(Ok(summary)) => summary,
        Ok(Err(error)) => {
            tracing::error!(%error, "cannot read an output of the program");
            Summary { bytes: 0, abandoned: true }
        }
        Err(_) => Summary { bytes: 0, abandoned: true },
    }
}

/// Waits until the agent is stopping. `Jobs` outlives its jobs, so the flag cannot go away unset.
async fn is_set(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|set| *set).await;
}

/// Waits until nothing was written for so long, or for ever.
async fn silence(wrote: &mut watch::Receiver<Instant>, limit: Option<Duration>) {
    let Some(limit) = limit else { return std::future::pending().await };
    loop {
        let until = wrote.borrow_and_update().checked_add(limit);
        tokio::select! {
            () = at(until) => return,
            // The job holds the other end.
            _ = wrote.changed() => {}
        }
    }
}

/// Sleeps until then, or for ever.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// The signal with this name.
///
/// # Errors
/// [`Error::Protocol`] for a name that may not be sent.
pub fn signal(name: &str) -> Result<Signal, Error> {
    hop_proto::signal::sendable(name).ok_or(Error::Protocol("a signal that may not be sent"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Runs a script that exits with 3, sends it if it is asked for, and tells whether it was.
    async fn is_asked_for(jobs: &Arc<Jobs>) -> bool {
        const SCRIPT: &[u8] = b"#!/bin/sh\nexit 3\n";
        let digest = ring::digest::digest(&ring::digest::SHA256, SCRIPT).as_ref().try_into().unwrap();
        let spec = Spec {
            name: "script".into(),
            digest,
            size: SCRIPT.len() as u64,
            args: Vec::new(),
            env: Vec::new(),
            timeout: None,
            idle_timeout: None,
            grace: Duration::ZERO,
            output_window: 1024,
        };
        let (say, inbox) = mpsc::channel(1);
        let (outbox, mut replies) = mpsc::channel(OUTBOX_MESSAGES);
        let inbox = tokio_stream::wrappers::ReceiverStream::new(inbox);
        let job = jobs.admit(spec).unwrap();
        let run = tokio::spawn(job.run(inbox, outbox));
        let Some(Ok(ToController::Accepted { needs, .. })) = replies.recv().await else {
            panic!("it is accepted first");
        };
        if needs.is_some() {
            say.send(Ok(FromController::Chunk { offset: 0, data: Bytes::from_static(SCRIPT) }))
                .await
                .unwrap();
        }
        while let Some(reply) = replies.recv().await {
            if let ToController::Outcome(outcome) = reply.unwrap() {
                assert!(
                    matches!(&outcome, Outcome::Ran(Ran { ending: Ending::Exited(3), .. })),
                    "{outcome:?}"
                );
            }
        }
        run.await.unwrap();
        needs.is_some()
    }

    #[tokio::test]
    async fn a_program_on_the_shelf_is_not_asked_for_unless_it_is_broken() {
        // /tmp may be a tmpfs, where no shelf can be.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let [ram, kept, work] = ["ram", "kept", "work"].map(|name| dir.path().join(name));
        for directory in [&ram, &kept, &work] {
            create_directory(directory).unwrap();
        }
        let new = || {
            let shelf = Shelf::new(kept.clone());
            let store = Store::new(ram.clone(), None);
            // With a launcher, the script itself is not executed: other tests fork meanwhile ("text file busy").
            Arc::new(Jobs::new(store, Some(shelf), Family::of_none(), work.clone(), vec!["/bin/sh".into()]))
        };
        let only_file = || {
            let mut files = std::fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path());
            files.next().filter(|file| file.extension().is_none())
        };
        let jobs = new();
        jobs.shelf.as_ref().unwrap().idle().await;
        assert!(is_asked_for(&jobs).await, "at first");
        jobs.shelf.as_ref().unwrap().idle().await;
        assert!(!is_asked_for(&jobs).await);
        let jobs = new();
        jobs.shelf.as_ref().unwrap().idle().await;
        assert!(!is_asked_for(&jobs).await, "in a next life");
        std::fs::write(only_file().unwrap(), b"#!/bin/sh\nexit 4\n").unwrap();
        assert!(is_asked_for(&jobs).await, "when it is broken");
        jobs.shelf.as_ref().unwrap().idle().await;
        assert!(!is_asked_for(&jobs).await, "and then it is good again");
        jobs.stop().await;
        assert_eq!(std::fs::read_dir(&ram).unwrap().count() + std::fs::read_dir(&work).unwrap().count(), 0);
    }

    #[test]
    fn the_users_environment_wins_over_the_agents() {
        let given = [("TMPDIR".into(), "/mine".into()), ("A".into(), "1".into()), ("A".into(), "2".into())];
        let env = environment(&given, Path::new("/job"), Path::new("/job/work"), 9_000_000);
        let get = |name: &str| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.to_str());
        assert_eq!(get("TMPDIR"), Some(Some("/mine")));
        assert_eq!(get("A"), Some(Some("2")));
        assert_eq!((get("GOMEMLIMIT"), get(JOB_DIRECTORY)), (Some(Some("9000000")), Some(Some("/job"))));
        let starved = environment(&[], Path::new("/job"), Path::new("/job/work"), 0);
        assert!(starved.contains(&("GOMEMLIMIT".into(), "4194304".into())));
        assert!(get("PATH").is_some() && get("HOME").is_some() && get("LD_PRELOAD").is_none());
    }
}
