//! The state machine of `Run` and `Attach`: a job, and a controller that connects, disconnects, connects twice, and may
//! send anything.
//!
//! The job does what `execute` and `running` do with their session, without files and processes. Everything happens on
//! one thread whose clock is paused, so that a failure is reproducible.
#![no_main]

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hop_proto::limits::{OUTPUT_CHUNK_BYTES, STDIN_WINDOW_BYTES};
use hopd::job::error::Error;
use hopd::job::outcome::Outcome;
use hopd::job::session::output_buffer::OutputStream::{self, Stderr, Stdout};
use hopd::job::session::{Attachment, Event, JobCommand, JobCommands, Ownership, Phase, Request, Session};
use hopd::store::decoder::Encoding;
use hopd::store::receiver::{Chunk, Need};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The events of a run.
#[derive(Arbitrary, Debug)]
struct Scenario {
    /// The controller may break every rule. If it may not, nothing may go wrong for it.
    lies: bool,
    /// The connections' tasks run only when the scenario lets them.
    is_slow: bool,
    /// The program is in the store already.
    is_there: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// The controller connects, with the offsets of the output that it has.
    Connect { had: Had },
    /// A connection breaks, or the controller half-closes it.
    Leave { connection: u8, only_its_side: bool },
    /// The controller sends a request on its newest connection.
    Say(Say),
    /// It sends a request that breaks a rule, on any connection.
    Lie { connection: u8, lie: Lie },
    /// It receives events.
    Hear { connection: u8, messages: u8 },
    /// The job takes its next step.
    Work,
    /// The program writes.
    Write { to_stderr: bool, bytes: u16 },
    /// The program reads, or closes its input.
    TakeStdin { bytes: u16, close: bool },
    /// The job ends.
    End { well: bool },
    /// The connections' tasks run this many times.
    Turns(u8),
    /// Time passes.
    Wait { seconds: u8 },
}

#[derive(Arbitrary, Debug)]
enum Had {
    /// None: it wants everything that the session has.
    Nothing,
    /// Its true offsets.
    All,
    /// Other offsets.
    At(u64, u64),
}

#[derive(Arbitrary, Debug)]
enum Say {
    Chunk { bytes: u8 },
    Stdin { bytes: u16, end: bool },
    Signal,
    Acknowledge { stderr: bool, close: bool },
    Release,
}

#[derive(Arbitrary, Debug)]
enum Lie {
    Chunk {
        offset: u64,
        bytes: u8,
    },
    Stdin {
        offset: u64,
        bytes: u16,
        end: bool,
    },
    Acknowledge {
        stderr: bool,
        offset: u64,
        close: bool,
    },
    /// Something that cannot be decoded.
    Nonsense,
    /// A signal that was sent before, or before its turn; 0 is not counted, as older controllers send it.
    Signal {
        number: u64,
    },
}

const LINGER: Duration = Duration::from_secs(60);
const PROGRAM_BYTES: u64 = 200;
const DIGEST: [u8; 32] = [7; 32];
/// Bytes of each output that may be unacknowledged.
const WINDOW: u64 = 40_000;
/// More turns than it takes to receive two windows.
const MANY_TURNS: u32 = 100;
const STREAMS: [OutputStream; 2] = [Stdout, Stderr];

/// A message of the controller on a connection.
enum Said {
    Request(Request),
    /// A message that breaks a rule before it is decoded.
    Nonsense(Error),
    /// The end of the stream.
    HalfClose,
}

/// One connection, as the controller sees it.
struct Connection {
    /// Open while the controller may still send requests.
    say: Option<mpsc::Sender<Said>>,
    /// Open while it still receives events.
    replies: Option<Attachment>,
    /// The offsets with which it connected.
    had: [Option<u64>; 2],
    is_accepted: bool,
    has_started: bool,
    stdin_ack: (u64, bool),
    /// The last event was received.
    is_over: bool,
    /// The offsets at which the outputs continue.
    outputs: [u64; 2],
    /// The offset at which the upload continues.
    upload: Option<u64>,
    /// The offset at which standard input continues.
    stdin: u64,
    stdin_has_ended: bool,
    /// How many signals the agent has acknowledged, and how many the controller has numbered.
    signals: [u64; 2],
}

/// Both sides, and the connections between them.
struct World {
    lies: bool,
    session: Arc<Session>,
    /// The job's end of the queue, while there is a job.
    commands: Option<JobCommands>,
    program_received: u64,
    written: [u64; 2],
    taken: u64,
    /// How many numbered signals have reached the job.
    signals: u64,
    ended: Option<bool>,
    connections: Vec<Connection>,
    /// How much of the outputs the controller has received on its newest connections.
    had: [Option<u64>; 2],
    has_started: bool,
    stdin_closed: bool,
    /// The length of the input, once its end was sent.
    stdin_total: Option<u64>,
    is_released: bool,
}

fuzz_target!(|scenario: Scenario| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime needs nothing").block_on(async {
        let mut world = World::new(scenario.lies, scenario.is_there);
        for step in scenario.steps {
            world.step(step).await;
            if !scenario.is_slow {
                turns(10).await;
            }
            world.check();
        }
        world.finish().await;
    });
});

impl World {
    fn new(lies: bool, is_there: bool) -> Self {
        let owner = hop_proto::identity::Fingerprint::of(b"controller");
        let (session, commands) = Session::new(
            "7".into(),
            Ownership {
                owner,
                linger: Some(LINGER),
                log_size: 0,
                output_window: WINDOW,
                has_terminal: false,
            },
        );
        Self {
            lies,
            session,
            commands: Some(commands),
            program_received: if is_there { PROGRAM_BYTES } else { 0 },
            written: [0; 2],
            taken: 0,
            signals: 0,
            ended: None,
            connections: Vec::new(),
            had: [None; 2],
            has_started: false,
            stdin_closed: false,
            stdin_total: None,
            is_released: false,
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Connect { had: Had::Nothing } => self.connect([None; 2]),
            Step::Connect { had: Had::All } => self.connect(self.had),
            Step::Connect { had: Had::At(stdout, stderr) } if self.lies => {
                self.connect([Some(stdout), Some(stderr)]);
            }
            Step::Leave { connection, only_its_side } => {
                if only_its_side {
                    self.half_close(connection);
                } else if let Some(connection) = self.connection(connection) {
                    connection.say = None;
                    connection.replies = None;
                }
            }
            Step::Say(say) => self.say(say),
            Step::Lie { connection, lie } if self.lies => {
                if let Some(Connection { say: Some(say), .. }) = self.connection(connection) {
                    // A request that does not fit into the queue is not sent.
                    let _ = say.try_send(lie.said());
                }
            }
            Step::Hear { connection, messages } => {
                let count = self.connections.len().max(1);
                for _ in 0..messages {
                    self.hear(usize::from(connection) % count);
                }
            }
            Step::Work => self.work(),
            Step::Write { to_stderr, bytes } => {
                self.write(if to_stderr { Stderr } else { Stdout }, bytes.into())
            }
            Step::TakeStdin { bytes, close } => self.take_stdin(bytes.into(), close),
            Step::End { well } => {
                self.end(if well { Ok(()) } else { Err(hopd::store::error::Error::DigestMismatch.into()) })
            }
            Step::Turns(count) => turns(count.into()).await,
            Step::Wait { seconds } => tokio::time::sleep(Duration::from_secs(seconds.into())).await,
            Step::Connect { had: Had::At(..) } | Step::Lie { .. } => {}
        }
    }

    fn connection(&mut self, index: u8) -> Option<&mut Connection> {
        let count = self.connections.len().max(1);
        self.connections.get_mut(usize::from(index) % count)
    }

    // --------------------------------------------------------------------------------------------- the controller

    /// Half-closes a connection, and so ends the input. An honest controller has sent all of that.
    fn half_close(&mut self, connection: u8) {
        let newest = self.connections.len().wrapping_sub(1);
        let index = usize::from(connection) % self.connections.len().max(1);
        let (lies, total) = (self.lies, self.stdin_total);
        let Some(connection) = self.connections.get_mut(index) else { return };
        let has_said_all = connection.is_accepted && total.is_none_or(|total| connection.stdin == total);
        if index == newest && !lies && !has_said_all {
            return;
        }
        let stdin = connection.stdin;
        if let Some(Ok(())) = connection.say.take().map(|say| say.try_send(Said::HalfClose))
            && index == newest
            && connection.is_accepted
        {
            self.stdin_total.get_or_insert(stdin);
        }
    }

    fn connect(&mut self, had: [Option<u64>; 2]) {
        let is_kept = STREAMS.iter().all(|stream| {
            let kept = self.acknowledged(*stream)..=self.written[*stream as usize];
            had[*stream as usize].is_none_or(|offset| kept.contains(&offset))
        });
        let connected = self.session.connect(had, None, false);
        assert_eq!(connected.is_ok(), is_kept, "{had:?}");
        assert!(self.lies || is_kept, "what an honest controller does not have is kept");
        let Ok(connected) = connected else { return };
        let (say, mut messages) = mpsc::channel(4);
        let mut requests = connected.requests();
        tokio::spawn(async move {
            while let Some(said) = messages.recv().await {
                match said {
                    Said::Request(request) => {
                        if !requests.handle(request).await {
                            return;
                        }
                    }
                    Said::Nonsense(fault) => return requests.fail(fault).await,
                    Said::HalfClose => return requests.finish(),
                }
            }
        });
        self.had = had;
        self.connections.push(Connection {
            say: Some(say),
            replies: Some(connected),
            had,
            is_accepted: false,
            has_started: false,
            stdin_ack: (0, false),
            is_over: false,
            outputs: [0; 2],
            upload: None,
            stdin: 0,
            stdin_has_ended: false,
            signals: [0; 2],
        });
    }

    /// Sends a request that an honest controller may send, or nothing if it may not send it now.
    fn say(&mut self, say: Say) {
        let (has_started, stdin_closed) = (self.has_started, self.stdin_closed);
        let Some(newest) = self.connections.last_mut().filter(|newest| newest.is_accepted) else { return };
        let Some(channel) = newest.say.as_ref() else { return };
        let Ok(place) = channel.try_reserve() else { return };
        let message = match say {
            Say::Chunk { bytes } => {
                let Some(offset) = newest.upload.filter(|offset| *offset < PROGRAM_BYTES) else { return };
                let count = u64::from(bytes).min(PROGRAM_BYTES - offset);
                newest.upload = Some(offset + count);
                Request::Chunk(chunk(offset, data(2, offset, count)))
            }
            Say::Stdin { bytes, end } => {
                if !has_started || stdin_closed || newest.stdin_has_ended {
                    return;
                }
                let offset = newest.stdin;
                // The window is never extended here: the target `stdin` tests that.
                let most = self.stdin_total.unwrap_or(STDIN_WINDOW_BYTES.into());
                let count = u64::from(bytes).min(most.saturating_sub(offset));
                newest.stdin += count;
                let end = self.stdin_total.map_or(end, |total| newest.stdin == total);
                if end {
                    self.stdin_total = Some(newest.stdin);
                }
                newest.stdin_has_ended = end;
                Request::Stdin { offset, data: data(3, offset, count), end }
            }
            Say::Signal => {
                let [_, counted] = &mut newest.signals;
                *counted += 1;
                Request::Signal { number: *counted, signal: signal(*counted) }
            }
            Say::Acknowledge { stderr, close } => {
                if !has_started {
                    return;
                }
                let stream = if stderr { Stderr } else { Stdout };
                Request::Acknowledge { stream, offset: newest.outputs[stream as usize], closed: close }
            }
            Say::Release => {
                self.is_released = true;
                Request::Discard
            }
        };
        place.send(Said::Request(message));
    }

    /// Receives one event on a connection, if there is one, and checks it against the rules.
    fn hear(&mut self, index: usize) {
        let is_newest = index + 1 == self.connections.len();
        let Some(connection) = self.connections.get_mut(index) else { return };
        let Some(replies) = &mut connection.replies else { return };
        let mut context = Context::from_waker(Waker::noop());
        let reply = match replies.poll_next(&mut context) {
            Poll::Ready(Some(reply)) => reply,
            Poll::Pending => return,
            Poll::Ready(None) => {
                let has_left = connection.say.is_none();
                assert!(connection.is_over || has_left, "it ends with the last message and not before");
                return;
            }
        };
        assert!(!connection.is_over, "nothing comes after the last message: {reply:?}");
        match reply {
            Event::Accepted { job, needs, stdin, outputs, signals } => {
                assert!(!connection.is_accepted && job == "7");
                connection.is_accepted = true;
                for stream in [0, 1] {
                    assert!(connection.had[stream].is_none_or(|had| had == outputs[stream]));
                    assert!(outputs[stream] <= self.written[stream]);
                }
                connection.outputs = outputs;
                connection.stdin = stdin;
                connection.signals = [signals; 2];
                assert!(needs.len() <= 1);
                connection.upload = needs.first().map(|Need { digest, offset, .. }| {
                    assert!(*digest == DIGEST && *offset < PROGRAM_BYTES);
                    *offset
                });
            }
            Event::Started { .. } => {
                assert!(connection.is_accepted && !connection.has_started);
                connection.has_started = true;
                self.has_started = true;
            }
            Event::StdinAck { offset, closed } => {
                assert!(connection.is_accepted && (offset, closed) != connection.stdin_ack);
                assert!(
                    offset >= connection.stdin_ack.0
                        && closed >= connection.stdin_ack.1
                        && offset <= self.taken
                );
                connection.stdin_ack = (offset, closed);
                self.stdin_closed |= closed;
            }
            Event::SignalAck(number) => {
                let [acknowledged, _] = &mut connection.signals;
                assert!(connection.is_accepted && number > *acknowledged, "each is acknowledged once");
                *acknowledged = number;
            }
            Event::Output { stream, offset, payload } => {
                let piece = payload.data;
                assert!(connection.has_started && (1..=OUTPUT_CHUNK_BYTES).contains(&piece.len()));
                let acknowledged = self.session.output(stream).with(|control| control.acknowledged);
                let next = &mut connection.outputs[stream as usize];
                // Only output that the controller itself claimed to have is left out.
                assert!(offset == *next || (*next..=acknowledged).contains(&offset) && self.lies);
                assert_eq!(piece, data(stream as u64, offset, piece.len() as u64));
                *next = offset + piece.len() as u64;
                assert!(*next <= self.written[stream as usize]);
            }
            Event::File { .. } => panic!("no program has left a file"),
            Event::Ended(last) => {
                connection.is_over = true;
                assert_eq!(Some(last.is_ok()), self.ended);
                assert!(connection.is_accepted || last.is_err());
                for stream in STREAMS {
                    let acknowledged = self.session.output(stream).with(|control| control.acknowledged);
                    let has = connection.outputs[stream as usize].max(acknowledged);
                    assert!(has == self.written[stream as usize], "the end comes after the last byte");
                }
            }
            Event::TakenOver => {
                connection.is_over = true;
                assert!(!is_newest);
            }
        }
        if is_newest && connection.is_accepted {
            self.had = connection.outputs.map(Some);
        }
    }

    // ---------------------------------------------------------------------------------------------------- the job

    /// Takes the next step of `job` and `running`.
    fn work(&mut self) {
        match self.session.phase() {
            Phase::Admitted => self.make_progress(),
            Phase::Receiving if self.session.is_abandoned() => self.end(Err(Error::Gone)),
            Phase::Receiving => match self.command() {
                Some(JobCommand::Chunk(Chunk { offset, data, .. })) => self.receive(offset, &data),
                Some(JobCommand::Signal(_)) => self.end(Err(Error::Gone)),
                Some(JobCommand::Fault(error)) => self.fail(error),
                Some(JobCommand::Resize(_) | JobCommand::Start) | None => {}
            },
            Phase::Complete => self.session.set_phase(Phase::Running),
            Phase::Running if self.session.is_abandoned() => self.end(Ok(())),
            Phase::Running => match self.command() {
                Some(JobCommand::Chunk(_)) => self.fail(Error::Protocol("the program is complete")),
                Some(JobCommand::Fault(error)) => self.fail(error),
                Some(JobCommand::Signal(_) | JobCommand::Resize(_) | JobCommand::Start) | None => {}
            },
            Phase::Ended => {}
        }
    }

    fn command(&mut self) -> Option<JobCommand> {
        let command = pin!(self.commands.as_mut()?.recv()).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(command) = command else { return None };
        let command = command.expect("the session holds the other end");
        if let JobCommand::Signal(command) = command
            && command != UNCOUNTED
        {
            self.signals += 1;
            assert_eq!(command, signal(self.signals), "each comes once, and in its place");
        }
        Some(command)
    }

    fn receive(&mut self, offset: u64, piece: &[u8]) {
        let count = piece.len() as u64;
        if offset != self.program_received || count > PROGRAM_BYTES - offset {
            return self.fail(Error::Protocol("a blob chunk does not begin where the last one ended"));
        }
        assert!(self.lies || piece == data(2, offset, count));
        self.program_received += count;
        self.make_progress();
    }

    fn make_progress(&self) {
        match self.program_received {
            PROGRAM_BYTES => self.session.set_phase(Phase::Complete),
            offset => self.session.need(&[Need { digest: DIGEST, offset, base: None }]),
        }
    }

    /// The controller broke a rule.
    fn fail(&mut self, error: Error) {
        assert!(self.lies, "{error}, and the controller is honest");
        self.end(Err(error));
    }

    fn write(&mut self, stream: OutputStream, bytes: u64) {
        let control = self.session.output(stream).with(|control| *control);
        if self.session.phase() != Phase::Running || control.closed {
            return;
        }
        let written = &mut self.written[stream as usize];
        let credit = WINDOW.saturating_sub(*written - control.acknowledged.min(*written));
        let count = bytes.min(credit);
        let read = self.session.poll_read(stream, |buffer| {
            buffer.extend_from_slice(&data(stream as u64, *written, count));
            Poll::Ready(Ok(count as usize))
        });
        assert!(read.is_ready());
        *written += count;
    }

    fn take_stdin(&mut self, bytes: u64, close: bool) {
        if self.session.phase() == Phase::Running {
            self.taken += bytes.min(self.session.stdin().received() - self.taken);
            self.session.take_stdin(self.taken, close);
        }
    }

    fn end(&mut self, how: Result<(), Error>) {
        // Only a complete program has an outcome.
        let has_outcome = matches!(self.session.phase(), Phase::Complete | Phase::Running);
        if self.ended.is_some() || how.is_ok() && !has_outcome {
            return;
        }
        self.ended = Some(how.is_ok());
        self.commands = None;
        self.session.end(how.map(|()| Outcome::NotExecuted(String::new())));
    }

    // --------------------------------------------------------------------------------------------------- the rules

    fn acknowledged(&self, stream: OutputStream) -> u64 {
        self.session.output(stream).with(|control| control.acknowledged)
    }

    /// Checks everything that holds at any time.
    fn check(&self) {
        let unread = STREAMS.map(|stream| {
            let (written, acknowledged) = (self.written[stream as usize], self.acknowledged(stream));
            assert!(acknowledged <= written, "nobody has what was not written");
            written - acknowledged
        });
        assert_eq!(
            self.session.unread(),
            unread.iter().sum::<u64>(),
            "what is kept is what is not acknowledged"
        );
        assert!(unread.iter().all(|unread| *unread <= WINDOW));
        if self.session.is_abandoned() {
            assert!(self.is_released || !self.session.is_attached());
        }
    }

    /// Whatever happened: the job ends, every connection ends, and a controller that reconnects learns how it ended.
    async fn finish(mut self) {
        self.end(Err(Error::Stopping));
        self.connect([None; 2]);
        let last = self.connections.len() - 1;
        for index in 0..=last {
            for _ in 0..MANY_TURNS {
                self.hear(index);
                turns(1).await;
            }
            let connection = &self.connections[index];
            let is_there = connection.say.is_some() && connection.replies.is_some();
            assert!(connection.is_over || !is_there, "everybody who is there hears an end");
        }
        let unread = self.session.unread();
        self.connections.clear();
        turns(100).await;
        assert!(!self.session.is_attached());
        assert_eq!(self.session.unread(), unread, "what was command is kept until it is acknowledged");
        let left = Instant::now();
        self.session.abandoned().await;
        assert!(left.elapsed() <= LINGER + Duration::from_secs(1));
    }
}

impl Lie {
    fn said(self) -> Said {
        Said::Request(match self {
            Self::Chunk { offset, bytes } => Request::Chunk(chunk(offset, data(2, offset, bytes.into()))),
            Self::Stdin { offset, bytes, end } => {
                Request::Stdin { offset, data: data(3, offset, bytes.into()), end }
            }
            Self::Acknowledge { stderr, offset, close } => {
                let stream = if stderr { Stderr } else { Stdout };
                Request::Acknowledge { stream, offset, closed: close }
            }
            Self::Signal { number } => Request::Signal { number, signal: signal(number) },
            Self::Nonsense => {
                return Said::Nonsense(Error::Protocol("a message that cannot be decoded"));
            }
        })
    }
}

/// A signal without a number.
const UNCOUNTED: Signal = Signal::TERM;

/// The signal with this number. No two in a row are equal.
fn signal(number: u64) -> Signal {
    if number == 0 {
        return UNCOUNTED;
    }
    [Signal::HUP, Signal::INT, Signal::QUIT][(number % 3) as usize]
}

/// Lets the connections' tasks run.
async fn turns(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// A piece of the program, not encoded.
fn chunk(offset: u64, data: Bytes) -> Chunk {
    Chunk { offset, encoding: Some(Encoding::Identity), data }
}

/// The data at an offset of a stream. 251 is a prime: no chunk and no buffer begins like another.
fn data(stream: u64, offset: u64, count: u64) -> Bytes {
    (0..count).map(|index| (offset.wrapping_add(index).wrapping_add(stream * 50) % 251) as u8).collect()
}
