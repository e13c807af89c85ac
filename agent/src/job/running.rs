//! A running program, and everything that may kill it.
//!
//! **Invariants:** an outcome has exactly one cause, the first; and the program is reaped before its outcome is known.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::job::error::Error;
use crate::job::oom_guard::{OutOfMemory, WatchHandle};
use crate::job::outcome::{Cause, Ran};
use crate::job::registry::JobRegistry;
use crate::job::session::output_buffer::OutputStream;
use crate::job::session::stdin;
use crate::job::session::stdout::{self, Summary};
use crate::job::session::{JobCommand, JobCommands, Phase, Session};
use crate::job::spec::Spec;
use crate::process::cgroup::Cgroup;
use crate::process::child::{Child, Ending, Streams};
use crate::process::pty::{END_OF_INPUT, Terminal};
use crate::process::reaper::ProcessReaper;
use crate::system::time::sleep_until_opt;

/// Longest time between TERM and KILL when the agent itself stops: procd kills the agent after 5 s.
const STOPPING_GRACE: Duration = Duration::from_secs(3);

/// A running program.
pub struct Running {
    child: Child,
    /// Dropped after the child, which is in it.
    cgroup: Option<Cgroup>,
    started: Instant,
    timeout_at: Option<Instant>,
    idle_timer: Option<Arc<IdleTimer>>,
    grace: Duration,
    window: u64,
    reaper: Arc<ProcessReaper>,
    handle: WatchHandle,
    /// Why the program is being killed, and when the KILL that follows the TERM is due.
    ending: Option<(Cause, Option<Instant>)>,
    /// How the controller broke a rule, which it learns when the program is gone.
    fault: Option<Error>,
    session: Arc<Session>,
    terminal: Option<Terminal>,
    stopping: watch::Receiver<bool>,
}

impl Running {
    /// A program that has just started, in `cgroup`.
    pub fn new(
        child: Child,
        cgroup: Option<Cgroup>,
        spec: &Spec,
        session: Arc<Session>,
        jobs: &JobRegistry,
        directory: &Path,
    ) -> Self {
        let started = Instant::now();
        let handle = jobs.guard.watch(child.id() as i32, directory.to_owned());
        Self {
            child,
            cgroup,
            started,
            timeout_at: spec.timeout.and_then(|timeout| started.checked_add(timeout)),
            idle_timer: spec
                .idle_timeout
                .map(|limit| Arc::new(IdleTimer { limit, since: Mutex::new(started) })),
            reaper: jobs.reaper.clone(),
            handle,
            grace: spec.grace,
            window: spec.output_window,
            ending: None,
            fault: None,
            session,
            terminal: None,
            stopping: jobs.stopping(),
        }
    }

    /// Handles the program's streams and the controller's commands until the program has ended.
    ///
    /// # Errors
    /// The controller broke a rule.
    pub async fn run_to_exit(mut self, streams: Streams, commands: &mut JobCommands) -> Result<Ran, Error> {
        let stdout = self.pump(streams.stdout, OutputStream::Stdout);
        let stderr = streams.stderr.map(|stderr| self.pump(stderr, OutputStream::Stderr));
        self.terminal = streams.terminal;
        if self.session.is_detached() {
            self.session.stdin().push(0, b"", true)?;
        }
        let (all_ended, feed) = self.feed(streams.stdin);
        self.session.set_phase(Phase::Running);
        self.until_ended(commands).await;

        let ended = Instant::now();
        let wall = ended - self.started;
        let (ending, usage) = self.child.reap().map_err(Error::io("wait for", Path::new("the program")))?;
        let orphans = self.reaper.kill_orphans(Some(self.child.id()), self.cgroup.as_ref()).await;
        drop(all_ended);
        let stdin = feed.await.ok().flatten();
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            self.session.output(stream).update(|control| {
                control.ended = Some(ended);
                // What is left is at most the content of the pipe. Waiting for a controller to fetch that would keep
                // the program's slot and files for as long as the controller is away.
                control.acknowledged = u64::MAX;
            });
        }
        let stdout = summary(stdout).await;
        let stderr = match stderr {
            Some(stderr) => summary(stderr).await,
            None => Summary::default(),
        };
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let cause = self.ending.as_ref().map_or_else(|| self.exit_cause(&ending), |(cause, _)| cause.clone());
        Ok(Ran { ending, cause, usage, wall, stdin, stdout, stderr, orphans, files_lost: None })
    }

    /// The cause if this agent did not kill the program: the program itself, or the kernel, which was faster than the
    /// guard.
    fn exit_cause(&self, ending: &Ending) -> Cause {
        let is_killed = matches!(ending, Ending::Signaled { name, .. } if name == "KILL");
        if is_killed && self.handle.kernel_was_first(self.child.id(), self.cgroup.as_ref()) {
            return Cause::Memory(OutOfMemory { available: 0, held: 0, of_promises: false });
        }
        Cause::Program
    }

    /// Returns when the program has exited, for whatever cause.
    async fn until_ended(&mut self, commands: &mut JobCommands) {
        let mut is_stopping = false;
        let (session, idle_timer) = (self.session.clone(), self.idle_timer.clone());
        loop {
            let is_ending = self.ending.is_some();
            let kill_at = self.ending.as_ref().and_then(|(_, kill_at)| *kill_at);
            tokio::select! {
                () = self.child.ended() => return,
                // The session holds the other end.
                Some(command) = commands.recv() => self.handle_command(command),
                () = session.abandoned(), if !is_ending => self.end(Cause::ControllerGone, self.grace),
                () = is_set(&mut self.stopping), if !is_stopping => {
                    is_stopping = true;
                    self.end(Cause::AgentStopped, self.grace.min(STOPPING_GRACE));
                }
                () = sleep_until_opt(self.timeout_at), if !is_ending => self.end(Cause::Timeout, self.grace),
                () = idle_for_too_long(idle_timer.as_deref()), if !is_ending => {
                    self.end(Cause::IdleTimeout, self.grace);
                }
                // At once: the router has nothing left for a grace period.
                verdict = self.handle.must_end(), if !is_ending => self.end(verdict.into(), Duration::ZERO),
                () = sleep_until_opt(kill_at) => {
                    self.child.signal(Signal::KILL);
                    self.ending = self.ending.take().map(|(cause, _)| (cause, None));
                }
            }
        }
    }

    fn handle_command(&mut self, command: JobCommand) {
        match command {
            JobCommand::Signal(signal) => self.child.signal(signal),
            // A window size has no effect on a program without a terminal.
            JobCommand::Resize(size) => self.terminal.iter().for_each(|terminal| terminal.resize(size)),
            // The program runs already: the controller repeats this after its connection broke.
            JobCommand::Start => {}
            JobCommand::Chunk(_) => self.fail(Error::Protocol("the program is complete")),
            JobCommand::Fault(error) => self.fail(error),
        }
    }

    /// The controller broke a rule, and is not trusted any more: kills the program at once.
    fn fail(&mut self, error: Error) {
        self.fault.get_or_insert(error);
        self.end(Cause::ControllerGone, Duration::ZERO);
    }

    /// Begins to kill the program: TERM now, and KILL after the grace period. A program that is being killed already
    /// keeps its cause, and the earlier KILL.
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
        let idle_timer = self.idle_timer.clone();
        let written = move || idle_timer.iter().for_each(|timer| timer.restart());
        tokio::spawn(stdout::pump(pipe, stream, self.window, self.session.clone(), written))
    }

    /// Feeds the program in a task. The caller drops the sender when all processes that could read have ended.
    fn feed(&self, pipe: OwnedFd) -> (oneshot::Sender<()>, JoinHandle<Option<u64>>) {
        let session = self.session.clone();
        let queue = session.stdin().clone();
        // Closing a pipe ends it; a terminal needs a character for that.
        let end = if self.terminal.is_some() { END_OF_INPUT } else { b"" };
        let acknowledge = move |offset, closed| session.take_stdin(offset, closed);
        let (all_ended, ended) = oneshot::channel::<()>();
        let feed = tokio::spawn(async move {
            let ended = async { _ = ended.await };
            stdin::feed(pipe, queue, end, acknowledge, ended).await.unwrap_or_else(|error| {
                tracing::error!(%error, "cannot write the input of the program");
                None
            })
        });
        (all_ended, feed)
    }
}

/// A task that reads one output.
type Pump = JoinHandle<io::Result<Summary>>;

/// The result of a pump. A pump that failed has lost its pipe: it reports the rest in the pipe as abandoned.
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

/// Waits until the agent is stopping. `JobRegistry` outlives its jobs, so the flag cannot go away unset.
pub async fn is_set(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|set| *set).await;
}

/// Limits how long a program may write nothing.
struct IdleTimer {
    limit: Duration,
    /// When it last wrote something.
    since: Mutex<Instant>,
}

impl IdleTimer {
    fn restart(&self) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When the program will have been idle for too long; `None` if the clock cannot express that time.
    fn until(&self) -> Option<Instant> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).checked_add(self.limit)
    }
}

/// Waits until a program has been idle for too long; forever if there is no limit.
async fn idle_for_too_long(idle_timer: Option<&IdleTimer>) {
    let Some(idle_timer) = idle_timer else { return std::future::pending().await };
    loop {
        let until = idle_timer.until();
        sleep_until_opt(until).await;
        if idle_timer.until() == until {
            return;
        }
    }
}
