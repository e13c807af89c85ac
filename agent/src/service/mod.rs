//! Translates between the protocol and the jobs: decodes requests, calls the jobs and their sessions, and encodes what those say.
//!
//! **Invariants:** nothing here touches a file or a process, and nothing below knows a message. A message that breaks the rules of
//! `agent.proto` is refused here or by the module that counts.

pub mod bounds;
pub mod codec;
pub mod error;
pub mod receive_budget;
pub mod request_body;
pub mod status;

/// The server half of the service, generated from `hop/v1/agent.proto` by `cargo xtask codegen`.
#[allow(missing_docs, clippy::all)]
mod generated {
    include!("generated/hop.v1.rs");
}

use std::convert::Infallible;
use std::ffi::OsString;
use std::future::ready;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hop_proto::identity::Fingerprint;
use hop_proto::limits::{
    MAX_BASES, MAX_BLOB_CHUNK_BYTES, MAX_GRACE_MS, MAX_INPUT_TREES, MAX_JOB_ID_BYTES, MAX_LINGER_MS,
    MAX_MARK_BYTES, MAX_MESSAGE_BYTES, MAX_NAME_BYTES, MAX_OUTPUT_REQUESTS, MAX_OUTPUT_WINDOW_BYTES,
    MAX_SPEC_BYTES, MIN_MARK_BYTES, STDIN_WINDOW_BYTES,
};
use hop_proto::v1::{self, run_request, run_response};
use hop_proto::{output_path, program_name, v1::outcome::Ending as WireEnding};
use hyper::body::Incoming;
use tokio_stream::Stream;
use tonic::codegen::{BoxFuture, Service};
use tonic::{Request, Response, Status, Streaming};

use crate::access::authorized_keys::AuthorizedKeys;
use crate::files::inputs::InputTree;
use crate::files::outputs::{Info, Position, Problem};
use crate::job::environment::JOB_DIRECTORY;
use crate::job::error::Error;
use crate::job::job_log::Controller;
use crate::job::oom_guard::{self, Shortage};
use crate::job::outcome::{Cause, Outcome};
use crate::job::registry::{JobRegistry, JobSummary, MAX_JOBS};
use crate::job::session::output_buffer::OutputStream;
use crate::job::session::{self, Attachment, Event, Link, Payload, Stage};
use crate::job::spec::{Spec, signal};
use crate::process::child::Ending;
use crate::process::pty::Size;
use crate::process::user::User;
use crate::service::generated::agent_service_server::{AgentService, AgentServiceServer};
use crate::service::receive_budget::{ConnectionBudget, MessageMeter};
use crate::service::request_body::RequestBody;
use crate::service::status::stream_error;
use crate::store::blob::Digest;
use crate::store::decoder::Encoding;
use crate::store::receiver::{BlobDescriptor, Chunk, Need};
use crate::system::host::{Host, TARGET};
use crate::system::memory::{Memory, RESERVE};
use crate::system::resources::{self, Exhausted, Resource};
use crate::system::runtime;

/// The largest nice value (setpriority(2)).
const MAX_NICE: u8 = 19;
const NOT_NICE: Error = Error::Protocol("a nice value is at most 19");

/// What this agent can do, by the names that `docs/protocol.md` defines.
const CAPABILITIES: [&str; 17] = [
    "run",
    "attach",
    "terminal",
    "user",
    "inputs",
    "outputs",
    "wait_for_start",
    "merge_stderr",
    "checksum",
    "zstd",
    "lz4",
    "delta",
    "relocate",
    "compress_output",
    "inodes",
    "rotate",
    "signals",
];

/// What it can do only where programs run by themselves: the core of a launcher is not that of its program.
const WITHOUT_LAUNCHER: &str = "core";

/// The one call whose first message may have [`MAX_SPEC_BYTES`].
const RUN: &str = "/hop.v1.AgentService/Run";

/// The question whether the controller at the other end of a connection may use it, and if not, why.
pub type Admission = Arc<dyn Fn() -> Result<(), error::Error> + Send + Sync>;

/// All that one connection can call.
#[derive(Clone)]
pub struct Calls {
    server: AgentServiceServer<Agent>,
    admission: Admission,
    budget: Arc<ConnectionBudget>,
}

impl Calls {
    /// The agent's service over `jobs`, for a connection of `client`, whose messages take their memory from `budget`. `admission` is
    /// asked at every call: a key that was taken off the list since its controller connected starts nothing more. `place` is where
    /// the agent listens, for people.
    pub fn new(
        jobs: Arc<JobRegistry>,
        keys: Arc<AuthorizedKeys>,
        place: Arc<str>,
        client: Controller,
        admission: Admission,
        budget: Arc<ConnectionBudget>,
    ) -> Self {
        let service =
            Agent { jobs, keys, place, controller: client.key, client, admission: admission.clone() };
        let server = AgentServiceServer::new(service).max_decoding_message_size(MAX_SPEC_BYTES);
        Self { server, admission, budget }
    }
}

impl Service<http::Request<Incoming>> for Calls {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Incoming>) -> Self::Future {
        if let Err(error) = (self.admission)() {
            return Box::pin(ready(Ok(Status::from(error).into_http())));
        }
        let first = if request.uri().path() == RUN { MAX_SPEC_BYTES } else { MAX_MESSAGE_BYTES };
        let meter = MessageMeter::new(self.budget.clone(), first);
        self.server.call(request.map(|incoming| RequestBody::new(incoming, meter)))
    }
}

/// The service of `agent.proto`, for one connection.
struct Agent {
    jobs: Arc<JobRegistry>,
    keys: Arc<AuthorizedKeys>,
    place: Arc<str>,
    controller: Fingerprint,
    /// The same, for the log.
    client: Controller,
    admission: Admission,
}

#[tonic::async_trait]
impl AgentService for Agent {
    type RunStream = SessionStream;
    type ReadOutputStream = KeptOutput;

    async fn get_info(
        &self,
        _: Request<v1::GetInfoRequest>,
    ) -> Result<Response<v1::GetInfoResponse>, Status> {
        Ok(Response::new(self.describe()?))
    }

    async fn run(
        &self,
        request: Request<Streaming<v1::RunRequest>>,
    ) -> Result<Response<SessionStream>, Status> {
        let mut messages = request.into_inner();
        let attachment = match first(&mut messages).await? {
            Some(run_request::Message::Spec(spec)) => self.start(spec)?,
            Some(run_request::Message::Attach(attach)) => self.attach(attach)?,
            _ => {
                return Err(
                    Error::Protocol("a run begins with a specification, or a job to attach to").into()
                );
            }
        };
        Ok(open_session(attachment, messages))
    }

    async fn list_jobs(
        &self,
        _: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let jobs = self.jobs.list().into_iter().map(|listed| write_listed(listed, self.controller)).collect();
        Ok(Response::new(v1::ListJobsResponse { jobs }))
    }

    async fn read_output(
        &self,
        request: Request<v1::ReadOutputRequest>,
    ) -> Result<Response<KeptOutput>, Status> {
        let link = self.jobs.find(&request.into_inner().job_id, self.controller)?;
        link.has_its_output()?;
        Ok(Response::new(KeptOutput { link, had: [0; 2] }))
    }

    async fn signal_job(
        &self,
        request: Request<v1::SignalJobRequest>,
    ) -> Result<Response<v1::SignalJobResponse>, Status> {
        let v1::SignalJobRequest { job_id, signal: name } = request.into_inner();
        let signal = signal(&name)?;
        self.jobs.find(&job_id, self.controller)?.signal(signal).await;
        Ok(Response::new(v1::SignalJobResponse {}))
    }

    async fn add_next_key(
        &self,
        request: Request<v1::AddNextKeyRequest>,
    ) -> Result<Response<v1::AddNextKeyResponse>, Status> {
        let next = <[u8; 32]>::try_from(&request.into_inner().sha256[..])
            .map_err(|_| Error::Protocol("a fingerprint has 32 bytes"))?;
        let next = Fingerprint::from_bytes(next);
        self.keys.add_successor(self.controller, next).await.map_err(error::Error::from)?;
        tracing::info!(controller = %self.controller, %next, "next key of a controller let in");
        Ok(Response::new(v1::AddNextKeyResponse {}))
    }

    async fn retire_previous_key(
        &self,
        _: Request<v1::RetirePreviousKeyRequest>,
    ) -> Result<Response<v1::RetirePreviousKeyResponse>, Status> {
        let previous = self.keys.retire_predecessor(self.controller).await.map_err(error::Error::from)?;
        // In the same breath: what belongs to a key that is off the list is ended.
        if let Some(previous) = previous {
            self.jobs.transfer(previous, self.controller);
            tracing::info!(controller = %self.controller, %previous, "previous key taken off the list");
        }
        Ok(Response::new(v1::RetirePreviousKeyResponse {}))
    }
}

impl Agent {
    /// Starts a job, and attaches to it.
    fn start(&self, spec: v1::JobSpec) -> Result<Attachment, error::Error> {
        let accepts_compressed = spec.accept_compressed_output;
        let spec = read_spec(spec)?;
        // It may have taken its time to say what to run.
        (self.admission)()?;
        // The controller has not heard that it was accepted, and asks once more.
        if let Some(Ok(link)) = spec.id.as_ref().map(|id| self.jobs.find(id, self.controller)) {
            return Ok(link.connect([None, None], None, accepts_compressed)?);
        }
        let job = self.jobs.admit(spec, self.controller)?;
        let attachment = job.link().connect([None, None], None, accepts_compressed)?;
        runtime::spawn(job.run(self.client.clone()));
        Ok(attachment)
    }

    /// Attaches to a job that there is.
    fn attach(&self, attach: v1::Attach) -> Result<Attachment, Error> {
        let link = self.jobs.find(&attach.job_id, self.controller)?;
        let files = attach.files.map(read_position);
        let had = [attach.stdout_offset, attach.stderr_offset];
        let attachment = link.connect(had, files, attach.accept_compressed_output)?;
        tracing::info!(job = attach.job_id, "controller attached");
        Ok(attachment)
    }

    fn describe(&self) -> Result<v1::GetInfoResponse, Error> {
        let machine = Host::read();
        let memory = Memory::read().map_err(Error::io("read", Path::new("/proc/meminfo")))?;
        let store = &self.jobs.store;
        let has_launcher = !self.jobs.launcher.is_empty();
        let capabilities = CAPABILITIES.into_iter().chain((!has_launcher).then_some(WITHOUT_LAUNCHER));
        Ok(v1::GetInfoResponse {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: capabilities.map(str::to_owned).collect(),
            target: Some(v1::Target {
                elf_class: TARGET.class.into(),
                elf_data: TARGET.data.into(),
                elf_machine: TARGET.machine.into(),
            }),
            hostname: machine.hostname,
            firmware: machine.firmware,
            kernel: machine.kernel,
            cpu: machine.cpu,
            uptime_ms: machine.uptime_ms,
            boot_id: machine.boot_id,
            memory: Some(v1::Memory {
                total: memory.total,
                available: memory.for_programs(),
                reserve: RESERVE,
                bound_by_promises: memory.is_bound_by_promises(),
            }),
            store: Some(v1::Store {
                directory: store.directory().display().to_string(),
                free: store.free()?,
                executable: store.is_executable()?,
                reclaimable: store.evictable(),
                inodes: resources::inodes(store.directory())?.map(|level| v1::Inodes {
                    total: level.total,
                    available: level.available,
                    reserve: level.reserve(),
                }),
            }),
            launcher: self.jobs.launcher.iter().map(|word| word.as_bytes().to_vec()).collect(),
            jobs: self.jobs.running(),
            max_jobs: MAX_JOBS,
            containment: match &self.jobs.reaper {
                reaper if reaper.cgroups.is_some() => v1::Containment::Cgroup,
                reaper if reaper.finds_everything() => v1::Containment::Descendants,
                _ => v1::Containment::Group,
            }
            .into(),
            agent_instance_id: self.jobs.instance(),
            listens: self.place.to_string(),
        })
    }
}

/// The first message of a call.
///
/// # Errors
/// It cannot be understood, or its controller is gone.
async fn first(messages: &mut Streaming<v1::RunRequest>) -> Result<Option<run_request::Message>, Error> {
    let first = messages.message().await.map_err(|status| stream_error(&status))?;
    Ok(first.and_then(|first| first.message))
}

/// Takes a controller's messages to its job for as long as they count, and gives what its job says.
fn open_session(attachment: Attachment, mut messages: Streaming<v1::RunRequest>) -> Response<SessionStream> {
    let mut requests = attachment.requests();
    runtime::spawn(async move {
        loop {
            let fault = match messages.message().await {
                Ok(None) => return requests.finish(),
                Ok(Some(message)) => match read_message(message) {
                    Ok(request) => {
                        if requests.handle(request).await {
                            continue;
                        }
                        return;
                    }
                    Err(fault) => fault,
                },
                Err(status) => stream_error(&status),
            };
            return requests.fail(fault).await;
        }
    });
    Response::new(SessionStream(attachment))
}

/// What a job says to its controller, as messages. The job is asked when the connection has room for the answer.
struct SessionStream(Attachment);

impl Stream for SessionStream {
    type Item = Result<v1::RunResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next(context).map(|event| event.map(write_event))
    }
}

/// The output of a job that is kept, piece by piece as the connection takes them: at once it would be both windows in memory
/// once more.
struct KeptOutput {
    link: Arc<Link>,
    /// How much of each output was said.
    had: [u64; 2],
}

impl Stream for KeptOutput {
    type Item = Result<v1::ReadOutputResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { link, had } = &mut *self;
        let piece = link.next_piece(had);
        Poll::Ready(piece.map(|(stream, offset, data)| {
            let output = write_output(stream, offset, Payload { data, uncompressed_size: 0 });
            Ok(v1::ReadOutputResponse { output: Some(output) })
        }))
    }
}

/// What a controller wants run, if that breaks no rule.
///
/// # Errors
/// [`Error::Protocol`] with the rule.
pub fn read_spec(spec: v1::JobSpec) -> Result<Spec, Error> {
    let program = read_announced(spec.program, &spec.bases)?;
    if !program_name::is_valid(&spec.name) {
        return Err(Error::Protocol(
            "the name of the program is not a file name of at most 64 bytes without control characters",
        ));
    }
    if !(1..=MAX_OUTPUT_WINDOW_BYTES).contains(&spec.output_window) {
        return Err(Error::Protocol("the output window is not between 1 byte and 1 MiB"));
    }
    let limits = spec.limits.unwrap_or_default();
    if limits.grace_ms > MAX_GRACE_MS {
        return Err(Error::Protocol("the grace is longer than a minute"));
    }
    let is_id = |id: &str| id.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    if spec.job_id.len() > MAX_JOB_ID_BYTES || !is_id(&spec.job_id) {
        return Err(Error::Protocol("the id of a job is at most 32 digits and lower-case letters"));
    }
    if spec.disconnect_timeout_ms > MAX_LINGER_MS {
        return Err(Error::Protocol("a job lingers for a day at most"));
    }
    if spec.output_files.len() > MAX_OUTPUT_REQUESTS {
        return Err(Error::Protocol("more than 64 paths of output files"));
    }
    if !spec.output_files.iter().all(|path| output_path::is_valid(path)) {
        return Err(Error::Protocol(
            "the path of an output file does not stay below the program's directory",
        ));
    }
    if !spec.working_directory.is_empty() && !output_path::is_valid(&spec.working_directory) {
        return Err(Error::Protocol("the program is to start outside the job's directory"));
    }
    let mark = spec.workdir_placeholder.len();
    if mark > 0 && !(MIN_MARK_BYTES..=MAX_MARK_BYTES).contains(&mark) {
        return Err(Error::Protocol("the mark of the job's directory is not 16 to 64 bytes long"));
    }
    if spec.user.len() > MAX_NAME_BYTES {
        return Err(Error::Protocol("the name of a user is longer than 64 bytes"));
    }
    let args = spec.args.into_iter().map(read_os_string).collect::<Result<_, _>>()?;
    Ok(Spec {
        id: (!spec.job_id.is_empty()).then_some(spec.job_id),
        name: spec.name.into(),
        program,
        inputs: read_inputs(spec.inputs)?,
        working_directory: OsString::from_vec(spec.working_directory).into(),
        args,
        env: spec.env.into_iter().map(read_variable).collect::<Result<_, _>>()?,
        directory_mark: spec.workdir_placeholder,
        hold: spec.wait_for_start,
        merges_outputs: spec.merge_stderr,
        timeout: (limits.timeout_ms > 0).then(|| Duration::from_millis(limits.timeout_ms)),
        idle_timeout: (limits.idle_timeout_ms > 0).then(|| Duration::from_millis(limits.idle_timeout_ms)),
        grace: Duration::from_millis(limits.grace_ms),
        nice: u8::try_from(spec.nice).ok().filter(|nice| *nice <= MAX_NICE).ok_or(NOT_NICE)?,
        user: if spec.user.is_empty() { None } else { Some(User::find(&spec.user)?) },
        terminal: spec.terminal.map(read_size).transpose()?,
        linger: (!spec.detached).then(|| Duration::from_millis(spec.disconnect_timeout_ms)),
        output_window: spec.output_window.into(),
        output_files: spec.output_files,
        core: spec.core,
    })
}

/// A blob that is to be sent, or to be here already.
fn read_announced(blob: Option<v1::Blob>, bases: &[Vec<u8>]) -> Result<BlobDescriptor, Error> {
    let blob = blob.ok_or(Error::Protocol("a job without a program, or input files without an archive"))?;
    if blob.size == 0 {
        return Err(Error::Protocol("a program or an archive without content"));
    }
    if bases.len() > MAX_BASES {
        return Err(Error::Protocol("more than 16 bases for a delta"));
    }
    Ok(BlobDescriptor {
        digest: read_digest(&blob.sha256)?,
        size: blob.size,
        checksum: blob.checksum,
        bases: bases.iter().map(|base| read_digest(base)).collect::<Result<_, _>>()?,
    })
}

fn read_inputs(trees: Vec<v1::InputArchive>) -> Result<Vec<InputTree>, Error> {
    if trees.len() > MAX_INPUT_TREES {
        return Err(Error::Protocol("more than 4 trees of input files"));
    }
    let mut inputs: Vec<InputTree> = Vec::new();
    for v1::InputArchive { archive, directory, size, bases, entries } in trees {
        let is_name = output_path::names(&directory).len() == 1 && output_path::is_valid(&directory);
        if !is_name || inputs.iter().any(|other| other.directory == directory) {
            return Err(Error::Protocol("input files without a directory of their own"));
        }
        // Nobody has memory for more, and sums must not wrap.
        if size > u32::MAX.into() {
            return Err(Error::Protocol("input files of more than 4 GiB"));
        }
        inputs.push(InputTree { archive: read_announced(archive, &bases)?, directory, size, entries });
    }
    Ok(inputs)
}

fn read_digest(bytes: &[u8]) -> Result<Digest, Error> {
    bytes.try_into().map_err(|_| Error::Protocol("a digest has 32 bytes"))
}

fn read_os_string(bytes: Vec<u8>) -> Result<OsString, Error> {
    if bytes.contains(&0) {
        return Err(Error::Protocol("an argument or variable with a zero byte"));
    }
    Ok(OsString::from_vec(bytes))
}

fn read_variable(variable: v1::EnvVar) -> Result<(OsString, OsString), Error> {
    if variable.name.is_empty() || variable.name.contains(&b'=') {
        return Err(Error::Protocol("a variable without a name, or with '=' in it"));
    }
    // By it a next agent finds what this one has left running, and an empty one would hide that.
    if variable.name == JOB_DIRECTORY.as_bytes() {
        return Err(Error::Protocol("the variable HOP_JOB_DIR is the agent's to set"));
    }
    Ok((read_os_string(variable.name)?, read_os_string(variable.value)?))
}

fn read_size(size: v1::WindowSize) -> Result<Size, Error> {
    let read = |count: u32| u16::try_from(count).map_err(|_| Error::Protocol("a window that is too large"));
    Ok(Size { rows: read(size.rows)?, columns: read(size.columns)? })
}

fn read_position(position: v1::FilePosition) -> Position {
    Position { file: position.file, offset: position.offset }
}

/// What a controller says after its first message, if that breaks no rule.
///
/// # Errors
/// [`Error::Protocol`] with the rule.
pub fn read_message(request: v1::RunRequest) -> Result<session::Request, Error> {
    Ok(match request.message {
        Some(run_request::Message::Blob(chunk)) => session::Request::Chunk(read_chunk(chunk)?),
        Some(run_request::Message::Stdin(v1::Stdin { offset, data, end })) => {
            session::Request::Stdin { offset, data, end }
        }
        Some(run_request::Message::Signal(v1::Signal { name, number })) => {
            session::Request::Signal { number, signal: signal(&name)? }
        }
        Some(run_request::Message::OutputAck(ack)) => {
            let stream = match ack.stream() {
                v1::Stream::Stdout => OutputStream::Stdout,
                v1::Stream::Stderr => OutputStream::Stderr,
                v1::Stream::Unspecified => return Err(Error::Protocol("an output that there is not")),
            };
            session::Request::Acknowledge { stream, offset: ack.offset, closed: ack.closed }
        }
        Some(run_request::Message::WindowSize(size)) => session::Request::Resize(read_size(size)?),
        Some(run_request::Message::FileAck(position)) => session::Request::Stored(read_position(position)),
        Some(run_request::Message::Start(v1::Start {})) => session::Request::Start,
        Some(run_request::Message::Discard(v1::Discard {})) => session::Request::Discard,
        Some(run_request::Message::Detach(v1::Detach {})) => session::Request::Detach,
        Some(run_request::Message::Spec(_)) => return Err(Error::Protocol("a second specification")),
        Some(run_request::Message::Attach(_)) => return Err(Error::Protocol("it is attached already")),
        None => return Err(Error::Protocol("a message that this agent does not know")),
    })
}

fn read_chunk(chunk: v1::BlobChunk) -> Result<Chunk, Error> {
    let encoding = match v1::Encoding::try_from(chunk.encoding) {
        Ok(v1::Encoding::Unspecified) => None,
        Ok(v1::Encoding::Identity) => Some(Encoding::Identity),
        Ok(v1::Encoding::Zstd) => Some(Encoding::Zstd),
        Ok(v1::Encoding::Lz4) => Some(Encoding::Lz4),
        Ok(v1::Encoding::Delta) => Some(Encoding::Delta),
        Ok(v1::Encoding::RelocatedDelta) => Some(Encoding::RelocatedDelta),
        Err(_) => return Err(Error::Protocol("an encoding that this agent does not know")),
    };
    if chunk.data.len() > MAX_BLOB_CHUNK_BYTES {
        return Err(Error::Protocol("a blob chunk is larger than 60 KiB"));
    }
    Ok(Chunk { offset: chunk.offset, encoding, data: chunk.data })
}

fn write_event(event: Event) -> Result<v1::RunResponse, Status> {
    let message = match event {
        Event::Accepted { job, needs, stdin, outputs: [stdout, stderr], signals } => {
            let need = |need: Need| v1::MissingBlob {
                sha256: need.digest.to_vec(),
                offset: need.offset,
                base: need.base.map(Vec::from).unwrap_or_default(),
            };
            run_response::Message::Accepted(v1::Accepted {
                job_id: job,
                missing_blobs: needs.into_iter().map(need).collect(),
                stdin_offset: stdin,
                stdout_offset: stdout,
                stderr_offset: stderr,
                signals,
            })
        }
        Event::Started { has_terminal } => run_response::Message::Started(v1::Started {
            stdin_window: STDIN_WINDOW_BYTES,
            terminal: has_terminal,
        }),
        Event::Output { stream, offset, payload } => {
            run_response::Message::Output(write_output(stream, offset, payload))
        }
        Event::StdinAck { offset, closed } => {
            run_response::Message::StdinAck(v1::StdinAck { offset, closed })
        }
        Event::SignalAck(number) => run_response::Message::SignalAck(v1::SignalAck { number }),
        Event::File { at, info, problem, payload } => {
            run_response::Message::OutputFile(write_file_piece(at, info, problem, payload))
        }
        Event::Last(last) => match &*last {
            Ok(outcome) => run_response::Message::Outcome(write_outcome(outcome)),
            Err(error) => return Err(error.into()),
        },
        Event::TakenOver => return Err(Error::TakenOver.into()),
    };
    Ok(v1::RunResponse { message: Some(message) })
}

fn write_output(
    stream: OutputStream,
    offset: u64,
    Payload { data, uncompressed_size }: Payload,
) -> v1::Output {
    let stream = match stream {
        OutputStream::Stdout => v1::Stream::Stdout,
        OutputStream::Stderr => v1::Stream::Stderr,
    };
    v1::Output { stream: stream.into(), offset, data, uncompressed_size }
}

fn write_file_piece(
    Position { file, offset }: Position,
    info: Option<Info>,
    problem: Option<Problem>,
    Payload { data, uncompressed_size }: Payload,
) -> v1::OutputFile {
    let info = info.map(|info| {
        let Info { path, request, size, is_executable, is_core, files } = info;
        v1::FileInfo { path, request, size, executable: is_executable, core: is_core, files }
    });
    let problem = match problem {
        None => v1::FileProblem::Unspecified,
        Some(Problem::NotThere) => v1::FileProblem::NotThere,
        Some(Problem::NotAFile) => v1::FileProblem::NotAFile,
        Some(Problem::TooLarge) => v1::FileProblem::TooLarge,
        Some(Problem::TooMany) => v1::FileProblem::TooMany,
        Some(Problem::Unreadable) => v1::FileProblem::Unreadable,
        Some(Problem::Changed) => v1::FileProblem::Changed,
        Some(Problem::NotOwn) => v1::FileProblem::NotOwn,
        Some(Problem::Hidden) => v1::FileProblem::Hidden,
    };
    v1::OutputFile { file, offset, data, info, problem: problem.into(), uncompressed_size }
}

fn write_listed(listed: JobSummary, asking: Fingerprint) -> v1::Job {
    let state = match listed.stage {
        Stage::Admitted | Stage::Receiving => v1::JobState::Receiving,
        Stage::Complete | Stage::Running => v1::JobState::Running,
        Stage::Ended => v1::JobState::Ended,
    };
    v1::Job {
        job_id: listed.job,
        name: listed.name.to_string_lossy().into_owned(),
        state: state.into(),
        age_ms: milliseconds(listed.age),
        attached: listed.is_attached,
        own: listed.owner == asking,
        detached: listed.is_detached,
        unread: listed.unread,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn write_outcome(outcome: &Outcome) -> v1::Outcome {
    let ran = match outcome {
        Outcome::Ran(ran) => ran,
        Outcome::NotExecuted(reason) => {
            return v1::Outcome {
                ending: Some(WireEnding::NotExecuted(v1::NotExecuted { reason: reason.clone() })),
                cause: v1::Cause::Program.into(),
                ..v1::Outcome::default()
            };
        }
    };
    let shortage = match ran.cause {
        Cause::Memory(Shortage { available, held, of_promises }) => {
            Some(v1::OutOfMemory { available, limit: oom_guard::LIMIT, held, of_promises })
        }
        _ => None,
    };
    let exhausted = match &ran.cause {
        Cause::Exhausted(exhausted) => Some(write_exhausted(exhausted)),
        _ => None,
    };
    v1::Outcome {
        ending: Some(match &ran.ending {
            Ending::Exited(code) => WireEnding::ExitCode(*code),
            Ending::Signaled { name, core_dumped } => {
                WireEnding::Signaled(v1::Signaled { name: name.clone(), core_dumped: *core_dumped })
            }
        }),
        cause: write_cause(&ran.cause).into(),
        usage: Some(v1::Usage {
            wall_ms: milliseconds(ran.wall),
            user_ms: milliseconds(ran.usage.user),
            system_ms: milliseconds(ran.usage.system),
            max_rss_bytes: ran.usage.max_rss,
        }),
        stdout_bytes: ran.stdout.bytes,
        stderr_bytes: ran.stderr.bytes,
        output_abandoned: ran.stdout.abandoned || ran.stderr.abandoned,
        orphans: ran.orphans.ended,
        out_of_memory: shortage,
        files_lost: ran.files_lost.as_ref().map_or(v1::Cause::Unspecified, write_cause).into(),
        exhausted,
        stdin_bytes: ran.stdin,
    }
}

fn write_exhausted(exhausted: &Exhausted) -> v1::Exhausted {
    let Exhausted { resource, available, limit, held } = exhausted;
    let (resource, place) = match resource {
        Resource::Inodes(place) => (v1::Resource::Inodes, place.display().to_string()),
        Resource::Threads => (v1::Resource::Threads, String::new()),
    };
    v1::Exhausted { resource: resource.into(), available: *available, limit: *limit, held: *held, place }
}

fn write_cause(cause: &Cause) -> v1::Cause {
    match cause {
        Cause::Program => v1::Cause::Program,
        Cause::ControllerGone => v1::Cause::Abandoned,
        Cause::Timeout => v1::Cause::Timeout,
        Cause::IdleTimeout => v1::Cause::IdleTimeout,
        Cause::Memory(_) => v1::Cause::Memory,
        Cause::Exhausted(_) => v1::Cause::Exhausted,
        Cause::AgentStopped => v1::Cause::AgentStopped,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn spec() -> v1::JobSpec {
        v1::JobSpec {
            name: "hello".into(),
            program: Some(v1::Blob { sha256: vec![7; 32], size: 1, checksum: None }),
            output_window: 1,
            ..v1::JobSpec::default()
        }
    }

    fn tree() -> v1::InputArchive {
        let archive = Some(v1::Blob { sha256: vec![8; 32], size: 1, checksum: None });
        v1::InputArchive { archive, directory: b"src".to_vec(), size: 1, ..v1::InputArchive::default() }
    }

    #[test]
    fn a_specification_that_breaks_a_rule_is_refused() {
        assert!(read_spec(spec()).is_ok());
        assert!(read_spec(v1::JobSpec { inputs: vec![tree()], ..spec() }).is_ok());
        let broken: [fn(&mut v1::JobSpec); 28] = [
            |spec| spec.user = "x".repeat(65),
            |spec| spec.output_files = vec![b"results/../../x".to_vec()],
            |spec| spec.output_files = vec![b"x".to_vec(); MAX_OUTPUT_REQUESTS + 1],
            |spec| spec.working_directory = b"/etc".to_vec(),
            |spec| spec.working_directory = b"src/..".to_vec(),
            |spec| spec.workdir_placeholder = vec![b'x'; MAX_MARK_BYTES + 1],
            |spec| spec.workdir_placeholder = vec![b'x'; MIN_MARK_BYTES - 1],
            |spec| spec.inputs = vec![v1::InputArchive { directory: b"a/b".to_vec(), ..tree() }],
            |spec| spec.inputs = vec![tree(), tree()],
            |spec| spec.inputs = vec![v1::InputArchive { archive: None, ..tree() }],
            |spec| spec.terminal = Some(v1::WindowSize { rows: 1, columns: 65_536 }),
            |spec| spec.nice = 20,
            |spec| spec.job_id = "../../etc".into(),
            |spec| spec.job_id = "7".repeat(33),
            |spec| spec.disconnect_timeout_ms = MAX_LINGER_MS + 1,
            |spec| spec.program = None,
            |spec| spec.program.as_mut().unwrap().size = 0,
            |spec| spec.program.as_mut().unwrap().sha256.truncate(31),
            |spec| spec.name = String::new(),
            |spec| spec.name = "..".into(),
            |spec| spec.name = "a/b".into(),
            |spec| spec.name = "x".repeat(65),
            |spec| spec.output_window = 0,
            |spec| spec.output_window = u32::MAX,
            |spec| spec.args = vec![b"a\0b".to_vec()],
            |spec| spec.env = vec![v1::EnvVar { name: b"A=B".to_vec(), value: vec![] }],
            |spec| spec.env = vec![v1::EnvVar { name: b"HOP_JOB_DIR".to_vec(), value: vec![] }],
            |spec| spec.limits = Some(v1::Limits { grace_ms: MAX_GRACE_MS + 1, ..v1::Limits::default() }),
        ];
        for (index, breaks) in broken.iter().enumerate() {
            let mut spec = spec();
            breaks(&mut spec);
            assert!(matches!(read_spec(spec), Err(Error::Protocol(_))), "rule {index}");
        }
    }

    #[test]
    fn arguments_need_not_be_text() {
        let spec = v1::JobSpec { args: vec![vec![], vec![0xff, b'\n', b'"']], ..spec() };
        let args = read_spec(spec).unwrap().args;
        assert_eq!(
            args.iter().map(|arg| arg.as_bytes()).collect::<Vec<_>>(),
            [&b""[..], &[0xff, b'\n', b'"']]
        );
    }
}
