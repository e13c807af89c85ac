//! One job on a router, from the controller's side: send the program, carry its three streams, learn how it ended; and
//! come back to it when the connection breaks.
//!
//! What must stay true: every byte of output that the agent counted was written here before the outcome is believed; a
//! job whose outcome did not come is a lost job, never a finished one; the agent knows whether this `hop` has gone for
//! good; and it gets nothing of this machine that was not asked for: no terminal, no file, no memory beyond the windows.

mod call;
mod job;
mod upload;

use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hop_proto::limits::{
    MAX_OUTPUT_WINDOW_BYTES, MAX_SPEC_BYTES, MAX_STDIN_WINDOW_BYTES, OUTPUT_WINDOW_BYTES,
};
use hop_proto::v1::{
    self, Accepted, Attach, ErrorReason, JobSpec, MissingBlob, RunRequest, RunResponse, Start, Started,
    WindowSize, run_request, run_response,
};
use prost::Message as _;

use crate::error::Error;
use crate::interrupt::{Interrupts, Signals};
use crate::link::{Comeback, Link};
use crate::outcome::{Outcome, say};
use crate::output::Outputs;
use crate::output_files::{CorePlace, Failure, OutputFiles, Request};
use crate::packing;
use crate::program::Program;
use crate::progress::Progress;
use crate::sent::Sent;
use crate::stdin::{self, Input};
use crate::stdio;
use crate::terminal::Terminal;
use crate::turn::Turn;

use self::call::Call;
pub use self::job::Job;
use self::upload::{Upload, Uploads};

/// How long the output's reader may take for what is left, at most two windows, when the user wanted an end.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(5);

/// Runs `program` and carries its streams from and to ours; or, if the job is detached, leaves it when it runs. What is to
/// take its turn is sent at once, and started when that has come.
///
/// # Errors
/// Hop failed; how the program ended is then not known.
pub async fn run(
    link: Link,
    program: &Program,
    job: &Job,
    sent: &Sent,
    turn: Option<&mut Turn>,
    interrupts: &mut Interrupts,
    progress: &Progress,
) -> Result<Outcome, Error> {
    let id = job::new_id()?;
    let decoders = link.decoders();
    let spec = job.specification(id.clone(), program, sent, decoders, turn.is_some(), link.can_pack());
    let blobs = std::iter::once(&program.blob).chain(job.inputs.iter().map(|tree| &tree.archive));
    let uploads = blobs.map(|blob| Upload::new(blob, sent, link.router(), decoders)).collect();
    let bytes = RunRequest { message: Some(run_request::Message::Spec(spec.clone())) }.encoded_len();
    if bytes > MAX_SPEC_BYTES {
        return Err(Error::TooManyArguments { bytes });
    }
    let core = job.core.clone().map(|core| CorePlace { core, program: program.whole.clone() });
    let session = Session {
        // An agent that lacks the capability ends the job with its connection.
        linger: if link.can_attach() { job.linger } else { Duration::ZERO },
        goes_with_hop: link.can_attach(),
        leaves: job.detached,
        wants_terminal: job.terminal.is_some(),
        outputs: outputs(OUTPUT_WINDOW_BYTES),
        first: Some((spec, Uploads::new(uploads))),
        turn,
        verbose_since: job.verbose.then(Instant::now),
        asks: Ask::Run,
        files: OutputFiles::new(job.outputs.clone(), core, true),
        ..Session::new(link, id, Input::new(job.input), interrupts, progress)
    };
    session.see_through().await
}

/// A job that there is already.
#[derive(Debug)]
pub struct Known {
    /// Its id.
    pub job: String,
    /// It was started with `--detach`: its input is empty, and it is never ended because a `hop` goes.
    pub detached: bool,
    /// What this `hop` sends to its standard input.
    pub input: stdin::Mode,
    /// Where its output files go.
    pub outputs: Vec<Request>,
    /// If it has a terminal, that is to be ours.
    pub tty: bool,
}

/// Attaches to a job, as if this `hop` had run it; tries for `linger` to come back when the connection breaks.
///
/// # Errors
/// As [`run`].
pub async fn attach(
    link: Link,
    known: Known,
    linger: Duration,
    interrupts: &mut Interrupts,
    progress: &Progress,
) -> Result<Outcome, Error> {
    let input = Input::new(known.input);
    let session = Session {
        linger,
        goes_with_hop: !known.detached,
        wants_terminal: known.tty,
        files: OutputFiles::new(known.outputs, None, false),
        ..Session::new(link, known.job, input, interrupts, progress)
    };
    session.see_through().await
}

/// How a call begins.
#[derive(Clone, Copy)]
enum Ask {
    Run,
    Attach,
}

/// How far a call is, which decides what may be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The agent has not accepted: nothing.
    Asked,
    /// It lacks a blob, which is being packed: nothing.
    Packing,
    /// It lacks the rest of a blob: that, and nothing else.
    Sending,
    /// It has everything: signals and acknowledgements, and that the program may start.
    Sent,
    /// The program runs: standard input as well.
    Started,
}

/// What a job has come to, as far as this `hop` is concerned.
#[allow(clippy::large_enum_variant, reason = "there is one a job, and nearly always the large one")]
enum End {
    Outcome(v1::Outcome),
    Left,
}

struct Session<'a> {
    link: Link,
    job: String,
    /// The agent has said that it has the job.
    is_accepted: bool,
    /// It has the whole program, as far as is known here.
    is_whole: bool,
    /// When this `hop` gives up, nobody else will want the job.
    goes_with_hop: bool,
    /// The job is left alone when the program runs.
    leaves: bool,
    /// Our terminal is for the program, if it has one.
    wants_terminal: bool,
    linger: Duration,
    /// What this `hop` started; `None` if it only attaches.
    first: Option<(JobSpec, Uploads<'a>)>,
    /// What the program waits for, if it waits.
    turn: Option<&'a mut Turn>,
    /// On this call the agent was told that the program may start.
    told_to_start: bool,
    /// Since when it is under way, if it is to be said when it has started.
    verbose_since: Option<Instant>,
    /// How the next call begins.
    asks: Ask,
    stage: Stage,
    signals: Signals,
    input: Input,
    outputs: Outputs,
    files: OutputFiles,
    /// Ours, while the program has one.
    terminal: Option<Terminal>,
    /// The size of its window, if the agent has not heard it.
    window: Option<WindowSize>,
    /// There was a break, and no agent has accepted since.
    comeback: Option<Comeback>,
    interrupts: &'a mut Interrupts,
    progress: &'a Progress,
}

impl<'a> Session<'a> {
    /// To attach to a job, and not to come back to it.
    fn new(
        link: Link,
        job: String,
        input: Input,
        interrupts: &'a mut Interrupts,
        progress: &'a Progress,
    ) -> Self {
        let signals = Signals::new(link.counts_signals());
        Self {
            link,
            job,
            is_accepted: false,
            is_whole: false,
            goes_with_hop: false,
            leaves: false,
            wants_terminal: false,
            linger: Duration::ZERO,
            first: None,
            turn: None,
            told_to_start: false,
            verbose_since: None,
            asks: Ask::Attach,
            stage: Stage::Asked,
            signals,
            input,
            // Another hop may have asked for as much.
            outputs: outputs(MAX_OUTPUT_WINDOW_BYTES),
            files: OutputFiles::new(Vec::new(), None, false),
            terminal: None,
            window: None,
            comeback: None,
            interrupts,
            progress,
        }
    }

    async fn see_through(mut self) -> Result<Outcome, Error> {
        let (end, call) = loop {
            let mut call = self.call();
            let error = match self.carry(&mut call).await {
                Ok(end) => break (Ok(end), Some(call)),
                Err(error) => error,
            };
            if self.was_never_asked(&error) {
                self.asks = Ask::Run;
            } else if error.may_pass() && !self.linger.is_zero() {
                if let Err(error) = self.come_back(error).await {
                    break (Err(error), None);
                }
            } else {
                break (Err(error), Some(call));
            }
        };
        let end = end.map_err(|error| self.meaning(error));
        self.finish(end, call).await
    }

    /// Begins a call on the connection that there is.
    fn call(&mut self) -> Call {
        self.stage = Stage::Asked;
        let message = match (self.asks, &self.first) {
            (Ask::Run, Some((spec, _))) => run_request::Message::Spec(spec.clone()),
            _ => {
                let [stdout, stderr] =
                    self.outputs.received().map(|offset| self.is_accepted.then_some(offset));
                let job_id = self.job.clone();
                run_request::Message::Attach(Attach {
                    job_id,
                    stdout_offset: stdout,
                    stderr_offset: stderr,
                    files: self.files.position(),
                    accept_compressed_output: self.link.can_pack(),
                })
            }
        };
        Call::start(self.link.connection().client(), message)
    }

    /// True if the agent answers that it has never heard of a job which the last connection may have taken along. Asking
    /// for it once more runs it once.
    fn was_never_asked(&self, error: &Error) -> bool {
        matches!(error, Error::Refused { reason: ErrorReason::NoSuchJob, .. })
            && matches!(self.asks, Ask::Attach)
            && !self.is_accepted
            && self.first.is_some()
    }

    /// What an error means for a job that the agent once had.
    fn meaning(&self, error: Error) -> Error {
        match error {
            Error::Refused { reason: ErrorReason::NoSuchJob, .. } if self.is_accepted => {
                Error::Lost { router: self.link.router().to_owned(), source: Some(error.into()) }
            }
            // What has left its files has not been ended by that.
            Error::Rebooted { router } if self.files.have_begun() => Error::RebootedAfter { router },
            Error::AgentRestarted { router } if self.files.have_begun() => {
                Error::AgentRestartedAfter { router }
            }
            error => error,
        }
    }

    /// Carries the streams and the signals, until the job has ended, or the call.
    async fn carry(&mut self, call: &mut Call) -> Result<End, Error> {
        loop {
            let wants_room = self.has_message();
            tokio::select! {
                // Output first: it came before the signal.
                biased;
                reply = call.replies.next() => match reply {
                    Ok(Some(reply)) => {
                        if let Some(end) = self.hear(reply)? {
                            return Ok(end);
                        }
                    }
                    Ok(None) => {
                        return Err(Error::Lost { router: self.link.router().to_owned(), source: None });
                    }
                    Err(status) => return Err(self.link.connection().explain(*status).await),
                },
                name = self.interrupts.next() => self.interrupted(name)?,
                () = resized(&mut self.terminal) => self.window = Some(Terminal::size()),
                room = call.requests.room(), if wants_room => {
                    if let Some(message) = self.next_message() {
                        room.send(message);
                    }
                }
                () = packed(&mut self.first), if self.stage == Stage::Packing => self.send_on(),
                come = come(&mut self.turn), if self.stage == Stage::Sent => come?,
                changed = self.outputs.changed() => changed?,
                read = self.input.more() => read.map_err(stdin_error)?,
            }
        }
    }

    /// Does what a message of the agent says. Gives the end, if it is the last one that is wanted.
    fn hear(&mut self, reply: RunResponse) -> Result<Option<End>, Error> {
        let message = reply.message.ok_or_else(|| self.broken("a message that this hop does not know"))?;
        match (self.stage, message) {
            (Stage::Asked, run_response::Message::Accepted(accepted)) => self.accepted(accepted)?,
            (Stage::Asked, _) => return Err(self.broken("a job that starts before it is accepted")),
            (_, run_response::Message::Accepted(_)) => return Err(self.broken("a second acceptance")),
            (Stage::Packing | Stage::Sending, _) => {
                return Err(self.broken("an answer before the program was complete"));
            }
            // After a break the program may have been started long ago.
            (_, run_response::Message::Started(_) | run_response::Message::Output(_)) if self.leaves => {
                self.arrived();
                return Ok(Some(End::Left));
            }
            (_, run_response::Message::Started(started)) => self.started(started)?,
            (_, run_response::Message::Output(mut output)) => {
                output.data = self.unpacked(output.data, output.uncompressed_size)?;
                self.outputs.take(output).map_err(|what| self.broken(what))?;
            }
            (_, run_response::Message::OutputFile(mut piece)) => {
                if !self.files.are_wanted() && self.first.is_some() {
                    return Err(self.broken("an output file that nobody asked for"));
                }
                if !self.files.are_wanted() {
                    // Whoever asked for them may come for them.
                    self.goes_with_hop = false;
                    let router = self.link.router().to_owned();
                    return Err(Error::NoPlace { job: self.job.clone(), router });
                }
                piece.data = self.unpacked(piece.data, piece.uncompressed_size)?;
                self.files.take(piece).map_err(|failure| match failure {
                    Failure::Agent(what) => self.broken(what),
                    Failure::Here(error) => error,
                })?;
            }
            (_, run_response::Message::StdinAck(ack)) => {
                self.input.acknowledged(ack.offset, ack.closed).map_err(|what| self.broken(what))?;
            }
            (_, run_response::Message::SignalAck(ack)) => {
                self.signals.acknowledged(ack.number).map_err(|what| self.broken(what))?;
            }
            (_, run_response::Message::Outcome(outcome)) => return Ok(Some(End::Outcome(outcome))),
        }
        Ok(None)
    }

    /// The program runs.
    fn started(&mut self, started: Started) -> Result<(), Error> {
        if self.stage == Stage::Started {
            return Err(self.broken("a program that starts twice"));
        }
        if !(1..=MAX_STDIN_WINDOW_BYTES).contains(&started.stdin_window) {
            return Err(self.broken("a window for standard input that is not between 1 byte and 1 MiB"));
        }
        if started.terminal && !self.wants_terminal && self.first.is_some() {
            return Err(self.broken("a terminal that nobody asked for"));
        }
        self.arrived();
        self.stage = Stage::Started;
        if started.terminal && self.wants_terminal {
            self.take_terminal()?;
        }
        self.input.open(started.stdin_window).map_err(stdin_error)
    }

    /// The program has a terminal, so from now on every key is its own.
    fn take_terminal(&mut self) -> Result<(), Error> {
        if self.terminal.is_none() {
            self.terminal = Terminal::take().map_err(terminal_error)?;
        }
        self.window = self.terminal.is_some().then(Terminal::size);
        Ok(())
    }

    fn accepted(&mut self, accepted: Accepted) -> Result<(), Error> {
        let Accepted { job_id, missing_blobs: needs, stdin_offset, stdout_offset, stderr_offset, signals } =
            accepted;
        let offsets = [stdout_offset, stderr_offset];
        if job_id != self.job {
            return Err(self.broken("another job than the one that was asked for"));
        }
        if !self.is_accepted {
            // Of a job that this hop asks for, nobody has acknowledged anything; of another one, no stream is longer.
            let most = if self.first.is_some() { 0 } else { i64::MAX as u64 };
            if offsets.iter().chain([&stdin_offset]).any(|offset| *offset > most) {
                return Err(self.broken("a stream that begins where it cannot"));
            }
            self.outputs.start_at(offsets);
        } else if self.outputs.received() != offsets {
            return Err(self.broken("output does not continue where it ended"));
        } else {
            self.outputs.tell_again();
            self.files.tell_again();
        }
        self.input.continue_at(stdin_offset).map_err(|what| self.broken(what))?;
        self.signals.continue_at(signals).map_err(|what| self.broken(what))?;
        self.is_accepted = true;
        self.comeback = None;
        self.told_to_start = false;
        if needs.is_empty() {
            self.is_sent();
            return Ok(());
        }
        let Some((spec, uploads)) = &mut self.first else {
            // The hop that has the program may come back to it.
            self.goes_with_hop = false;
            let router = self.link.router().to_owned();
            return Err(Error::Incomplete { job: self.job.clone(), router });
        };
        if !needs.iter().all(|need| is_offered(spec, need)) || !uploads.begin(&needs) {
            return Err(self.broken("a blob that nobody offered is needed"));
        }
        self.stage = Stage::Packing;
        self.is_whole = false;
        self.progress.show("compressing");
        Ok(())
    }

    /// A blob is packed, or a further piece of it sent.
    fn send_on(&mut self) {
        let Some((_, uploads)) = &mut self.first else { return };
        match uploads.next() {
            None => self.is_sent(),
            Some(next) if !next.is_packed() => self.stage = Stage::Packing,
            Some(next) => {
                self.stage = Stage::Sending;
                let (sent, total) = next.progress();
                self.progress.sending(sent, total);
            }
        }
    }

    /// The agent has the program, or will.
    fn is_sent(&mut self) {
        self.is_whole = true;
        self.stage = Stage::Sent;
        self.progress.clear();
    }

    /// The agent has the program, for it speaks of what came of it.
    fn arrived(&mut self) {
        let Some((_, uploads)) = &mut self.first else { return };
        uploads.arrived();
        if let Some(since) = self.verbose_since.take() {
            let (sent, after) = (uploads.describe(), since.elapsed().as_secs_f64());
            self.progress.aside(|| {
                sent.iter().for_each(|sent| say!("hop: {sent}"));
                say!("hop: started after {after:.2} s");
            });
        }
    }

    /// Whether there is something to send.
    fn has_message(&self) -> bool {
        match self.stage {
            Stage::Asked | Stage::Packing => false,
            Stage::Sending => true,
            Stage::Sent => {
                self.signals.has_next()
                    || self.outputs.ack_is_due()
                    || self.files.ack_is_due()
                    || self.start_is_due()
            }
            Stage::Started => {
                self.signals.has_next()
                    || self.outputs.ack_is_due()
                    || self.files.ack_is_due()
                    || self.window.is_some()
                    || self.input.has_next()
            }
        }
    }

    /// Whether the program waits for its turn, which has come.
    fn start_is_due(&self) -> bool {
        !self.told_to_start && self.turn.as_ref().is_some_and(|turn| turn.has_come())
    }

    /// What is to be sent next.
    fn next_message(&mut self) -> Option<run_request::Message> {
        if self.stage == Stage::Sending {
            let chunk = self.first.as_mut().and_then(|(_, uploads)| uploads.next()?.next_chunk());
            self.send_on();
            return chunk.map(run_request::Message::Blob);
        }
        if let Some(signal) = self.signals.next_signal() {
            return Some(run_request::Message::Signal(signal));
        }
        if self.start_is_due() {
            self.told_to_start = true;
            return Some(run_request::Message::Start(Start {}));
        }
        if let Some(ack) = self.outputs.next_ack() {
            return Some(run_request::Message::OutputAck(ack));
        }
        if let Some(ack) = self.files.next_ack() {
            return Some(run_request::Message::FileAck(ack));
        }
        if self.stage != Stage::Started {
            return None;
        }
        let window = self.window.take().map(run_request::Message::WindowSize);
        window.or_else(|| self.input.next_message().map(run_request::Message::Stdin))
    }

    /// Takes a signal that `hop` got while it has a connection.
    ///
    /// # Errors
    /// It ends `hop`.
    fn interrupted(&mut self, name: &'static str) -> Result<(), Error> {
        // A program that has left its files has ended, and no signal is for it any more.
        if self.may_run() && !self.files.have_begun() && self.signals.take(name, true) {
            return Ok(());
        }
        Err(Error::Interrupted { signal: name })
    }

    /// False while there is no program that a signal could be for.
    fn may_run(&self) -> bool {
        self.is_accepted && self.is_whole && !self.leaves
    }

    /// Has a new connection after a break whose reason is `broke`.
    async fn come_back(&mut self, broke: Error) -> Result<(), Error> {
        let mut comeback = match self.comeback.take() {
            Some(mut comeback) => {
                comeback.broke_again(broke);
                comeback
            }
            None => {
                let (router, within) = (self.link.router(), humantime::format_duration(self.linger));
                let is_raw = self.terminal.is_some();
                self.progress.aside(|| {
                    if is_raw {
                        // To the first column, which a raw terminal does not go to by itself. If nobody reads, nobody misses it.
                        let _ = std::io::stderr().write_all(b"\r\n");
                    }
                    say!("hop: the connection to {router} broke; coming back to the job for up to {within}");
                });
                Comeback::new(broke, self.linger)
            }
        };
        if let Some(terminal) = &self.terminal {
            terminal.suspend().map_err(terminal_error)?;
        }
        let may_run = self.may_run();
        {
            let restored = self.link.restore(&mut comeback);
            tokio::pin!(restored);
            loop {
                tokio::select! {
                    restored = &mut restored => break restored?,
                    name = self.interrupts.next() => {
                        if !may_run || !self.signals.take(name, false) {
                            return Err(Error::Interrupted { signal: name });
                        }
                    }
                    changed = self.outputs.changed() => changed?,
                }
            }
        }
        if let Some(terminal) = &self.terminal {
            terminal.resume().map_err(terminal_error)?;
        }
        self.comeback = Some(comeback);
        self.asks = Ask::Attach;
        Ok(())
    }

    /// Writes what is left, and takes leave of the agent.
    async fn finish(self, end: Result<End, Error>, call: Option<Call>) -> Result<Outcome, Error> {
        let Self {
            link,
            job,
            goes_with_hop,
            is_accepted,
            first,
            signals,
            mut input,
            outputs,
            files,
            interrupts,
            ..
        } = self;
        let consumed = match &end {
            Ok(End::Outcome(outcome)) => outcome.stdin_bytes,
            _ => None,
        };
        input.give_back(consumed).await;
        // Whoever wanted to attach and was not let in has nothing to give up.
        let is_own = first.is_some();
        let is_ours = is_accepted || is_own;
        let mut call = call;
        if let Some(call) = call.as_mut().filter(|_| end.is_err() && goes_with_hop && is_ours) {
            call.discard().await;
        }
        let received = outputs.received();
        // What has arrived is written, also when nothing more will.
        let written = tokio::select! {
            written = outputs.finish() => written,
            // Whoever reads our output does not, and the user has had enough.
            signal = interrupts.next() => Err(Error::Interrupted { signal }),
            // Or had: the signal went to a program that had ended already.
            signal = asked_to_end(signals.last()) => Err(Error::Interrupted { signal }),
        };
        match (call, &end) {
            (None, _) => {}
            (Some(call), Ok(End::Left)) => call.end().await,
            (Some(mut call), end) => {
                // Of an output that could not be written, another `hop` may make more.
                if end.is_ok() && (written.is_ok() || goes_with_hop) {
                    call.discard().await;
                }
                call.end().await;
            }
        }
        let router = link.router().to_owned();
        link.close().await;
        written?;
        let outcome = match end? {
            End::Outcome(outcome) => outcome,
            End::Left => return Ok(Outcome::detached(job)),
        };
        if received != [outcome.stdout_bytes, outcome.stderr_bytes] {
            return Err(Error::Protocol { router, what: "output is missing" });
        }
        let Some(outcome) = job::read_outcome(job, outcome) else {
            return Err(Error::Protocol { router, what: "an outcome that says nothing" });
        };
        if outcome.files_lost.is_some() && is_own && !files.are_wanted() {
            return Err(Error::Protocol { router, what: "output files are lost that nobody asked for" });
        }
        let files = match outcome.files_lost {
            None => files.finish().map_err(|what| Error::Protocol { router, what })?,
            Some(_) => files.give_up(),
        };
        Ok(Outcome { files, ..outcome })
    }

    /// What `data` is when it is unpacked, if it is packed.
    fn unpacked(&self, data: Bytes, uncompressed_size: u32) -> Result<Bytes, Error> {
        if uncompressed_size != 0 && !self.link.can_pack() {
            return Err(self.broken("packed output that nobody asked for"));
        }
        packing::unpack(data, uncompressed_size).map_err(|what| self.broken(what))
    }

    fn broken(&self, what: &'static str) -> Error {
        Error::Protocol { router: self.link.router().to_owned(), what }
    }
}

/// Our two outputs, of each of which so many bytes may be on their way.
fn outputs(window: u32) -> Outputs {
    Outputs::open(window, stdio::stdout(), stdio::stderr())
}

/// True for a blob of the job, to be sent as it is or against a base that was offered for it. What else was sent from here,
/// to other routers, is nothing that this one may ask for.
fn is_offered(spec: &JobSpec, need: &MissingBlob) -> bool {
    let program = spec.program.iter().map(|blob| (blob, &spec.bases));
    let archives = spec.inputs.iter().flat_map(|tree| tree.archive.iter().map(|blob| (blob, &tree.bases)));
    program.chain(archives).any(|(blob, bases)| {
        blob.sha256 == need.sha256 && (need.base.is_empty() || bases.contains(&need.base))
    })
}

async fn packed(first: &mut Option<(JobSpec, Uploads<'_>)>) {
    match first.as_mut().and_then(|(_, uploads)| uploads.next()) {
        Some(upload) => upload.packed().await,
        None => std::future::pending().await,
    }
}

async fn come(turn: &mut Option<&mut Turn>) -> Result<(), Error> {
    match turn {
        Some(turn) if !turn.has_come() => turn.come().await,
        _ => std::future::pending().await,
    }
}

async fn resized(terminal: &mut Option<Terminal>) {
    match terminal {
        Some(terminal) => terminal.resized().await,
        None => std::future::pending().await,
    }
}

fn stdin_error(error: std::io::Error) -> Error {
    Error::io("read", "standard input".as_ref())(error)
}

fn terminal_error(error: std::io::Error) -> Error {
    Error::io("use", "the terminal".as_ref())(error)
}

/// Waits as long as the rest of the output may take after `signal`; for ever, if there was none.
async fn asked_to_end(signal: Option<&'static str>) -> &'static str {
    match signal {
        Some(signal) => {
            tokio::time::sleep(OUTPUT_PATIENCE).await;
            signal
        }
        None => std::future::pending().await,
    }
}
