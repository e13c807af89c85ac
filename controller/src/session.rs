//! One job on a router, from the controller's side: send the program, carry its three streams, learn how it ended.
//!
//! What must stay true: every byte of output that the agent counted was written here before the outcome is believed, and
//! a stream that ends without an outcome is a lost job, never a finished one.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use hop_proto::limits::{BLOB_CHUNK_BYTES, MAX_MESSAGE_BYTES, OUTPUT_WINDOW_BYTES};
use hop_proto::v1::{
    Accepted, Blob, BlobChunk, Cause, EnvVar, JobSpec, Limits, RunReply, RunRequest, Shortage, Signal,
    Stream, outcome, run_reply, run_request,
};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::connection::Connection;
use crate::error::Error;
use crate::interrupt::{self, Interrupts};
use crate::outcome::{Ending, Outcome, Usage};
use crate::output::{self, Piece};
use crate::program::Program;
use crate::progress::Progress;
use crate::stdin::{self, Credit};

/// How long the output's reader may take for what is left, at most two windows, when the user wanted an end.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(5);

/// Messages on their way to the agent. Each is at most a blob chunk, so this bounds what is read ahead of the link.
const REQUESTS: usize = 8;

/// What to run, beside the program itself.
#[derive(Debug, Default)]
pub struct Job {
    /// argv[1] and on.
    pub args: Vec<OsString>,
    /// Added to the environment that the router gives.
    pub env: Vec<(OsString, OsString)>,
    /// When to end it.
    pub timeout: Option<Duration>,
    /// When to end it after its last output.
    pub idle_timeout: Option<Duration>,
    /// Time between TERM and KILL when the agent ends it.
    pub grace: Duration,
}

/// Runs `program` and carries its streams from and to ours.
///
/// # Errors
/// Hop failed; how the program ended is then not known.
pub async fn run(
    connection: &mut Connection,
    program: &Program,
    job: &Job,
    interrupts: &mut Interrupts,
    progress: &Progress,
) -> Result<Outcome, Error> {
    let (requests, outgoing) = mpsc::channel(REQUESTS);
    let spec = request(run_request::Message::Spec(specification(program, job)));
    let bytes = spec.encoded_len();
    if bytes > MAX_MESSAGE_BYTES {
        return Err(Error::TooManyArguments { bytes });
    }
    // The channel is empty, so this cannot wait.
    let _ = requests.send(spec).await;
    let replies = tokio::select! {
        replies = connection.client().run(ReceiverStream::new(outgoing)) => replies,
        signal = interrupts.next() => return Err(Error::Interrupted { signal }),
    };
    let replies = match replies {
        Ok(replies) => replies.into_inner(),
        Err(status) => return Err(connection.explain(status).await),
    };
    let session = Session { router: connection.router().to_owned(), last_signal: None, replies, requests };
    match session.see_through(program, interrupts, progress).await {
        Ok(outcome) => Ok(outcome),
        Err(Broken::Call(status)) => Err(connection.explain(*status).await),
        Err(Broken::Known(error)) => Err(error),
    }
}

fn request(message: run_request::Message) -> RunRequest {
    RunRequest { message: Some(message) }
}

fn specification(program: &Program, job: &Job) -> JobSpec {
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    JobSpec {
        name: program.name.clone(),
        program: Some(Blob { sha256: program.digest.to_vec(), size: program.content.len() as u64 }),
        args: job.args.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
        env: job
            .env
            .iter()
            .map(|(name, value)| EnvVar { name: name.as_bytes().to_vec(), value: value.as_bytes().to_vec() })
            .collect(),
        limits: Some(Limits {
            // 0 means no limit, so a limit below a millisecond is one millisecond.
            timeout_ms: job.timeout.map_or(0, |timeout| milliseconds(timeout).max(1)),
            idle_timeout_ms: job.idle_timeout.map_or(0, |timeout| milliseconds(timeout).max(1)),
            grace_ms: milliseconds(job.grace),
        }),
        output_window: OUTPUT_WINDOW_BYTES,
    }
}

/// Why a session ended without an outcome: known here, or to be explained by the connection.
enum Broken {
    Call(Box<Status>),
    Known(Error),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Known(error)
    }
}

struct Session {
    router: String,
    /// The last signal that was passed on.
    last_signal: Option<&'static str>,
    replies: Streaming<RunReply>,
    requests: mpsc::Sender<RunRequest>,
}

impl Session {
    async fn see_through(
        mut self,
        program: &Program,
        interrupts: &mut Interrupts,
        progress: &Progress,
    ) -> Result<Outcome, Broken> {
        let job = tokio::select! {
            accepted = self.prepare(program, progress) => accepted?,
            // Nothing has started; the agent throws away what it has when the stream ends.
            signal = interrupts.next() => return Err(Error::Interrupted { signal }.into()),
        };
        progress.clear();
        let mut streams = Streams::open(self.requests.clone(), self.router.clone());
        let told = self.until_outcome(&mut streams, interrupts).await;
        // What has arrived is written, also when nothing more will.
        let (stdout, stderr) = tokio::select! {
            written = streams.finish() => written?,
            // Whoever reads our output does not, and the user has had enough.
            signal = interrupts.next() => return Err(Error::Interrupted { signal }.into()),
            // Or had: the signal went to a program that had ended already.
            signal = asked_to_end(self.last_signal) => return Err(Error::Interrupted { signal }.into()),
        };
        let outcome = told?;
        if (stdout, stderr) != (outcome.stdout_bytes, outcome.stderr_bytes) {
            return Err(self.broken("output is missing").into());
        }
        read_outcome(job, outcome).ok_or_else(|| self.broken("an outcome that says nothing").into())
    }

    /// Carries the streams and the signals while the program runs.
    async fn until_outcome(
        &mut self,
        streams: &mut Streams,
        interrupts: &mut Interrupts,
    ) -> Result<hop_proto::v1::Outcome, Broken> {
        let mut interruptions = 0;
        loop {
            tokio::select! {
                // Output first: it came before the signal.
                biased;
                reply = self.next() => match reply? {
                    run_reply::Message::Output(output) => streams.output(output)?,
                    run_reply::Message::Started(started) => streams.start_stdin(started.stdin_window),
                    run_reply::Message::StdinAck(ack) => streams.stdin_acknowledged(ack.offset, ack.closed),
                    run_reply::Message::Outcome(outcome) => return Ok(outcome),
                    run_reply::Message::Accepted(_) => return Err(self.broken("a second acceptance").into()),
                },
                name = interrupts.next() => {
                    if interruptions >= interrupt::PATIENCE {
                        // Not even KILL is answered: the router is not there any more.
                        return Err(Error::Interrupted { signal: name }.into());
                    }
                    self.last_signal = Some(name);
                    interruptions += u32::from(name == "INT");
                    let name = if interruptions >= interrupt::PATIENCE { "KILL" } else { name };
                    let signal = request(run_request::Message::Signal(Signal { name: name.to_owned() }));
                    // Never waits: a link that is stuck must not keep the next signal from being heard. What does not
                    // fit now is as lost as a signal that comes twice.
                    let _ = self.requests.try_send(signal);
                }
                failed = &mut streams.writer, if !streams.writer_is_done => {
                    streams.writer_is_done = true;
                    check_writer(failed)?;
                }
            }
        }
    }

    /// Up to the moment when the agent has the whole program. Gives the job's name.
    async fn prepare(&mut self, program: &Program, progress: &Progress) -> Result<String, Broken> {
        let run_reply::Message::Accepted(accepted) = self.next().await? else {
            return Err(self.broken("a job that starts before it is accepted").into());
        };
        let Accepted { job_id, needs } = accepted;
        for need in needs {
            if need.sha256 != program.digest {
                return Err(self.broken("a blob that nobody offered is needed").into());
            }
            self.upload(program, need.offset, progress).await?;
        }
        Ok(job_id)
    }

    async fn upload(&mut self, program: &Program, from: u64, progress: &Progress) -> Result<(), Broken> {
        let total = program.content.len();
        let mut offset = usize::try_from(from).unwrap_or(total);
        while offset < total {
            let end = total.min(offset + BLOB_CHUNK_BYTES);
            let chunk = BlobChunk { offset: offset as u64, data: program.content.slice(offset..end) };
            tokio::select! {
                sent = self.requests.send(request(run_request::Message::Blob(chunk))) => {
                    if sent.is_err() {
                        // The call has ended; its status says why.
                        self.next().await?;
                        return Err(self.broken("an answer before the program was complete").into());
                    }
                }
                // The agent speaks during an upload only to end it.
                reply = next(&mut self.replies, &self.router) => {
                    reply?;
                    return Err(self.broken("an answer before the program was complete").into());
                }
            }
            offset = end;
            progress.sending(offset as u64, total as u64);
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<run_reply::Message, Broken> {
        next(&mut self.replies, &self.router).await
    }

    fn broken(&self, what: &'static str) -> Error {
        Error::Protocol { router: self.router.clone(), what }
    }
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

async fn next(replies: &mut Streaming<RunReply>, router: &str) -> Result<run_reply::Message, Broken> {
    match replies.message().await {
        Ok(Some(RunReply { message: Some(message) })) => Ok(message),
        Ok(Some(RunReply { message: None })) => {
            Err(Error::Protocol { router: router.to_owned(), what: "a message that this hop does not know" }
                .into())
        }
        Ok(None) => Err(Error::Lost { router: router.to_owned(), source: None }.into()),
        Err(status) => Err(Broken::Call(Box::new(status))),
    }
}

type WriterResult = Result<Result<(), (Stream, io::Error)>, tokio::task::JoinError>;

fn check_writer(result: WriterResult) -> Result<(), Error> {
    match result {
        Ok(Err((stream, source))) => {
            let path = if stream == Stream::Stderr { "standard error" } else { "standard output" };
            Err(Error::Io { action: "write", path: path.into(), source })
        }
        Ok(Ok(())) | Err(_) => Ok(()),
    }
}

/// The program's three streams, joined to ours.
struct Streams {
    router: String,
    requests: mpsc::Sender<RunRequest>,
    pieces: mpsc::UnboundedSender<Piece>,
    writer: JoinHandle<Result<(), (Stream, io::Error)>>,
    writer_is_done: bool,
    received: [u64; 2],
    stdin_window: u64,
    credit: watch::Sender<Credit>,
}

impl Streams {
    fn open(requests: mpsc::Sender<RunRequest>, router: String) -> Self {
        let (pieces, queue) = mpsc::unbounded_channel();
        let writer = output::write(queue, requests.clone(), tokio::io::stdout(), tokio::io::stderr());
        Self {
            router,
            requests,
            // Not bounded here but by the window: what is not acknowledged is not followed by more.
            pieces,
            writer: tokio::spawn(writer),
            writer_is_done: false,
            received: [0; 2],
            stdin_window: 0,
            credit: watch::Sender::default(),
        }
    }

    fn output(&mut self, output: hop_proto::v1::Output) -> Result<(), Error> {
        let stream = output.stream();
        let received = match stream {
            Stream::Stdout => &mut self.received[0],
            Stream::Stderr => &mut self.received[1],
            Stream::Unspecified => return Err(self.broken("an output that there is not")),
        };
        if output.offset != *received {
            return Err(self.broken("output does not begin where it ended"));
        }
        *received += output.data.len() as u64;
        // Fails when the writer has failed, which is reported by the writer.
        let _ = self.pieces.send(Piece { stream, data: output.data });
        Ok(())
    }

    fn start_stdin(&mut self, window: u32) {
        self.stdin_window = window.into();
        self.credit.send_modify(|credit| credit.until = window.into());
        let (credit, requests) = (self.credit.subscribe(), self.requests.clone());
        if stdin::is_ours() {
            tokio::spawn(stdin::forward(tokio::io::stdin(), credit, requests));
        } else {
            tokio::spawn(stdin::forward(tokio::io::empty(), credit, requests));
        }
    }

    fn stdin_acknowledged(&self, offset: u64, closed: bool) {
        self.credit.send_modify(|credit| {
            credit.until = credit.until.max(offset + self.stdin_window);
            credit.closed |= closed;
        });
    }

    /// Waits until everything is written; gives the bytes of both outputs.
    async fn finish(self) -> Result<(u64, u64), Error> {
        drop(self.pieces);
        if !self.writer_is_done {
            check_writer(self.writer.await)?;
        }
        Ok((self.received[0], self.received[1]))
    }

    fn broken(&self, what: &'static str) -> Error {
        Error::Protocol { router: self.router.clone(), what }
    }
}

fn read_outcome(job: String, outcome: hop_proto::v1::Outcome) -> Option<Outcome> {
    let cause = outcome.cause();
    let ending = match (outcome.ending?, cause) {
        (outcome::Ending::NotExecuted(refused), _) => Ending::NotExecuted { why: refused.reason },
        (_, Cause::Timeout) => Ending::TimedOut,
        (_, Cause::IdleTimeout) => Ending::Idle,
        (_, Cause::Memory) => {
            let Shortage { available, limit, held } = outcome.shortage.unwrap_or_default();
            Ending::OutOfMemory { available, limit, held }
        }
        (_, Cause::AgentStopped) => Ending::AgentStopped,
        (outcome::Ending::ExitCode(code), _) => Ending::Exited(u8::try_from(code).ok()?),
        (outcome::Ending::Signaled(signal), _) => {
            Ending::Signaled { name: signal.name, core_dumped: signal.core_dumped }
        }
    };
    let usage = outcome.usage.map(|usage| Usage {
        wall_ms: usage.wall_ms,
        user_ms: usage.user_ms,
        system_ms: usage.system_ms,
        max_rss_bytes: usage.max_rss_bytes,
        stdout_bytes: outcome.stdout_bytes,
        stderr_bytes: outcome.stderr_bytes,
    });
    let (orphans, output_abandoned) = (outcome.orphans, outcome.output_abandoned);
    Some(Outcome { job, ending, usage, orphans, output_abandoned })
}
