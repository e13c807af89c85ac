//! The session of a job: everything between the job and its controller that outlives a connection.
//!
//! A job does not use a connection: it reports its state and its output to its [`Session`]. Each connection is an
//! [`Attachment`], which sends the [`Event`]s that its controller has not received yet, and takes that controller's
//! [`Request`]s. So a controller that reattaches gets the rest, and the job does not notice that it was away.
//!
//! **Invariants:** a job has one attachment at a time, the newest; nothing is lost between two of them; a job whose
//! controller stays away for longer than its disconnect timeout is abandoned; and nothing here knows how requests and
//! events are encoded.

mod attachment;
mod commands;
mod encoder;
mod inspect;
mod messages;
pub mod monitor;
pub mod output_buffer;
pub mod output_compressor;
mod requests;
mod sent_state;
mod state;
pub mod stdin;
pub mod stdout;

use std::io;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

#[cfg(test)]
use bytes::Bytes;
use bytes::BytesMut;
use hop_proto::identity::Fingerprint;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use crate::files::outputs::{ArtifactSet, Position};
use crate::job::error::Error;
use crate::job::outcome::Outcome;
pub use crate::job::session::attachment::Attachment;
pub use crate::job::session::commands::JobCommands;
use crate::job::session::commands::{COMMAND_CAPACITY, Message, NO_CONNECTION};
pub use crate::job::session::messages::{Event, FinalResult, JobCommand, Payload, Request};
use crate::job::session::monitor::Monitor;
use crate::job::session::output_buffer::{OutputBuffer, OutputStream};
pub use crate::job::session::requests::Requests;
#[cfg(test)]
use crate::job::session::sent_state::next_piece;
use crate::job::session::state::{Attached, State};
pub use crate::job::session::state::{Phase, Wait};
use crate::job::session::stdout::Control;
use crate::store::receiver::Need;
use crate::system::runtime;
use crate::system::time::sleep_until_opt;

/// How long an attached controller has to read the rest of the output of a job that has ended, before the agent may
/// discard it.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Who owns a job, and how long it survives without them.
#[derive(Clone, Debug)]
pub struct Ownership {
    /// The key of the controller that asked for it. [`Session::owner`] has the one that it has now.
    pub owner: Fingerprint,
    /// How long that controller may be away when the job starts; `None` without limit. [`Session::is_detached`] has
    /// what is so now.
    pub linger: Option<Duration>,
    /// Bytes of each output that a log keeps when the job is detached; 0 for a job without a log.
    pub log_size: usize,
    /// Bytes of each output that may be unacknowledged.
    pub output_window: u64,
    /// True if the job's program has a terminal.
    pub has_terminal: bool,
}

#[cfg(test)]
impl Ownership {
    /// For a job that survives `linger` without its controller, and has no log.
    pub fn of_test(linger: Option<Duration>) -> Self {
        let owner = Fingerprint::from_bytes([0; 32]);
        Self { owner, linger, log_size: 0, output_window: 1 << 20, has_terminal: false }
    }
}

/// The session of a job, which all its connections share.
pub struct Session {
    job: String,
    ownership: Ownership,
    state: Arc<Monitor<State>>,
    attached: Monitor<Attached>,
    stdin: stdin::Queue,
    outputs: [Monitor<Control>; 2],
    commands: mpsc::Sender<Message>,
}

impl Session {
    /// The session of a new job, to which its controller will attach, and the commands that will reach the job.
    pub fn new(job: String, ownership: Ownership) -> (Arc<Self>, JobCommands) {
        let (sender, messages) = mpsc::channel(COMMAND_CAPACITY);
        let mut buffer = OutputBuffer::default();
        if ownership.linger.is_none() && ownership.log_size > 0 {
            buffer.keep_log(ownership.log_size);
        }
        let state = State {
            owner: ownership.owner,
            phase: Phase::Admitted,
            needs: Vec::new(),
            connection: NO_CONNECTION,
            left: NO_CONNECTION,
            unheard: NO_CONNECTION,
            has_started: false,
            buffer,
            stdin: 0,
            stdin_closed: false,
            signals: 0,
            offer: None,
            stored: Position::default(),
            final_result: None,
            ended: None,
        };
        let attached = Attached { left: None, linger: ownership.linger, is_released: false };
        let state = Arc::new(Monitor::new(state));
        let commands = JobCommands { messages, state: state.clone() };
        let session = Self {
            job,
            ownership,
            state,
            attached: Monitor::new(attached),
            stdin: stdin::Queue::default(),
            outputs: Default::default(),
            commands: sender,
        };
        (Arc::new(session), commands)
    }

    /// The job's id.
    pub fn job(&self) -> &str {
        &self.job
    }

    /// Who owns the job, and how long it survives without them.
    pub fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// The key of the job's controller.
    pub fn owner(&self) -> Fingerprint {
        self.state.with(|state| state.owner)
    }

    /// Gives the job to another key of its controller.
    pub fn transfer(&self, owner: Fingerprint) {
        self.state.with(|state| state.owner = owner);
    }

    /// The phase of the job.
    pub fn phase(&self) -> Phase {
        self.state.with(|state| state.phase)
    }

    /// True if a controller is attached.
    pub fn is_attached(&self) -> bool {
        self.attached.with(|attached| attached.left.is_none())
    }

    /// True if the job runs until it exits, however long its controller is away.
    pub fn is_detached(&self) -> bool {
        self.attached.with(|attached| attached.linger.is_none())
    }

    // ---------------------------------------------------------------------------------------------- the job's side

    /// Sets the phase of the job.
    pub fn set_phase(&self, phase: Phase) {
        self.state.update(|state| {
            state.phase = phase;
            state.has_started |= phase == Phase::Running;
        });
    }

    /// Reports the blobs that are missing.
    pub fn need(&self, needs: &[Need]) {
        self.state.update(|state| {
            state.phase = Phase::Receiving;
            needs.clone_into(&mut state.needs);
        });
    }

    /// Appends to an output the bytes that `read` reads; 0 bytes are its end.
    ///
    /// # Errors
    /// The errors of `read`.
    pub fn poll_read(
        &self,
        stream: OutputStream,
        read: impl FnOnce(&mut BytesMut) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let read = ready!(self.state.with(|state| state.buffer.append(stream, read)))?;
        if read > 0 {
            self.state.notify_all();
        }
        Poll::Ready(Ok(read))
    }

    /// Reports how much of its input the program has taken, and whether it takes no more.
    pub fn take_stdin(&self, offset: u64, closed: bool) {
        self.state.update(|state| {
            state.stdin = offset;
            state.stdin_closed |= closed;
        });
    }

    /// The standard input that the controller has sent.
    pub fn stdin(&self) -> &stdin::Queue {
        &self.stdin
    }

    /// The flow control of an output.
    pub fn output(&self, stream: OutputStream) -> &Monitor<Control> {
        &self.outputs[stream as usize]
    }

    /// Offers the program's output files to the controller. No output may be written after this.
    pub fn offer(&self, offer: ArtifactSet) {
        self.state.update(|state| {
            state.phase = Phase::Ended;
            state.buffer.close();
            state.offer = Some(offer);
        });
    }

    /// Waits until the controller has stored all output files. Cancel safe.
    pub async fn fetched(&self) {
        self.state
            .wait_until(|state| state.offer.as_ref().is_none_or(|offer| state.stored >= offer.end()))
            .await;
    }

    /// Withdraws the output files: the controller can fetch no more of them.
    pub fn withdraw(&self) {
        self.state.update(|state| state.offer = None);
    }

    /// Waits until the job has ended.
    pub async fn over(&self) {
        self.state.wait_until(|state| state.final_result.is_some()).await;
    }

    /// Discards the output of a job that has ended, because the router needs its memory. A controller that reattaches
    /// gets [`Error::OutputLost`]. Returns the number of bytes discarded.
    pub fn discard_output(&self) -> u64 {
        if self.discardable_output() == 0 {
            return 0;
        }
        let (given_up, lost) = self.state.with(|state| {
            let (length, bytes) = (state.buffer.retained(), state.buffer.unread());
            let Some(ending) = state.final_result.as_deref().map(|last| match last {
                Ok(outcome) => outcome.to_string(),
                Err(error) => error.to_string(),
            }) else {
                return (0, 0);
            };
            state.buffer.discard();
            if bytes > 0 {
                state.final_result = Some(Arc::new(Err(Error::OutputLost { bytes, ending })));
            }
            (length, bytes)
        });
        if lost > 0 {
            tracing::warn!(job = self.job, bytes = lost, "discarded the output of an ended job");
            self.state.notify_all();
        }
        given_up
    }

    /// Bytes of output that may be discarded: of a job that has ended, and whose controller is away or does not read.
    pub fn discardable_output(&self) -> u64 {
        let is_attached = self.is_attached();
        self.state.with(|state| match state.ended {
            Some(ended) if !is_attached || ended.elapsed() >= READ_TIMEOUT => state.buffer.retained(),
            _ => 0,
        })
    }

    /// Checks that the session has all output of the job that is not acknowledged.
    ///
    /// # Errors
    /// [`Error::OutputLost`] if it was discarded.
    pub fn has_its_output(&self) -> Result<(), Error> {
        self.state.with(|state| state.lost_output().map_or(Ok(()), Err))
    }

    /// Ends the job with its outcome, or the error that it failed with. No output may be written after this.
    pub fn end(&self, last: Result<Outcome, Error>) {
        self.state.update(|state| {
            state.phase = Phase::Ended;
            state.buffer.close();
            state.final_result = Some(Arc::new(last));
            state.ended = Some(Instant::now());
        });
    }

    /// Waits until the job is released, or its controller was away for too long. Cancel safe.
    pub async fn abandoned(&self) {
        loop {
            let attached = self.attached.with(|attached| *attached);
            if attached.is_released {
                return;
            }
            tokio::select! {
                () = sleep_until_opt(self.gone_for_good(attached)) => return,
                () = self.attached.wait_until(|now| *now != attached) => {}
            }
        }
    }

    /// True if the job is released, or its controller was away for too long.
    pub fn is_abandoned(&self) -> bool {
        let attached = self.attached.with(|attached| *attached);
        attached.is_released || self.gone_for_good(attached).is_some_and(|then| then <= Instant::now())
    }

    /// When the controller will have been away for too long.
    fn gone_for_good(&self, attached: Attached) -> Option<Instant> {
        attached.left?.checked_add(attached.linger?)
    }

    // --------------------------------------------------------------------------------------- the controller's side

    /// Lets the job run until it exits, however long its controller is away, and turns its output into a log if it is to
    /// have one.
    pub(super) fn run_on(&self) {
        self.attached.update(|attached| attached.linger = None);
        if self.ownership.log_size > 0 {
            self.state.with(|state| state.buffer.keep_log(self.ownership.log_size));
        }
    }

    /// Tells the log of a job, if it has one, whether a controller is attached.
    fn set_reader(&self, has_reader: bool) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let start = self.state.with(|state| {
                state.buffer.set_reader(has_reader);
                state.buffer.is_log().then(|| state.buffer.start(stream))
            });
            let Some(start) = start else { return };
            self.output(stream).update(|control| {
                control.drops = !has_reader;
                control.acknowledged = control.acknowledged.max(start);
            });
        }
    }

    /// Releases the job: it counts as abandoned from now on.
    pub fn release(&self) {
        self.attached.update(|attached| attached.is_released = true);
    }

    /// Ends the job because its controller lost its authorization: without a grace period, and without keeping its
    /// output.
    pub fn revoke(self: &Arc<Self>) {
        let message = Message { connection: NO_CONNECTION, command: JobCommand::Fault(Error::NotAuthorized) };
        if let Err(TrySendError::Full(message)) = self.commands.try_send(message) {
            let session = self.clone();
            // Fails if the job has ended by itself, which is as good.
            runtime::spawn(async move { _ = session.commands.send(message).await });
        }
        self.release();
    }

    /// Sends a signal to the job, and waits until the job's queue has taken it. A job that has ended ignores it.
    pub async fn signal(&self, signal: Signal) {
        self.send_command(NO_CONNECTION, JobCommand::Signal(signal)).await;
    }

    pub(super) async fn send_command(&self, connection: u64, command: JobCommand) {
        // Fails if the job has ended, which needs no commands any more.
        let _ = self.commands.send(Message { connection, command }).await;
    }
}

#[cfg(test)]
impl Session {
    /// The next piece of buffered output after the offsets `delivered`, which advance to the end of that piece.
    pub fn next_piece(&self, delivered: &mut [u64; 2]) -> Option<(OutputStream, u64, Bytes)> {
        self.state.with(|state| {
            next_piece(&state.buffer, delivered)
                .map(|(stream, offset, data)| (stream, offset, Bytes::copy_from_slice(data)))
        })
    }

    /// Appends to an output.
    pub fn write(&self, stream: OutputStream, data: &[u8]) {
        self.state.update(|state| state.buffer.append(stream, |bytes| bytes.extend_from_slice(data)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::OutputStream::{Stderr, Stdout};
    use super::*;
    use crate::job::outcome::{Cause, Ran};
    use crate::job::session::stdout::Summary;
    use crate::process::child::{Ending, Usage};
    use crate::process::reaper::Orphans;
    use crate::store::decoder::Encoding;
    use crate::store::receiver::Chunk;

    const LINGER: Duration = Duration::from_secs(60);

    type Say = mpsc::Sender<Result<Request, Error>>;

    fn session() -> (Arc<Session>, JobCommands) {
        Session::new("7".into(), Ownership::of_test(Some(LINGER)))
    }

    fn attach(session: &Arc<Session>, delivered: [Option<u64>; 2]) -> (Say, Attachment) {
        carry(session.connect(delivered, None, false).unwrap())
    }

    /// Carries requests to the job. Dropping the result breaks the connection.
    fn carry(attachment: Attachment) -> (Say, Attachment) {
        let (say, mut said) = mpsc::channel(8);
        let mut requests = attachment.requests();
        tokio::spawn(async move {
            while let Some(said) = said.recv().await {
                match said {
                    Ok(request) => {
                        if !requests.handle(request).await {
                            return;
                        }
                    }
                    Err(fault) => return requests.fail(fault).await,
                }
            }
        });
        (say, attachment)
    }

    fn chunk(offset: u64, data: &'static [u8]) -> Chunk {
        Chunk { offset, encoding: Some(Encoding::Identity), data: Bytes::from_static(data) }
    }

    fn exited() -> Outcome {
        let nothing = Summary { bytes: 0, abandoned: false };
        Outcome::Ran(Ran {
            ending: Ending::Exited(0),
            cause: Cause::Program,
            usage: Usage::default(),
            wall: Duration::ZERO,
            stdin: None,
            stdout: nothing,
            stderr: nothing,
            orphans: Orphans::default(),
            files_lost: None,
        })
    }

    async fn output(replies: &mut Attachment) -> (OutputStream, u64, Bytes) {
        loop {
            match replies.recv().await.unwrap() {
                Event::Output { stream, offset, payload } => return (stream, offset, payload.data),
                Event::Accepted { .. } | Event::Started { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Runs all other tasks until they wait.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn reattached_controllers_get_the_rest_once() {
        let (session, _commands) = session();
        session.set_phase(Phase::Running);
        let (say, mut replies) = attach(&session, [None, None]);
        session.write(Stdout, b"one ");
        assert_eq!(output(&mut replies).await, (Stdout, 0, Bytes::from_static(b"one ")));
        drop((say, replies));
        settle().await;
        assert!(!session.is_attached());
        session.write(Stdout, b"two");
        session.write(Stderr, b"oops");
        session.end(Ok(exited()));
        let (_say, mut replies) = attach(&session, [Some(4), Some(0)]);
        let Some(Event::Accepted { outputs: [4, 0], needs, .. }) = replies.recv().await else {
            panic!("offsets come first");
        };
        assert_eq!(needs, []);
        assert_eq!(output(&mut replies).await, (Stdout, 4, Bytes::from_static(b"two")));
        assert_eq!(output(&mut replies).await, (Stderr, 0, Bytes::from_static(b"oops")));
        assert!(matches!(replies.recv().await, Some(Event::Ended(last)) if last.is_ok()));
        assert!(replies.recv().await.is_none());
    }

    #[tokio::test]
    async fn failed_job_is_released_with_its_error() {
        let (session, _commands) = session();
        let (_say, mut replies) = attach(&session, [None, None]);
        session.end(Err(Error::Gone));
        assert!(!session.is_abandoned(), "a controller that reattaches still gets the error");
        assert!(matches!(replies.recv().await, Some(Event::Ended(last)) if last.is_err()));
        assert!(session.is_abandoned());

        // What is not acknowledged may still have to be sent again.
        let (session, _commands) = self::session();
        session.set_phase(Phase::Running);
        session.write(Stdout, b"hello");
        session.end(Err(Error::Gone));
        let (_say, mut replies) = attach(&session, [None, None]);
        while !matches!(replies.recv().await, Some(Event::Ended(_))) {}
        assert!(!session.is_abandoned());
    }

    #[tokio::test]
    async fn offsets_outside_the_buffer_are_refused() {
        let (session, _commands) = session();
        session.write(Stdout, b"hello");
        session.acknowledge(Stdout, 3, false);
        for (delivered, is_kept) in [(2, false), (3, true), (5, true), (6, false)] {
            assert_eq!(session.connect([Some(delivered), None], None, false).is_ok(), is_kept, "{delivered}");
        }
    }

    #[tokio::test]
    async fn chunks_of_replaced_connections_are_dropped() {
        let (session, mut commands) = session();
        let needed = |offset| [[7; 32], [8; 32]].map(|digest| Need { digest, offset, base: None });
        session.need(&needed(0));
        let (old, _old_replies) = attach(&session, [None, None]);
        for offset in [0, 1] {
            old.send(Ok(Request::Chunk(chunk(offset, b"x")))).await.unwrap();
        }
        // One chunk fills the queue, and the other waits for a place in it.
        settle().await;
        assert!(matches!(commands.recv().await, Some(JobCommand::Chunk(Chunk { offset: 0, .. }))));
        session.need(&needed(1));
        let (new, mut replies) = attach(&session, [None, None]);
        settle().await;
        let Some(Event::Accepted { needs, .. }) = replies.recv().await else {
            panic!("the rest is missing");
        };
        assert_eq!(needs, needed(1));
        for offset in [1, 2] {
            new.send(Ok(Request::Chunk(chunk(offset, b"y")))).await.unwrap();
        }
        for expected in [1, 2] {
            let Some(JobCommand::Chunk(Chunk { offset, data, .. })) = commands.recv().await else {
                panic!("more comes")
            };
            assert_eq!((offset, &data[..]), (expected, &b"y"[..]));
        }
    }

    #[tokio::test]
    async fn failed_jobs_report_offsets_before_output() {
        let (session, _commands) = session();
        session.set_phase(Phase::Running);
        session.write(Stdout, b"hello");
        session.end(Err(Error::Stopping));
        let (_say, mut replies) = attach(&session, [Some(0), Some(0)]);
        assert!(matches!(replies.recv().await, Some(Event::Accepted { .. })));
        assert!(matches!(replies.recv().await, Some(Event::Started { .. })));
        assert!(matches!(replies.recv().await, Some(Event::Output { .. })));
        assert!(matches!(replies.recv().await, Some(Event::Ended(last)) if last.is_err()));
    }

    #[tokio::test]
    async fn unwritten_output_cannot_be_acknowledged() {
        let (session, _commands) = session();
        session.write(Stdout, b"hello");
        session.acknowledge(Stdout, u64::MAX, false);
        let acknowledged = || session.output(Stdout).with(|control| control.acknowledged);
        assert_eq!((acknowledged(), session.unread()), (5, 0));
        session.write(Stdout, b"more");
        assert_eq!((acknowledged(), session.unread()), (5, 4));
    }

    #[tokio::test]
    async fn newer_connections_take_over() {
        let (session, mut commands) = session();
        session.set_phase(Phase::Running);
        let (old, mut old_replies) = attach(&session, [None, None]);
        let (new, _new_replies) = attach(&session, [None, None]);
        old.send(Ok(Request::Signal { number: 1, signal: Signal::HUP })).await.unwrap();
        settle().await;
        loop {
            match old_replies.recv().await {
                Some(Event::TakenOver) => break,
                Some(_) => {}
                None => panic!("the older connection did not end with TakenOver"),
            }
        }
        new.send(Ok(Request::Signal { number: 1, signal: Signal::INT })).await.unwrap();
        assert!(matches!(commands.recv().await, Some(JobCommand::Signal(Signal::INT))));
        drop((old, old_replies));
        settle().await;
        assert!(session.is_attached(), "the end of the old one is not the end of the new one");
    }

    #[tokio::test]
    async fn repeated_signal_reaches_the_job_once() {
        let (session, mut commands) = session();
        session.set_phase(Phase::Running);
        let (say, mut replies) = attach(&session, [None, None]);
        let signal = |number, signal| Ok(Request::Signal { number, signal });
        assert!(matches!(replies.recv().await, Some(Event::Accepted { signals: 0, .. })));
        assert!(matches!(replies.recv().await, Some(Event::Started { .. })));
        say.send(signal(1, Signal::INT)).await.unwrap();
        assert!(matches!(commands.recv().await, Some(JobCommand::Signal(Signal::INT))));
        assert!(matches!(replies.recv().await, Some(Event::SignalAck(1))));
        // The connection breaks, and the acknowledgement may not have reached the controller that reattaches.
        drop((say, replies));
        let (say, mut replies) = attach(&session, [None, None]);
        let Some(Event::Accepted { signals: 1, .. }) = replies.recv().await else {
            panic!("signals continue after the first");
        };
        // An older controller does not count.
        for again in [signal(1, Signal::INT), signal(2, Signal::HUP), signal(0, Signal::TERM)] {
            say.send(again).await.unwrap();
        }
        assert!(matches!(commands.recv().await, Some(JobCommand::Signal(Signal::HUP))));
        assert!(matches!(commands.recv().await, Some(JobCommand::Signal(Signal::TERM))));
        say.send(signal(4, Signal::INT)).await.unwrap();
        assert!(matches!(commands.recv().await, Some(JobCommand::Fault(Error::Protocol(_)))));
    }

    #[tokio::test]
    async fn output_files_resume_after_reconnect() {
        let work = tempfile::tempdir().unwrap();
        std::fs::write(work.path().join("x"), [7; 50]).unwrap();
        let (session, _commands) = session();
        session.set_phase(Phase::Running);
        let (say, mut replies) = attach(&session, [None, None]);
        session.write(Stdout, b"done");
        session.offer(ArtifactSet::find(work.path(), &[b"x".to_vec()], None, 30));
        assert_eq!(output(&mut replies).await.2, "done");
        let Some(Event::File { at, info: Some(info), payload, .. }) = replies.recv().await else {
            panic!("files follow the output");
        };
        assert_eq!((at, payload.data.len(), info.size), (Position::default(), 30, 50));
        settle().await;
        let more = tokio::time::timeout(Duration::ZERO, replies.recv()).await;
        assert!(more.is_err(), "more than the window was sent");
        drop((say, replies));
        settle().await;
        let delivered = Position { file: 0, offset: 30 };
        let (say, mut replies) = carry(session.connect([Some(4), Some(0)], Some(delivered), false).unwrap());
        say.send(Ok(Request::Stored(delivered))).await.unwrap();
        let rest = loop {
            match replies.recv().await.unwrap() {
                Event::File { at, payload, .. } => break (at, payload),
                Event::Accepted { .. } | Event::Started { .. } => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((rest.0.offset, rest.1.data.len()), (30, 20));
        assert!(tokio::time::timeout(Duration::ZERO, session.fetched()).await.is_err());
        let end = Position { file: 1, offset: 0 };
        // A position beyond the last file acknowledges all files.
        say.send(Ok(Request::Stored(Position { file: 9, ..end }))).await.unwrap();
        session.fetched().await;
        session.withdraw();
        session.end(Ok(exited()));
        assert!(matches!(replies.recv().await, Some(Event::Ended(last)) if last.is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_of_absent_controllers_are_abandoned() {
        let (session, _commands) = session();
        let (say, replies) = attach(&session, [None, None]);
        assert!(tokio::time::timeout(10 * LINGER, session.abandoned()).await.is_err(), "it is there");
        drop((say, replies));
        settle().await;
        assert!(tokio::time::timeout(LINGER / 2, session.abandoned()).await.is_err());
        let (say, replies) = attach(&session, [None, None]);
        assert!(tokio::time::timeout(LINGER, session.abandoned()).await.is_err(), "it is back");
        drop((say, replies));
        let left = Instant::now();
        session.abandoned().await;
        assert!(left.elapsed() >= LINGER && session.is_abandoned());
    }

    #[tokio::test]
    async fn discarded_job_is_abandoned_at_once() {
        let (session, _commands) = session();
        let (say, _replies) = attach(&session, [None, None]);
        say.send(Ok(Request::Discard)).await.unwrap();
        session.abandoned().await;
        assert!(session.is_abandoned());
    }

    #[tokio::test(start_paused = true)]
    async fn outcomes_are_sent_despite_later_faults() {
        let (session, commands) = session();
        session.set_phase(Phase::Running);
        let (say, mut connection) = attach(&session, [None, None]);
        drop(commands);
        session.end(Ok(exited()));
        say.send(Err(Error::Protocol("a message that this agent does not know"))).await.unwrap();
        settle().await;
        while !matches!(connection.recv().await.unwrap(), Event::Ended(_)) {}
    }

    #[tokio::test(start_paused = true)]
    async fn faults_end_connections_with_pending_files() {
        let work = tempfile::tempdir().unwrap();
        std::fs::write(work.path().join("x"), [7; 100]).unwrap();
        for has_ended in [true, false] {
            let (session, commands) = session();
            session.set_phase(Phase::Running);
            let (say, mut connection) = attach(&session, [None, None]);
            let commands = if has_ended { None } else { Some(commands) };
            say.send(Err(Error::Protocol("a message that this agent does not know"))).await.unwrap();
            settle().await;
            // A job that ends at the same moment does not receive the fault either.
            drop(commands);
            session.offer(ArtifactSet::find(work.path(), &[b"x".to_vec()], None, 30));
            // It gets the file up to the window, and then the end of the stream.
            let all = async { while connection.recv().await.is_some() {} };
            tokio::time::timeout(LINGER, all).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_closing_ends_only_the_input() {
        let (session, _commands) = session();
        session.set_phase(Phase::Running);
        let mut attachment = session.connect([None, None], None, false).unwrap();
        attachment.requests().finish();
        assert!(session.stdin.has_ended() && session.is_attached());
        session.write(Stdout, b"still heard");
        assert_eq!(output(&mut attachment).await.2, "still heard");
        drop(attachment);
        assert!(!session.is_attached(), "its response stream was dropped");
    }

    #[tokio::test(start_paused = true)]
    async fn broken_connections_do_not_end_the_input() {
        let (session, _commands) = session();
        session.set_phase(Phase::Running);
        let (say, _replies) = attach(&session, [None, None]);
        drop(say);
        settle().await;
        let (say, _replies) = attach(&session, [None, None]);
        say.send(Err(Error::Gone)).await.unwrap();
        settle().await;
        assert!(!session.stdin.has_ended() && !session.is_attached());
        // Nor does an older one that is half-closed.
        let old = session.connect([None, None], None, false).unwrap();
        let _new = session.connect([None, None], None, false).unwrap();
        old.requests().finish();
        assert!(!session.stdin.has_ended() && session.is_attached());
    }

    #[tokio::test(start_paused = true)]
    async fn detaching_leaves_the_job_running() {
        let (session, _commands) = session();
        session.set_phase(Phase::Running);
        let (say, mut replies) = attach(&session, [None, None]);
        say.send(Ok(Request::Detach { run_on: false })).await.unwrap();
        while replies.recv().await.is_some() {}
        assert!(!session.is_attached() && !session.is_abandoned() && !session.stdin.has_ended());
    }

    /// A detached job with a log of so many bytes of each output, that runs.
    fn logged(log_size: usize) -> Arc<Session> {
        let (session, _) = Session::new("7".into(), Ownership { log_size, ..Ownership::of_test(None) });
        session.set_phase(Phase::Running);
        session
    }

    #[tokio::test]
    async fn log_is_read_again_after_its_job() {
        let session = logged(100);
        let (say, mut replies) = attach(&session, [None, None]);
        session.write(Stdout, b"one ");
        assert_eq!(output(&mut replies).await, (Stdout, 0, Bytes::from_static(b"one ")));
        say.send(Ok(Request::Acknowledge { stream: Stdout, offset: 4, closed: false })).await.unwrap();
        settle().await;
        drop((say, replies));
        settle().await;
        let (say, mut replies) = attach(&session, [None, None]);
        assert!(matches!(replies.recv().await, Some(Event::Accepted { outputs: [4, 0], .. })), "it was read");
        drop((say, replies));
        session.end(Ok(exited()));
        for _ in 0..2 {
            let (say, mut replies) = attach(&session, [None, None]);
            assert!(matches!(replies.recv().await, Some(Event::Accepted { outputs: [0, 0], .. })));
            assert_eq!(output(&mut replies).await, (Stdout, 0, Bytes::from_static(b"one ")));
            say.send(Ok(Request::Acknowledge { stream: Stdout, offset: 4, closed: false })).await.unwrap();
            settle().await;
            assert!(matches!(replies.recv().await, Some(Event::Ended(last)) if last.is_ok()));
        }
        settle().await;
        assert_eq!((session.discardable_output(), session.discard_output()), (4, 4));
        let (_say, mut replies) = attach(&session, [None, None]);
        assert!(matches!(replies.recv().await, Some(Event::Accepted { outputs: [4, 0], .. })));
        assert!(matches!(replies.recv().await, Some(Event::Started { .. })));
        assert!(
            matches!(replies.recv().await, Some(Event::Ended(last)) if last.is_ok()),
            "nothing unread is lost"
        );
    }

    #[tokio::test]
    async fn dropped_log_is_a_gap_on_reconnect() {
        let session = logged(100);
        let (say, replies) = attach(&session, [None, None]);
        drop((say, replies));
        settle().await;
        session.write(Stdout, &[7; 300]);
        assert_eq!((session.unread(), session.dropped()), (100, Some(200)));
        let (_say, mut replies) = attach(&session, [Some(50), Some(0)]);
        assert!(matches!(replies.recv().await, Some(Event::Accepted { outputs: [200, 0], .. })));
        assert_eq!(output(&mut replies).await.1, 200);
    }

    #[tokio::test]
    async fn followed_output_ends_with_the_job() {
        let session = logged(100);
        session.write(Stdout, b"one");
        let mut delivered = [0; 2];
        let mut next =
            async || std::future::poll_fn(|context| session.poll_piece(context, &mut delivered)).await;
        assert_eq!(next().await, Some((Stdout, 0, Bytes::from_static(b"one"))));
        assert!(session.has_no_output_between([3, 0], session.output_ends()));
        assert!(!session.has_no_output_between([2, 0], session.output_ends()));
        let more = async {
            settle().await;
            session.write(Stderr, b"two");
            settle().await;
            session.end(Ok(exited()));
        };
        let follow = async {
            assert_eq!(next().await, Some((Stderr, 0, Bytes::from_static(b"two"))));
            assert_eq!(next().await, None);
        };
        tokio::join!(follow, more);
    }

    #[tokio::test(start_paused = true)]
    async fn job_that_is_to_run_on_is_not_abandoned() {
        let ownership = Ownership { log_size: 100, ..Ownership::of_test(Some(LINGER)) };
        let (session, _commands) = Session::new("7".into(), ownership);
        session.set_phase(Phase::Running);
        let (say, _replies) = attach(&session, [None, None]);
        assert_eq!((session.is_detached(), session.dropped()), (false, None));
        say.send(Ok(Request::Detach { run_on: true })).await.unwrap();
        settle().await;
        assert!(session.is_detached() && !session.is_attached());
        session.write(Stdout, &[7; 300]);
        assert_eq!(session.dropped(), Some(200));
        assert!(tokio::time::timeout(10 * LINGER, session.abandoned()).await.is_err());
    }

    #[tokio::test]
    async fn reattached_controllers_learn_of_ended_input() {
        let (session, _commands) = session();
        session.set_phase(Phase::Running);
        let (say, replies) = attach(&session, [None, None]);
        say.send(Ok(Request::Stdin { offset: 0, data: Bytes::from_static(b"in"), end: true })).await.unwrap();
        settle().await;
        drop((say, replies));
        let (_say, mut replies) = attach(&session, [None, None]);
        assert!(matches!(replies.recv().await, Some(Event::Accepted { stdin: 2, .. })));
        assert!(matches!(replies.recv().await, Some(Event::StdinAck { closed: true, .. })));
        assert!(matches!(replies.recv().await, Some(Event::Started { .. })));
    }
}
