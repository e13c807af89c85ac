//! One job on a router, from the controller's side: upload the program, pump its three streams, learn its outcome, and reconnect
//! when the connection breaks.
//!
//! **Invariants:** hop believes an outcome only when it has written every byte of output that the agent counted; a job without an
//! outcome is lost, never finished; the agent learns whether this `hop` exits for good; the agent gets nothing of this machine that
//! was not asked for: no terminal, no file, no memory beyond the windows.

pub mod artifacts;
mod call;
mod error;
mod finish;
mod job;
pub mod outcome;
mod outgoing;
pub mod output;
mod pump;
mod replies;
pub mod run_queue;
pub mod staged_file;
pub mod stdin;
mod upload;

use std::time::{Duration, Instant};

use hop_proto::limits::{MAX_KEPT_OUTPUT_BYTES, MAX_SPEC_BYTES, OUTPUT_WINDOW_BYTES};
use hop_proto::v1::{self, JobSpec, RunRequest, WindowSize, run_request};
use prost::Message as _;

pub use self::error::Error;
pub use self::job::{Job, read_outcome};

use self::artifacts::{CorePlace, OutputFiles, Request};
use self::outcome::Outcome;
use self::output::Outputs;
use self::run_queue::RunSlot;
use self::stdin::Input;
use self::upload::{Upload, Uploads};
use crate::client;
use crate::client::reconnect::{Backoff, ReconnectingClient};
use crate::console::progress::Progress;
use crate::console::signals::{Interrupts, Signals};
use crate::console::stdio;
use crate::console::terminal::Terminal;
use crate::program::Program;
use crate::transfer::blob_cache::BlobCache;
use crate::transfer::encode::Decoders;

/// Runs `program` and carries its streams from and to ours; or, if the job is detached, leaves it when it runs. What is to
/// take its turn is sent at once, and started when that has come.
///
/// # Errors
/// Hop failed; how the program ended is then not known.
pub async fn run(
    client: ReconnectingClient,
    program: &Program,
    job: &Job,
    sent: &BlobCache,
    slot: Option<&mut RunSlot>,
    interrupts: &mut Interrupts,
    progress: &Progress,
) -> Result<Outcome, Error> {
    let id = job::new_id()?;
    let decoders = Decoders::of(client.capabilities());
    let spec = job.specification(id.clone(), program, sent, decoders, slot.is_some(), client.can_pack());
    let blobs = std::iter::once(&program.blob).chain(job.inputs.iter().map(|tree| &tree.archive));
    let uploads = blobs.map(|blob| Upload::new(blob, sent, client.router(), decoders)).collect();
    let bytes = RunRequest { message: Some(run_request::Message::Spec(spec.clone())) }.encoded_len();
    if bytes > MAX_SPEC_BYTES {
        return Err(Error::TooManyArguments { bytes });
    }
    let input = Input::new(job.input);
    let input = if job.terminal.is_some() { input.with_escapes() } else { input };
    let core = job.core.clone().map(|core| CorePlace { core, program: program.whole.clone() });
    let session = Session {
        // An agent that lacks the capability ends the job with its connection.
        reconnect_timeout: if client.can_attach() { job.reconnect_timeout } else { Duration::ZERO },
        discard_on_exit: client.can_attach(),
        detaches: job.detached,
        wants_terminal: job.terminal.is_some(),
        outputs: outputs(OUTPUT_WINDOW_BYTES),
        first: Some((spec, Uploads::new(uploads))),
        slot,
        verbose_since: job.verbose.then(Instant::now),
        next_call: CallKind::Run,
        files: OutputFiles::new(job.outputs.clone(), core, true),
        ..Session::new(client, id, input, interrupts, progress)
    };
    session.run_to_end().await
}

/// A job that there is already.
#[derive(Debug)]
pub struct AttachRequest {
    /// Its id.
    pub job: String,
    /// It was started with `--detach`: its input is empty, and it is never ended because a `hop` goes.
    pub detached: bool,
    /// The data that this `hop` sends to its standard input.
    pub input: stdin::Mode,
    /// Where its output files go.
    pub outputs: Vec<Request>,
    /// If it has a terminal, that is to be ours.
    pub tty: bool,
    /// Signals that this `hop` gets are not for the program: they end `hop`, and the job runs on.
    pub keeps_signals: bool,
    /// The agent keeps a log of its output, of which it may drop what nobody reads.
    pub has_log: bool,
}

/// Attaches to a job, as if this `hop` had run it; tries for `linger` to come back when the connection breaks.
///
/// # Errors
/// Hop failed; the program's outcome is then unknown.
pub async fn attach(
    client: ReconnectingClient,
    request: AttachRequest,
    reconnect_timeout: Duration,
    interrupts: &mut Interrupts,
    progress: &Progress,
) -> Result<Outcome, Error> {
    let input = Input::new(request.input);
    // As ssh, which has escapes where somebody types.
    let input = if Terminal::is_there() { input.with_escapes() } else { input };
    let session = Session {
        reconnect_timeout,
        discard_on_exit: !request.detached && !request.keeps_signals,
        keeps_end: request.detached,
        keeps_signals: request.keeps_signals,
        has_log: request.has_log,
        wants_terminal: request.tty,
        files: OutputFiles::new(request.outputs, None, false),
        ..Session::new(client, request.job, input, interrupts, progress)
    };
    session.run_to_end().await
}

/// How a call begins.
#[derive(Clone, Copy)]
enum CallKind {
    Run,
    Attach,
}

/// How far a call is, which decides what may be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The agent has not accepted: nothing.
    Asked,
    /// It lacks a blob, which is being packed: nothing.
    Encoding,
    /// It lacks the rest of a blob: that, and nothing else.
    Sending,
    /// It has everything: signals and acknowledgements, and that the program may start.
    Sent,
    /// The program runs: standard input as well.
    Started,
}

/// How a job ended, as far as this `hop` knows.
#[allow(clippy::large_enum_variant, reason = "there is one a job, and nearly always the large one")]
enum SessionEnd {
    Outcome(v1::Outcome),
    /// This `hop` leaves the job; it is to be detached if it `runs_on`.
    Left {
        runs_on: bool,
    },
}

struct Session<'a> {
    client: ReconnectingClient,
    job: String,
    /// The agent has said that it has the job.
    is_accepted: bool,
    /// It has the whole program, as far as is known here.
    upload_complete: bool,
    /// When this `hop` gives up, no other controller will attach to the job.
    discard_on_exit: bool,
    /// The job is left alone when the program runs.
    detaches: bool,
    /// The agent keeps the outcome of the job for the next one that asks.
    keeps_end: bool,
    /// Signals end this `hop`, and are not for the program.
    keeps_signals: bool,
    /// The agent may drop output that this `hop` does not have yet.
    has_log: bool,
    /// Our terminal is for the program, if it has one.
    wants_terminal: bool,
    reconnect_timeout: Duration,
    /// The job that this `hop` started; `None` if it only attaches.
    first: Option<(JobSpec, Uploads<'a>)>,
    /// The slot for which the program waits, if it waits.
    slot: Option<&'a mut RunSlot>,
    /// `Start` was sent on this call.
    start_sent: bool,
    /// When it began, if `-v` reports the start.
    verbose_since: Option<Instant>,
    /// How the next call begins.
    next_call: CallKind,
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
    backoff: Option<Backoff>,
    interrupts: &'a mut Interrupts,
    progress: &'a Progress,
}

impl<'a> Session<'a> {
    /// To attach to a job, and not to come back to it.
    fn new(
        client: ReconnectingClient,
        job: String,
        input: Input,
        interrupts: &'a mut Interrupts,
        progress: &'a Progress,
    ) -> Self {
        let signals = Signals::new(client.counts_signals());
        Self {
            client,
            job,
            is_accepted: false,
            upload_complete: false,
            discard_on_exit: false,
            detaches: false,
            keeps_end: false,
            keeps_signals: false,
            has_log: false,
            wants_terminal: false,
            reconnect_timeout: Duration::ZERO,
            first: None,
            slot: None,
            start_sent: false,
            verbose_since: None,
            next_call: CallKind::Attach,
            stage: Stage::Asked,
            signals,
            input,
            // All that an agent keeps of the output of any job.
            outputs: outputs(MAX_KEPT_OUTPUT_BYTES),
            files: OutputFiles::new(Vec::new(), None, false),
            terminal: None,
            window: None,
            backoff: None,
            interrupts,
            progress,
        }
    }

    fn broken(&self, what: &'static str) -> Error {
        client::Error::Protocol { router: self.client.router().to_owned(), what }.into()
    }
}

/// Our two outputs, of each of which so many bytes may be on their way.
fn outputs(window: u32) -> Outputs {
    Outputs::open(window, stdio::stdout(), stdio::stderr())
}

fn stdin_error(error: std::io::Error) -> Error {
    Error::io("read", "standard input".as_ref())(error)
}

fn terminal_error(error: std::io::Error) -> Error {
    Error::io("use", "the terminal".as_ref())(error)
}
