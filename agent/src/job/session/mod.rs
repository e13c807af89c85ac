//! What stands between a job and its controller, whichever connection carries it.
//!
//! A job does not talk to a connection: it tells its [`Link`] how it stands, and an [`Attachment`] has the [`Event`]s that its
//! controller has not heard yet, and takes that one's [`Request`]s. So a controller that comes back hears the rest, and a job does
//! not notice that it was away.
//!
//! **Invariants:** a job has one attachment at a time, the newest; nothing is lost between two of them; a job whose controller stays
//! away for longer than its linger time is abandoned; and nothing here knows how requests and events are encoded.

pub mod board;
pub mod output_buffer;
pub mod output_compressor;
pub mod stdin;
pub mod stdout;

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hop_proto::identity::Fingerprint;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use crate::files::outputs::{ArtifactSet, Cursor, Info, Piece, Position, Problem};
use crate::job::error::Error;
use crate::job::outcome::Outcome;
use crate::job::session::board::Board;
use crate::job::session::output_buffer::{OutputStream, Tape};
use crate::job::session::output_compressor::Packer;
use crate::job::session::stdout::Control;
use crate::process::pty::Size;
use crate::store::receiver::{Chunk, Need};
use crate::system::runtime;
use crate::system::time::sleep_until_opt;

/// Messages on their way to the job. One that is not heard holds the connection back, by HTTP/2's own means.
const INBOX_MESSAGES: usize = 1;

/// How long a controller that is there has for the rest of the output of a job that has ended, before it may be given up.
const READING_TIME: Duration = Duration::from_secs(10);

/// What a controller asks for during a job.
#[derive(Debug)]
pub enum Request {
    /// A piece of the program.
    Chunk(Chunk),
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
    Signal {
        /// Counts the signals of the job from 1; 0 is not counted.
        number: u64,
        /// What is sent.
        signal: Signal,
    },
    /// How far an output was passed on.
    Acknowledge {
        /// Which output.
        stream: OutputStream,
        /// Everything before this is done.
        offset: u64,
        /// Nobody reads it any more.
        closed: bool,
    },
    /// The window has another size.
    Resize(Size),
    /// The program may start.
    Start,
    /// It has stored the output files up to there.
    Stored(Position),
    /// It wants nothing more of the job.
    Discard,
    /// It leaves, and may come back.
    Detach,
}

/// What a job says to its controller.
#[derive(Debug)]
pub enum Event {
    /// There is room.
    Accepted {
        /// The job's name.
        job: String,
        /// The blobs to send, in order.
        needs: Vec<Need>,
        /// Where standard input goes on.
        stdin: u64,
        /// Where the outputs go on.
        outputs: [u64; 2],
        /// How many numbered signals are here.
        signals: u64,
    },
    /// The program runs.
    Started {
        /// It has a terminal.
        has_terminal: bool,
    },
    /// A piece of output.
    Output {
        /// Which output.
        stream: OutputStream,
        /// Where it belongs.
        offset: u64,
        /// What it is.
        payload: Payload,
    },
    /// How far the program read.
    StdinAck {
        /// Everything before this is in its pipe.
        offset: u64,
        /// It reads no more.
        closed: bool,
    },
    /// All signals up to the one with this number are here.
    SignalAck(u64),
    /// A piece of an output file.
    File {
        /// Where it belongs.
        at: Position,
        /// What is known of the file, if this was not said on this connection.
        info: Option<Info>,
        /// Nothing more of this file comes.
        problem: Option<Problem>,
        /// What it is.
        payload: Payload,
    },
    /// The last message.
    Last(Last),
    /// Another connection has the job now.
    TakenOver,
}

/// Content as it goes to the controller.
#[derive(Debug)]
pub struct Payload {
    /// What goes.
    pub data: Bytes,
    /// How long the content is, if it is compressed; 0 if it goes as it is.
    pub uncompressed_size: u32,
}

/// How it all ended, for however many connections ask.
pub type Last = Arc<Result<Outcome, Error>>;

/// What reaches the job itself.
#[derive(Debug)]
pub enum Heard {
    /// A piece of the program.
    Chunk(Chunk),
    /// A signal for the process group.
    Signal(Signal),
    /// The window has another size.
    Resize(Size),
    /// The program may start.
    Start,
    /// The controller broke a rule, and cannot be believed any more.
    Fault(Error),
}

/// Where it reaches the job.
pub struct Inbox {
    messages: mpsc::Receiver<Message>,
    state: Arc<Board<State>>,
}

/// What is on its way to the job, and by which connection it came; by [`NO_CONNECTION`] what came by none.
struct Message {
    connection: u64,
    heard: Heard,
}

/// Connections are counted from 1.
const NO_CONNECTION: u64 = 0;

impl Inbox {
    /// The next message; `None` if there is no link any more. Cancel safe.
    ///
    /// A piece of the program counts only while its connection is the newest. A newer one was told how much of the program
    /// is here, and sends the rest from there: with what was still on its way it would be here twice.
    pub async fn recv(&mut self) -> Option<Heard> {
        loop {
            let Message { connection, heard } = self.messages.recv().await?;
            let is_late = connection != self.state.look(|state| state.connection);
            if !(is_late && matches!(heard, Heard::Chunk(_))) {
                return Some(heard);
            }
        }
    }
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is looked for in the disk cache.
    Admitted,
    /// Blobs are still to be received.
    Receiving,
    /// All that is needed is here.
    Complete,
    /// The program runs.
    Running,
    /// The outcome is known.
    Ended,
}

/// Who a job belongs to, how long it does without them, and what by.
#[derive(Clone, Debug)]
pub struct Tenure {
    /// The key of the controller that asked for it. [`Link::owner`] has the one that it has now.
    pub owner: Fingerprint,
    /// How long it may be away; `None` for ever.
    pub linger: Option<Duration>,
    /// Its program has a terminal.
    pub has_terminal: bool,
}

/// A job's end of whatever connects it to its controller.
pub struct Link {
    job: String,
    tenure: Tenure,
    state: Arc<Board<State>>,
    presence: Board<Presence>,
    stdin: stdin::Queue,
    outputs: [Board<Control>; 2],
    inbox: mpsc::Sender<Message>,
}

/// What a controller can hear.
struct State {
    /// The key of its controller.
    owner: Fingerprint,
    stage: Stage,
    /// What is still to be received.
    needs: Vec<Need>,
    /// Whose turn it is: the number of the newest connection.
    connection: u64,
    /// The last one whose controller has left.
    left: u64,
    /// The last one whose controller has broken a rule, and is not heard any more.
    unheard: u64,
    has_started: bool,
    tape: Tape,
    /// How much of its input the program has taken.
    stdin: u64,
    stdin_closed: bool,
    /// How many numbered signals have come. Each goes to the job once, whatever becomes of its connection.
    signals: u64,
    /// The files that it has left, while they can be had.
    offer: Option<ArtifactSet>,
    /// Before this, the controller has them.
    stored: Position,
    last: Option<Last>,
    /// Since when that is known.
    ended: Option<Instant>,
}

impl State {
    /// What is said of output that was given up.
    fn lost_output(&self) -> Option<Error> {
        match self.last.as_deref()? {
            Err(Error::OutputLost { bytes, ending }) => {
                Some(Error::OutputLost { bytes: *bytes, ending: ending.clone() })
            }
            _ => None,
        }
    }
}

/// Whether a controller is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Presence {
    /// Since when there is none.
    left: Option<Instant>,
    /// Nobody wants the job, or what is left of it, any more.
    is_released: bool,
}

impl Link {
    /// A link to the controller that asks for the job and will connect, and what will reach the job.
    pub fn new(job: String, tenure: Tenure) -> (Arc<Self>, Inbox) {
        let (inbox, messages) = mpsc::channel(INBOX_MESSAGES);
        let state = State {
            owner: tenure.owner,
            stage: Stage::Admitted,
            needs: Vec::new(),
            connection: NO_CONNECTION,
            left: NO_CONNECTION,
            unheard: NO_CONNECTION,
            has_started: false,
            tape: Tape::default(),
            stdin: 0,
            stdin_closed: false,
            signals: 0,
            offer: None,
            stored: Position::default(),
            last: None,
            ended: None,
        };
        let presence = Presence { left: None, is_released: false };
        let state = Arc::new(Board::new(state));
        let heard = Inbox { messages, state: state.clone() };
        let link = Self {
            job,
            tenure,
            state,
            presence: Board::new(presence),
            stdin: stdin::Queue::default(),
            outputs: Default::default(),
            inbox,
        };
        (Arc::new(link), heard)
    }

    /// The job's name.
    pub fn job(&self) -> &str {
        &self.job
    }

    /// Whose job it is.
    pub fn tenure(&self) -> &Tenure {
        &self.tenure
    }

    /// The key of the job's controller.
    pub fn owner(&self) -> Fingerprint {
        self.state.look(|state| state.owner)
    }

    /// Its controller has another key from now on.
    pub fn transfer(&self, owner: Fingerprint) {
        self.state.look(|state| state.owner = owner);
    }

    /// How far the job is.
    pub fn stage(&self) -> Stage {
        self.state.look(|state| state.stage)
    }

    /// True if a controller is connected.
    pub fn is_attached(&self) -> bool {
        self.presence.look(|presence| presence.left.is_none())
    }

    /// Bytes of output that nobody has acknowledged.
    pub fn unread(&self) -> u64 {
        self.state.look(|state| state.tape.len())
    }

    /// The next piece of output that is kept, for whoever has what is before `had`; it counts as had then.
    pub fn next_piece(&self, had: &mut [u64; 2]) -> Option<(OutputStream, u64, Bytes)> {
        self.state.look(|state| {
            next_piece(&state.tape, had)
                .map(|(stream, offset, data)| (stream, offset, Bytes::copy_from_slice(data)))
        })
    }

    // ---------------------------------------------------------------------------------------------- the job's side

    /// Says how far the job is.
    pub fn set_stage(&self, stage: Stage) {
        self.state.change(|state| {
            state.stage = stage;
            state.has_started |= stage == Stage::Running;
        });
    }

    /// Says what is still to be received.
    pub fn need(&self, needs: &[Need]) {
        self.state.change(|state| {
            state.stage = Stage::Receiving;
            needs.clone_into(&mut state.needs);
        });
    }

    /// Takes what `read` reads from an output and puts behind the rest; 0 bytes are its end.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn poll_read(
        &self,
        stream: OutputStream,
        read: impl FnOnce(&mut BytesMut) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let read = ready!(self.state.look(|state| state.tape.append(stream, read)))?;
        if read > 0 {
            self.state.wake();
        }
        Poll::Ready(Ok(read))
    }

    /// Says how much of its input the program has taken, and whether it takes no more.
    pub fn take_stdin(&self, offset: u64, closed: bool) {
        self.state.change(|state| {
            state.stdin = offset;
            state.stdin_closed |= closed;
        });
    }

    /// What the controller has sent for the program to read.
    pub fn stdin(&self) -> &stdin::Queue {
        &self.stdin
    }

    /// How an output is steered.
    pub fn output(&self, stream: OutputStream) -> &Board<Control> {
        &self.outputs[stream as usize]
    }

    /// Offers the files that the program has left. Nothing may be written after this.
    pub fn offer(&self, offer: ArtifactSet) {
        self.state.change(|state| {
            state.stage = Stage::Ended;
            state.tape.close();
            state.offer = Some(offer);
        });
    }

    /// Waits until the controller has all of them. Cancel safe.
    pub async fn fetched(&self) {
        self.state.until(|state| state.offer.as_ref().is_none_or(|offer| state.stored >= offer.end())).await;
    }

    /// They cannot be had any more.
    pub fn withdraw(&self) {
        self.state.change(|state| state.offer = None);
    }

    /// Waits until it is known how it all ended.
    pub async fn over(&self) {
        self.state.until(|state| state.last.is_some()).await;
    }

    /// Gives up the output of a job that has ended, which the router needs the memory of; whoever comes for it is told so.
    /// Gives how many bytes that were.
    pub fn give_up_output(&self) -> u64 {
        if self.spare_output() == 0 {
            return 0;
        }
        let given_up = self.state.look(|state| {
            let bytes = state.tape.len();
            let Some(ending) = state.last.as_deref().map(|last| match last {
                Ok(outcome) => outcome.to_string(),
                Err(error) => error.to_string(),
            }) else {
                return 0;
            };
            if bytes > 0 {
                state.tape.give_up();
                state.last = Some(Arc::new(Err(Error::OutputLost { bytes, ending })));
            }
            bytes
        });
        if given_up > 0 {
            tracing::warn!(job = self.job, bytes = given_up, "gave up the output of a job that has ended");
            self.state.wake();
        }
        given_up
    }

    /// Bytes of output that can be given up: of a job that has ended, and whose controller is away or does not read.
    pub fn spare_output(&self) -> u64 {
        let is_attached = self.is_attached();
        self.state.look(|state| match state.ended {
            Some(ended) if !is_attached || ended.elapsed() >= READING_TIME => state.tape.len(),
            _ => 0,
        })
    }

    /// Whether the output of the job is what it wrote.
    ///
    /// # Errors
    /// [`Error::OutputLost`].
    pub fn has_its_output(&self) -> Result<(), Error> {
        self.state.look(|state| state.lost_output().map_or(Ok(()), Err))
    }

    /// Says how it all ended. Nothing may be written after this.
    pub fn end(&self, last: Result<Outcome, Error>) {
        self.state.change(|state| {
            state.stage = Stage::Ended;
            state.tape.close();
            state.last = Some(Arc::new(last));
            state.ended = Some(Instant::now());
        });
    }

    /// Waits until no controller will come for the job, or what is left of it, any more. Cancel safe.
    pub async fn abandoned(&self) {
        loop {
            let presence = self.presence.look(|presence| *presence);
            if presence.is_released {
                return;
            }
            tokio::select! {
                () = sleep_until_opt(self.gone_for_good(presence)) => return,
                () = self.presence.until(|now| *now != presence) => {}
            }
        }
    }

    /// True if no controller will come for the job any more.
    pub fn is_abandoned(&self) -> bool {
        let presence = self.presence.look(|presence| *presence);
        presence.is_released || self.gone_for_good(presence).is_some_and(|then| then <= Instant::now())
    }

    /// When an absence has lasted too long.
    fn gone_for_good(&self, presence: Presence) -> Option<Instant> {
        presence.left?.checked_add(self.tenure.linger?)
    }

    // --------------------------------------------------------------------------------------- the controller's side

    /// Nobody wants the job any more, as if its controller had been away for too long.
    pub fn release(&self) {
        self.presence.change(|presence| presence.is_released = true);
    }

    /// Its controller may not use this router any more: the job ends without a grace, and nothing of it is kept.
    pub fn revoke(self: &Arc<Self>) {
        let message = Message { connection: NO_CONNECTION, heard: Heard::Fault(Error::NotAuthorized) };
        if let Err(TrySendError::Full(message)) = self.inbox.try_send(message) {
            let link = self.clone();
            // Fails if the job ends by itself: then nothing need be said.
            runtime::spawn(async move { _ = link.inbox.send(message).await });
        }
        self.release();
    }

    /// Sends a signal to the job. It waits until the job hears it; one that has ended does not.
    pub async fn signal(&self, signal: Signal) {
        self.tell_job(NO_CONNECTION, Heard::Signal(signal)).await;
    }

    /// A new connection to the job, in place of an older one. It tells what comes after `had` of each output; of an output
    /// without such an offset, all that is kept. Output files go on at `files`; without that, with the first one that is not
    /// stored whole. What it sends is compressed if the controller `accepts_compressed`.
    ///
    /// # Errors
    /// [`Error::Protocol`] for an offset before what was acknowledged, or behind what was written.
    pub fn connect(
        self: &Arc<Self>,
        had: [Option<u64>; 2],
        files: Option<Position>,
        accepts_compressed: bool,
    ) -> Result<Attachment, Error> {
        let told = self.state.look(|state| {
            let mut outputs = [0; 2];
            for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                let (start, end) = (state.tape.start(stream), state.tape.end(stream));
                let offset = had[stream as usize].unwrap_or(start);
                // It is told that there is none any more.
                let is_lost = state.lost_output().is_some();
                if !is_lost && !(start..=end).contains(&offset) {
                    return Err(Error::Protocol("output from an offset at which there is none"));
                }
                outputs[stream as usize] = offset;
            }
            state.connection += 1;
            let files = Cursor::new(files.unwrap_or(Position { offset: 0, ..state.stored }));
            Ok(Told::of(state.connection, outputs, files))
        })?;
        // The one before it is to tell that.
        self.state.wake();
        self.presence.change(|presence| presence.left = None);
        let encoder = Encoder { packer: accepts_compressed.then(Packer::default), plain: BytesMut::new() };
        Ok(Attachment { link: self.clone(), told, encoder })
    }

    /// The connection with this number is gone.
    fn disconnect(&self, number: u64) {
        if self.state.look(|state| state.connection) == number {
            self.presence.change(|presence| _ = presence.left.get_or_insert_with(Instant::now));
        }
    }

    /// The controller has left by the connection with this number, and hears nothing more on it.
    fn leave(&self, number: u64) {
        self.disconnect(number);
        self.state.change(|state| state.left = number);
    }

    /// Does what a connection's request asks for. Gives false if the controller leaves by it.
    async fn handle(&self, connection: u64, request: Request) -> Result<bool, Error> {
        let can_hear_more = self.state.look(|state| state.has_started || state.stage == Stage::Ended);
        match request {
            Request::Stdin { .. } | Request::Acknowledge { .. } | Request::Stored(_) if !can_hear_more => {
                return Err(Error::Protocol("the program has not started yet"));
            }
            Request::Stdin { offset, data, end } => self.stdin.push(offset, &data, end)?,
            Request::Acknowledge { stream, offset, closed } => {
                self.acknowledge(stream, offset, closed);
            }
            Request::Chunk(chunk) => self.tell_job(connection, Heard::Chunk(chunk)).await,
            Request::Signal { number, signal } => {
                if self.count_signal(number)? {
                    self.tell_job(connection, Heard::Signal(signal)).await;
                }
            }
            Request::Resize(size) => self.tell_job(connection, Heard::Resize(size)).await,
            Request::Start => self.tell_job(connection, Heard::Start).await,
            Request::Stored(position) => {
                self.state.change(|state| {
                    // There may be none any more.
                    let end = state.offer.as_ref().map(ArtifactSet::end).unwrap_or_default();
                    state.stored = state.stored.max(position.min(end));
                });
            }
            Request::Discard => {
                self.release();
                return Ok(false);
            }
            Request::Detach => return Ok(false),
        }
        Ok(true)
    }

    fn acknowledge(&self, stream: OutputStream, offset: u64, closed: bool) {
        // There is less to tell, so nobody need look.
        let written = self.state.look(|state| {
            state.tape.acknowledge(stream, offset);
            state.tape.end(stream)
        });
        self.output(stream).change(|control| {
            // What is written later is not acknowledged by this, or nothing would bound the tape.
            control.acknowledged = control.acknowledged.max(offset.min(written));
            control.closed |= closed;
        });
    }

    /// Whether this signal is to reach the job: it has not come before.
    fn count_signal(&self, number: u64) -> Result<bool, Error> {
        let signals = self.state.look(|state| state.signals);
        match number {
            0 => return Ok(true),
            _ if number <= signals => return Ok(false),
            _ if number > signals + 1 => return Err(Error::Protocol("a signal is missing before this one")),
            _ => {}
        }
        self.state.change(|state| state.signals = number);
        Ok(true)
    }

    async fn tell_job(&self, connection: u64, heard: Heard) {
        // Fails if the job has ended: then there is nothing more to say.
        let _ = self.inbox.send(Message { connection, heard }).await;
    }
}

/// One connection of a controller to its job. When it is dropped, the controller is gone, unless it has heard everything.
pub struct Attachment {
    link: Arc<Link>,
    told: Told,
    encoder: Encoder,
}

/// What the controller has heard by a connection.
struct Told {
    /// The number of that one.
    connection: u64,
    accepted: bool,
    started: bool,
    /// How much of its input the program has taken, and whether it takes no more.
    stdin: (u64, bool),
    /// How many numbered signals are here.
    signals: u64,
    /// Where the outputs go on.
    outputs: [u64; 2],
    files: Cursor,
    /// Everything: nothing follows.
    last: bool,
}

impl Attachment {
    /// Where the controller's requests go.
    pub fn requests(&self) -> Requests {
        Requests { link: self.link.clone(), number: self.told.connection, is_over: false }
    }

    /// The next thing that the controller has not heard; nothing when there is nothing more to say, or nobody to say it to.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let Self { link, told, encoder } = self;
        link.state.poll(context, |state| {
            if told.last || state.left == told.connection {
                return Poll::Ready(None);
            }
            match told.next(link, state, encoder) {
                // The job had ended before it heard of that, and what it has left goes on only as it is acknowledged.
                None if state.unheard == told.connection && state.offer.is_some() => Poll::Ready(None),
                None => Poll::Pending,
                event => Poll::Ready(event),
            }
        })
    }
}

/// What one connection brings to the job. When it is dropped before it is over, the connection has broken.
pub struct Requests {
    link: Arc<Link>,
    number: u64,
    is_over: bool,
}

impl Requests {
    /// Does what a request asks for. Gives false if nothing that comes after it counts: the controller has left, has broken a
    /// rule, or has a newer connection.
    pub async fn handle(&mut self, request: Request) -> bool {
        if self.is_taken_over() {
            return false;
        }
        match self.link.handle(self.number, request).await {
            Ok(true) => true,
            Ok(false) => {
                self.is_over = true;
                self.link.leave(self.number);
                false
            }
            Err(fault) => {
                self.stop(fault).await;
                false
            }
        }
    }

    /// Nothing follows, and so no standard input does; the controller goes on listening.
    pub fn finish(mut self) {
        if !self.is_taken_over() {
            self.is_over = true;
            self.link.stdin.end();
        }
    }

    /// The controller broke a rule, and cannot be believed any more.
    pub async fn fail(mut self, fault: Error) {
        if !self.is_taken_over() {
            self.stop(fault).await;
        }
    }

    /// True if a newer connection has the job. It is still to be told here, where nothing that comes counts any more.
    fn is_taken_over(&mut self) -> bool {
        let is_taken_over = self.link.state.look(|state| state.connection) != self.number;
        self.is_over |= is_taken_over;
        is_taken_over
    }

    async fn stop(&mut self, fault: Error) {
        // Or else, to be dropped is to break.
        if !matches!(fault, Error::Gone) {
            self.is_over = true;
            self.link.tell_job(self.number, Heard::Fault(fault)).await;
            // It hears what it did wrong, and then nothing more of it counts.
            self.link.disconnect(self.number);
            self.link.state.change(|state| state.unheard = self.number);
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        if !self.is_over {
            self.link.leave(self.number);
        }
    }
}

/// Makes what is sent of content.
struct Encoder {
    /// There is one if the controller accepts what it makes.
    packer: Option<Packer>,
    /// For what goes as it is: a buffer that was sent is used again.
    plain: BytesMut,
}

impl Encoder {
    /// What is sent of content that is somebody else's.
    fn encode(&mut self, content: &[u8]) -> Payload {
        self.compressed(content).unwrap_or_else(|| {
            self.plain.extend_from_slice(content);
            Payload { data: self.plain.split().freeze(), uncompressed_size: 0 }
        })
    }

    /// What is sent of content that is nobody else's.
    fn encode_owned(&mut self, content: Bytes) -> Payload {
        self.compressed(&content).unwrap_or(Payload { data: content, uncompressed_size: 0 })
    }

    fn compressed(&mut self, content: &[u8]) -> Option<Payload> {
        // At most OUTPUT_CHUNK_BYTES.
        let uncompressed_size = content.len() as u32;
        self.packer.as_mut()?.pack(content).map(|data| Payload { data, uncompressed_size })
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if !self.told.last {
            self.link.disconnect(self.told.connection);
        }
    }
}

impl Told {
    /// Nothing yet, by a connection that goes on there.
    fn of(connection: u64, outputs: [u64; 2], files: Cursor) -> Self {
        Self {
            connection,
            accepted: false,
            started: false,
            stdin: (0, false),
            signals: 0,
            outputs,
            files,
            last: false,
        }
    }

    fn next(&mut self, link: &Link, state: &State, encoder: &mut Encoder) -> Option<Event> {
        if state.connection != self.connection {
            self.last = true;
            return Some(Event::TakenOver);
        }
        if !self.accepted && state.stage != Stage::Admitted {
            // An error says by itself that there was nothing to accept, unless there is more to say before it.
            let has_failed = state.last.as_ref().is_some_and(|last| last.is_err());
            self.accepted = true;
            self.signals = state.signals;
            if !has_failed || state.has_started {
                let needs = match state.stage {
                    Stage::Receiving => state.needs.clone(),
                    _ => Vec::new(),
                };
                let (job, stdin) = (link.job.clone(), link.stdin.received());
                let (outputs, signals) = (self.outputs, self.signals);
                return Some(Event::Accepted { job, needs, stdin, outputs, signals });
            }
        }
        // Whoever comes back may be somebody else, who does not know that the input has ended. It must not hear first that
        // the program runs: it would send its own.
        let has_ended = self.connection > 1 && link.stdin.has_ended();
        let stdin = (state.stdin, state.stdin_closed || has_ended);
        if state.has_started && self.stdin != stdin {
            self.stdin = stdin;
            return Some(Event::StdinAck { offset: stdin.0, closed: stdin.1 });
        }
        if !self.started && state.has_started {
            self.started = true;
            return Some(Event::Started { has_terminal: link.tenure.has_terminal });
        }
        if self.accepted && self.signals != state.signals && state.last.is_none() {
            self.signals = state.signals;
            return Some(Event::SignalAck(state.signals));
        }
        if let Some((stream, offset, content)) = next_piece(&state.tape, &mut self.outputs) {
            return Some(Event::Output { stream, offset, payload: encoder.encode(content) });
        }
        match &state.offer {
            Some(offer) => {
                if let Some(Piece { at, data, info, problem }) = offer.next(&mut self.files, state.stored) {
                    return Some(Event::File { at, info, problem, payload: encoder.encode_owned(data) });
                }
            }
            // Nothing of a job is held when its end is told.
            None => self.files.close(),
        }
        let last = state.last.clone()?;
        self.last = true;
        Some(Event::Last(last))
    }
}

/// The next piece for whoever has what is before `had` of each output; it counts as had then.
fn next_piece<'a>(tape: &'a Tape, had: &mut [u64; 2]) -> Option<(OutputStream, u64, &'a [u8])> {
    let (stream, offset, data) = tape.next(*had)?;
    had[stream as usize] = offset + data.len() as u64;
    Some((stream, offset, data))
}

#[cfg(test)]
impl Link {
    /// Takes what was read from an output.
    pub fn write(&self, stream: OutputStream, data: &[u8]) {
        self.state.change(|state| state.tape.append(stream, |bytes| bytes.extend_from_slice(data)));
    }
}

#[cfg(test)]
impl Attachment {
    /// The next thing that the controller has not heard.
    pub async fn recv(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.poll_next(context)).await
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

    const LINGER: Duration = Duration::from_secs(60);

    type Say = mpsc::Sender<Result<Request, Error>>;

    fn link() -> (Arc<Link>, Inbox) {
        let owner = format!("SHA256:{}", "0".repeat(64)).parse().unwrap();
        Link::new("7".into(), Tenure { owner, linger: Some(LINGER), has_terminal: false })
    }

    fn attach(link: &Arc<Link>, had: [Option<u64>; 2]) -> (Say, Attachment) {
        carry(link.connect(had, None, false).unwrap())
    }

    /// To drop what this gives is to break the connection.
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

    /// Lets all other tasks do what they can.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_controller_that_comes_back_hears_the_rest_once_and_then_the_outcome() {
        let (link, _heard) = link();
        link.set_stage(Stage::Running);
        let (say, mut replies) = attach(&link, [None, None]);
        link.write(Stdout, b"one ");
        assert_eq!(output(&mut replies).await, (Stdout, 0, Bytes::from_static(b"one ")));
        drop((say, replies));
        settle().await;
        assert!(!link.is_attached());
        link.write(Stdout, b"two");
        link.write(Stderr, b"oops");
        link.end(Ok(exited()));
        let (_say, mut replies) = attach(&link, [Some(4), Some(0)]);
        let Some(Event::Accepted { outputs: [4, 0], needs, .. }) = replies.recv().await else {
            panic!("where it goes on comes first");
        };
        assert_eq!(needs, []);
        assert_eq!(output(&mut replies).await, (Stdout, 4, Bytes::from_static(b"two")));
        assert_eq!(output(&mut replies).await, (Stderr, 0, Bytes::from_static(b"oops")));
        assert!(matches!(replies.recv().await, Some(Event::Last(last)) if last.is_ok()));
        assert!(replies.recv().await.is_none());
    }

    #[tokio::test]
    async fn an_offset_at_which_nothing_is_kept_is_refused() {
        let (link, _heard) = link();
        link.write(Stdout, b"hello");
        link.acknowledge(Stdout, 3, false);
        for (had, is_kept) in [(2, false), (3, true), (5, true), (6, false)] {
            assert_eq!(link.connect([Some(had), None], None, false).is_ok(), is_kept, "{had}");
        }
    }

    #[tokio::test]
    async fn a_piece_of_the_program_that_an_older_connection_still_brings_is_not_heard() {
        let (link, mut heard) = link();
        let needed = |offset| [[7; 32], [8; 32]].map(|digest| Need { digest, offset, base: None });
        link.need(&needed(0));
        let (old, _old_replies) = attach(&link, [None, None]);
        for offset in [0, 1] {
            old.send(Ok(Request::Chunk(chunk(offset, b"x")))).await.unwrap();
        }
        // One piece fills the inbox, and the other waits for room there.
        settle().await;
        assert!(matches!(heard.recv().await, Some(Heard::Chunk(Chunk { offset: 0, .. }))));
        link.need(&needed(1));
        let (new, mut replies) = attach(&link, [None, None]);
        settle().await;
        let Some(Event::Accepted { needs, .. }) = replies.recv().await else {
            panic!("it is to send the rest");
        };
        assert_eq!(needs, needed(1));
        for offset in [1, 2] {
            new.send(Ok(Request::Chunk(chunk(offset, b"y")))).await.unwrap();
        }
        for expected in [1, 2] {
            let Some(Heard::Chunk(Chunk { offset, data, .. })) = heard.recv().await else {
                panic!("more comes")
            };
            assert_eq!((offset, &data[..]), (expected, &b"y"[..]));
        }
    }

    #[tokio::test]
    async fn whoever_comes_back_to_a_job_that_has_failed_hears_where_it_was_before_its_output() {
        let (link, _heard) = link();
        link.set_stage(Stage::Running);
        link.write(Stdout, b"hello");
        link.end(Err(Error::Stopping));
        let (_say, mut replies) = attach(&link, [Some(0), Some(0)]);
        assert!(matches!(replies.recv().await, Some(Event::Accepted { .. })));
        assert!(matches!(replies.recv().await, Some(Event::Started { .. })));
        assert!(matches!(replies.recv().await, Some(Event::Output { .. })));
        assert!(matches!(replies.recv().await, Some(Event::Last(last)) if last.is_err()));
    }

    #[tokio::test]
    async fn nobody_acknowledges_what_is_not_written_yet() {
        let (link, _heard) = link();
        link.write(Stdout, b"hello");
        link.acknowledge(Stdout, u64::MAX, false);
        let acknowledged = || link.output(Stdout).look(|control| control.acknowledged);
        assert_eq!((acknowledged(), link.unread()), (5, 0));
        link.write(Stdout, b"more");
        assert_eq!((acknowledged(), link.unread()), (5, 4));
    }

    #[tokio::test]
    async fn a_newer_connection_takes_over() {
        let (link, mut heard) = link();
        link.set_stage(Stage::Running);
        let (old, mut old_replies) = attach(&link, [None, None]);
        let (new, _new_replies) = attach(&link, [None, None]);
        old.send(Ok(Request::Signal { number: 1, signal: Signal::HUP })).await.unwrap();
        settle().await;
        loop {
            match old_replies.recv().await {
                Some(Event::TakenOver) => break,
                Some(_) => {}
                None => panic!("it was not told"),
            }
        }
        new.send(Ok(Request::Signal { number: 1, signal: Signal::INT })).await.unwrap();
        assert!(matches!(heard.recv().await, Some(Heard::Signal(Signal::INT))));
        drop((old, old_replies));
        settle().await;
        assert!(link.is_attached(), "the end of the old one is not the end of the new one");
    }

    #[tokio::test]
    async fn repeated_signal_reaches_the_job_once() {
        let (link, mut heard) = link();
        link.set_stage(Stage::Running);
        let (say, mut replies) = attach(&link, [None, None]);
        let signal = |number, signal| Ok(Request::Signal { number, signal });
        assert!(matches!(replies.recv().await, Some(Event::Accepted { signals: 0, .. })));
        assert!(matches!(replies.recv().await, Some(Event::Started { .. })));
        say.send(signal(1, Signal::INT)).await.unwrap();
        assert!(matches!(heard.recv().await, Some(Heard::Signal(Signal::INT))));
        assert!(matches!(replies.recv().await, Some(Event::SignalAck(1))));
        // The connection breaks, and whoever comes back may not have heard of it.
        drop((say, replies));
        let (say, mut replies) = attach(&link, [None, None]);
        let Some(Event::Accepted { signals: 1, .. }) = replies.recv().await else {
            panic!("it is told where signals go on");
        };
        // An older controller does not count.
        for again in [signal(1, Signal::INT), signal(2, Signal::HUP), signal(0, Signal::TERM)] {
            say.send(again).await.unwrap();
        }
        assert!(matches!(heard.recv().await, Some(Heard::Signal(Signal::HUP))));
        assert!(matches!(heard.recv().await, Some(Heard::Signal(Signal::TERM))));
        say.send(signal(4, Signal::INT)).await.unwrap();
        assert!(matches!(heard.recv().await, Some(Heard::Fault(Error::Protocol(_)))));
    }

    #[tokio::test]
    async fn output_files_come_before_the_end_and_to_whoever_comes_back_from_where_they_were() {
        let work = tempfile::tempdir().unwrap();
        std::fs::write(work.path().join("x"), [7; 50]).unwrap();
        let (link, _heard) = link();
        link.set_stage(Stage::Running);
        let (say, mut replies) = attach(&link, [None, None]);
        link.write(Stdout, b"done");
        link.offer(ArtifactSet::find(work.path(), &[b"x".to_vec()], None, 30));
        assert_eq!(output(&mut replies).await.2, "done");
        let Some(Event::File { at, info: Some(info), payload, .. }) = replies.recv().await else {
            panic!("files follow the output");
        };
        assert_eq!((at, payload.data.len(), info.size), (Position::default(), 30, 50));
        settle().await;
        let more = tokio::time::timeout(Duration::ZERO, replies.recv()).await;
        assert!(more.is_err(), "no more than the window is on its way");
        drop((say, replies));
        settle().await;
        let had = Position { file: 0, offset: 30 };
        let (say, mut replies) = carry(link.connect([Some(4), Some(0)], Some(had), false).unwrap());
        say.send(Ok(Request::Stored(had))).await.unwrap();
        let rest = loop {
            match replies.recv().await.unwrap() {
                Event::File { at, payload, .. } => break (at, payload),
                Event::Accepted { .. } | Event::Started { .. } => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((rest.0.offset, rest.1.data.len()), (30, 20));
        assert!(tokio::time::timeout(Duration::ZERO, link.fetched()).await.is_err());
        let end = Position { file: 1, offset: 0 };
        // An acknowledgement of what there is not is one of all that there is.
        say.send(Ok(Request::Stored(Position { file: 9, ..end }))).await.unwrap();
        link.fetched().await;
        link.withdraw();
        link.end(Ok(exited()));
        assert!(matches!(replies.recv().await, Some(Event::Last(last)) if last.is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_is_abandoned_when_its_controller_stays_away() {
        let (link, _heard) = link();
        let (say, replies) = attach(&link, [None, None]);
        assert!(tokio::time::timeout(10 * LINGER, link.abandoned()).await.is_err(), "it is there");
        drop((say, replies));
        settle().await;
        assert!(tokio::time::timeout(LINGER / 2, link.abandoned()).await.is_err());
        let (say, replies) = attach(&link, [None, None]);
        assert!(tokio::time::timeout(LINGER, link.abandoned()).await.is_err(), "it is back");
        drop((say, replies));
        let left = Instant::now();
        link.abandoned().await;
        assert!(left.elapsed() >= LINGER && link.is_abandoned());
    }

    #[tokio::test]
    async fn discarded_job_is_abandoned_at_once() {
        let (link, _heard) = link();
        let (say, _replies) = attach(&link, [None, None]);
        say.send(Ok(Request::Discard)).await.unwrap();
        link.abandoned().await;
        assert!(link.is_abandoned());
    }

    #[tokio::test(start_paused = true)]
    async fn how_a_job_ended_is_said_though_a_rule_was_broken_after_it() {
        let (link, inbox) = link();
        link.set_stage(Stage::Running);
        let (say, mut connection) = attach(&link, [None, None]);
        drop(inbox);
        link.end(Ok(exited()));
        say.send(Err(Error::Protocol("a message that this agent does not know"))).await.unwrap();
        settle().await;
        while !matches!(connection.recv().await.unwrap(), Event::Last(_)) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_rule_that_is_broken_while_files_wait_ends_the_connection() {
        let work = tempfile::tempdir().unwrap();
        std::fs::write(work.path().join("x"), [7; 100]).unwrap();
        for has_ended in [true, false] {
            let (link, inbox) = link();
            link.set_stage(Stage::Running);
            let (say, mut connection) = attach(&link, [None, None]);
            let inbox = if has_ended { None } else { Some(inbox) };
            say.send(Err(Error::Protocol("a message that this agent does not know"))).await.unwrap();
            settle().await;
            // A job that ends at the same moment does not hear it either.
            drop(inbox);
            link.offer(ArtifactSet::find(work.path(), &[b"x".to_vec()], None, 30));
            // It is told of the file as far as it may be without an answer, and then that there is nothing more.
            let all = async { while connection.recv().await.is_some() {} };
            tokio::time::timeout(LINGER, all).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_closing_ends_the_input_and_not_the_attachment() {
        let (link, _heard) = link();
        link.set_stage(Stage::Running);
        let mut attachment = link.connect([None, None], None, false).unwrap();
        attachment.requests().finish();
        assert!(link.stdin.has_ended() && link.is_attached());
        link.write(Stdout, b"still heard");
        assert_eq!(output(&mut attachment).await.2, "still heard");
        drop(attachment);
        assert!(!link.is_attached(), "its response is not wanted any more");
    }

    #[tokio::test(start_paused = true)]
    async fn broken_connections_do_not_end_the_input() {
        let (link, _heard) = link();
        link.set_stage(Stage::Running);
        let (say, _replies) = attach(&link, [None, None]);
        drop(say);
        settle().await;
        let (say, _replies) = attach(&link, [None, None]);
        say.send(Err(Error::Gone)).await.unwrap();
        settle().await;
        assert!(!link.stdin.has_ended() && !link.is_attached());
        // Nor does an older one that is half-closed.
        let old = link.connect([None, None], None, false).unwrap();
        let _new = link.connect([None, None], None, false).unwrap();
        old.requests().finish();
        assert!(!link.stdin.has_ended() && link.is_attached());
    }

    #[tokio::test(start_paused = true)]
    async fn detaching_ends_the_attachment_and_not_the_job() {
        let (link, _heard) = link();
        link.set_stage(Stage::Running);
        let (say, mut replies) = attach(&link, [None, None]);
        say.send(Ok(Request::Detach)).await.unwrap();
        while replies.recv().await.is_some() {}
        assert!(!link.is_attached() && !link.is_abandoned() && !link.stdin.has_ended());
    }

    #[tokio::test]
    async fn whoever_comes_back_learns_that_the_input_has_ended() {
        let (link, _heard) = link();
        link.set_stage(Stage::Running);
        let (say, replies) = attach(&link, [None, None]);
        say.send(Ok(Request::Stdin { offset: 0, data: Bytes::from_static(b"in"), end: true })).await.unwrap();
        settle().await;
        drop((say, replies));
        let (_say, mut replies) = attach(&link, [None, None]);
        assert!(matches!(replies.recv().await, Some(Event::Accepted { stdin: 2, .. })));
        assert!(matches!(replies.recv().await, Some(Event::StdinAck { closed: true, .. })));
        assert!(matches!(replies.recv().await, Some(Event::Started { .. })));
    }
}
