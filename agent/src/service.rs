//! Translates between the protocol and the jobs: every message in, every message out, every error to its status.
//!
//! What must stay true: nothing here touches a file or a process, and nothing elsewhere knows a message. A message that
//! breaks the rules of `agent.proto` is refused here or by the module that counts.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hop_proto::identity::Fingerprint;
use hop_proto::limits::{
    MAX_BASES, MAX_BLOB_CHUNK_BYTES, MAX_GRACE_MS, MAX_INPUT_TREES, MAX_JOB_ID_BYTES, MAX_LINGER_MS,
    MAX_MARK_BYTES, MAX_MESSAGE_BYTES, MAX_NAME_BYTES, MAX_OUTPUT_REQUESTS, MAX_OUTPUT_WINDOW_BYTES,
    MAX_SPEC_BYTES, MIN_MARK_BYTES, STDIN_WINDOW_BYTES,
};
use hop_proto::v1::{self, Reason, run_reply, run_request};
use hop_proto::{output_path, program_name, v1::outcome::Ending as WireEnding};
use http::{Request, Response};
use prost::Message;
use tokio_stream::StreamExt;

use crate::authorized_keys::{self, AuthorizedKeys};
use crate::bounds::check_run_request;
use crate::child::Ending;
use crate::decoder::Encoding;
use crate::error::Error;
use crate::grpc::{self, Answer, Check, Code, Messages, Replies, Requests, Status};
use crate::guard::{self, Shortage};
use crate::http2::{self, Incoming};
use crate::input_tree::InputTree;
use crate::job::{JOB_DIRECTORY, Spec, signal};
use crate::job_log::Controller;
use crate::jobs::{Jobs, Listed, MAX_JOBS};
use crate::link::{Connection, FromController, Link, Stage, ToController};
use crate::machine::{Machine, TARGET};
use crate::memory::{Memory, RESERVE};
use crate::outcome::{Cause, Outcome};
use crate::output_files::{Info, Piece, Position, Problem};
use crate::packer::Packer;
use crate::receive_budget::{ConnectionBudget, MessageMeter};
use crate::reception::{Announced, Chunk, Need};
use crate::resources::{self, Exhausted, Resource};
use crate::store::Digest;
use crate::tape::OutputStream;
use crate::task;
use crate::terminal::Size;
use crate::user::User;

/// The largest nice value (setpriority(2)).
const MAX_NICE: u8 = 19;
const NOT_NICE: Error = Error::Protocol("a nice value is at most 19");

/// What this agent can do, by the names that `docs/protocol.md` defines.
const CAPABILITIES: [&str; 17] = [
    "run", "attach", "terminal", "user", "inputs", "outputs", "hold", "merge", "checksum", "zstd", "lz4",
    "delta", "relocate", "pack", "inodes", "rotate", "signals",
];

/// What it can do only where programs run by themselves: the core of a launcher is not that of its program.
const WITHOUT_LAUNCHER: &str = "core";

/// The calls of `agent.proto`, for one connection.
#[derive(Clone)]
pub struct Service {
    jobs: Arc<Jobs>,
    keys: Arc<AuthorizedKeys>,
    /// Where the agent listens, for people.
    place: Arc<str>,
    controller: Fingerprint,
    /// The same, for the log.
    client: Controller,
    admission: Admission,
    budget: Arc<ConnectionBudget>,
}

/// The question whether the controller at the other end of a connection may use it, and if not, why.
pub type Admission = Arc<dyn Fn() -> Result<(), Error> + Send + Sync>;

impl http2::Service for Service {
    type Body = Answer;

    async fn call(self, request: Request<Incoming>) -> Response<Option<Answer>> {
        let (head, incoming) = request.into_parts();
        grpc::response(self.answer(head.uri.path(), incoming).await)
    }
}

impl Service {
    /// The agent's service over `jobs`, for a connection of `client`, whose messages take their memory from `budget`. `admission` is
    /// asked at every call: a key that was taken off the list since its controller connected starts nothing more.
    pub fn new(
        jobs: Arc<Jobs>,
        keys: Arc<AuthorizedKeys>,
        place: Arc<str>,
        client: Controller,
        admission: Admission,
        budget: Arc<ConnectionBudget>,
    ) -> Self {
        Self { jobs, keys, place, controller: client.key, client, admission, budget }
    }

    /// The messages of a call, of which the first may have `first` bytes.
    fn requests<M: Message + Default>(&self, incoming: Incoming, first: usize, check: Check) -> Requests<M> {
        Requests::new(incoming, MessageMeter::new(self.budget.clone(), first), check)
    }

    /// The message of a call that has one.
    async fn only<M: Message + Default>(&self, incoming: Incoming) -> Result<M, Error> {
        self.requests(incoming, MAX_MESSAGE_BYTES, |_| Ok(())).only().await
    }

    async fn answer(&self, method: &str, incoming: Incoming) -> Result<Answer, Status> {
        (self.admission)()?;
        Ok(match method {
            "/hop.v1.Agent/Info" => {
                let v1::InfoRequest {} = self.only(incoming).await?;
                Answer::one(&self.describe()?)
            }
            "/hop.v1.Agent/Run" => {
                self.run(self.requests(incoming, MAX_SPEC_BYTES, check_run_request)).await?
            }
            "/hop.v1.Agent/Attach" => {
                self.attach(self.requests(incoming, MAX_MESSAGE_BYTES, check_run_request)).await?
            }
            "/hop.v1.Agent/Jobs" => {
                let v1::JobsRequest {} = self.only(incoming).await?;
                let jobs = self.jobs.list().into_iter();
                let jobs = jobs.map(|listed| write_listed(listed, self.controller)).collect();
                Answer::one(&v1::JobsReply { jobs })
            }
            "/hop.v1.Agent/Logs" => {
                let v1::LogsRequest { job_id } = self.only(incoming).await?;
                let link = self.jobs.find(&job_id, self.controller)?;
                link.has_its_output()?;
                Answer::many(Kept { link, had: [0; 2] })
            }
            "/hop.v1.Agent/Kill" => {
                let v1::KillRequest { job_id, signal: name } = self.only(incoming).await?;
                let signal = signal(&name)?;
                self.jobs.find(&job_id, self.controller)?.signal(signal).await;
                Answer::one(&v1::KillReply {})
            }
            "/hop.v1.Agent/AddNextKey" => {
                let v1::AddNextKeyRequest { sha256 } = self.only(incoming).await?;
                let next = <[u8; 32]>::try_from(&sha256[..])
                    .map_err(|_| Error::Protocol("a fingerprint has 32 bytes"))?;
                let next = Fingerprint::from_bytes(next);
                self.keys.add_successor(self.controller, next).await.map_err(Error::from)?;
                tracing::info!(controller = %self.controller, %next, "next key of a controller let in");
                Answer::one(&v1::AddNextKeyReply {})
            }
            "/hop.v1.Agent/RetirePreviousKey" => {
                let v1::RetirePreviousKeyRequest {} = self.only(incoming).await?;
                let previous = self.keys.retire_predecessor(self.controller).await.map_err(Error::from)?;
                // In the same breath: what belongs to a key that is off the list is ended.
                if let Some(previous) = previous {
                    self.jobs.transfer(previous, self.controller);
                    tracing::info!(controller = %self.controller, %previous, "previous key taken off the list");
                }
                Answer::one(&v1::RetirePreviousKeyReply {})
            }
            // A controller of another age asks for what this agent does not have.
            _ => {
                return Err(Status {
                    code: Code::Unimplemented,
                    message: String::new(),
                    details: Vec::new(),
                });
            }
        })
    }

    async fn run(&self, mut requests: Requests<v1::RunRequest>) -> Result<Answer, Error> {
        let Some(run_request::Message::Spec(spec)) = first(&mut requests).await? else {
            return Err(Error::Protocol("a run begins with its specification"));
        };
        let packs = spec.pack_outputs;
        let spec = read_spec(spec)?;
        // It may have taken its time to say what to run.
        (self.admission)()?;
        // The controller has not heard that it was accepted, and asks once more.
        if let Some(Ok(link)) = spec.id.as_ref().map(|id| self.jobs.find(id, self.controller)) {
            return Ok(carry(link.connect([None, None], None)?, requests, packs));
        }
        let job = self.jobs.admit(spec, self.controller)?;
        let connection = job.link().connect([None, None], None)?;
        task::spawn(job.run(self.client.clone()));
        Ok(carry(connection, requests, packs))
    }

    async fn attach(&self, mut requests: Requests<v1::RunRequest>) -> Result<Answer, Error> {
        let Some(run_request::Message::Attach(attach)) = first(&mut requests).await? else {
            return Err(Error::Protocol("to attach begins with saying to which job"));
        };
        let link = self.jobs.find(&attach.job_id, self.controller)?;
        let files = attach.files.map(read_position);
        let connection = link.connect([attach.stdout_offset, attach.stderr_offset], files)?;
        tracing::info!(job = attach.job_id, "controller attached");
        Ok(carry(connection, requests, attach.pack_outputs))
    }

    fn describe(&self) -> Result<v1::InfoReply, Error> {
        let machine = Machine::read();
        let memory = Memory::read().map_err(Error::io("read", Path::new("/proc/meminfo")))?;
        let store = &self.jobs.store;
        let has_launcher = !self.jobs.launcher.is_empty();
        let capabilities = CAPABILITIES.into_iter().chain((!has_launcher).then_some(WITHOUT_LAUNCHER));
        Ok(v1::InfoReply {
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
                kept: store.unused(),
                inodes: resources::inodes(store.directory())?.map(|level| v1::Inodes {
                    total: level.total,
                    available: level.available,
                    reserve: level.reserve(),
                }),
            }),
            launcher: self.jobs.launcher.iter().map(|word| word.as_bytes().to_vec()).collect(),
            jobs: self.jobs.running(),
            max_jobs: MAX_JOBS,
            containment: match &self.jobs.family {
                family if family.cgroups.is_some() => v1::Containment::Cgroup,
                family if family.finds_everything() => v1::Containment::Descendants,
                _ => v1::Containment::Group,
            }
            .into(),
            instance: self.jobs.instance(),
            listens: self.place.to_string(),
        })
    }
}

async fn first(requests: &mut Requests<v1::RunRequest>) -> Result<Option<run_request::Message>, Error> {
    Ok(requests.next().await.transpose()?.and_then(|first| first.message))
}

/// Lets a connection carry what both sides say; output packed, if its controller unpacks it.
fn carry(connection: Connection, requests: Requests<v1::RunRequest>, packs: bool) -> Answer {
    connection.hear(requests.map(|request| read_message(request?)));
    Answer::many(Telling { connection, packer: packs.then(Packer::default), plain: BytesMut::new() })
}

/// What a connection tells, as messages.
struct Telling {
    connection: Connection,
    packer: Option<Packer>,
    /// Room for what goes as it is: one that was written into a message is used again.
    plain: BytesMut,
}

impl Replies for Telling {
    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        messages: &mut Messages,
    ) -> Poll<Option<Result<(), Status>>> {
        let Self { connection, packer, plain } = self;
        let take = |data: &[u8]| {
            Packed::of(data, packer, || {
                plain.extend_from_slice(data);
                plain.split().freeze()
            })
        };
        let reply = ready!(connection.poll_next(context, take));
        Poll::Ready(reply.map(|reply| {
            messages.write(&write_reply(reply, packer)?);
            Ok(())
        }))
    }
}

/// The output of a job that is kept, piece by piece as the connection takes them: at once it would be both windows in memory
/// once more.
struct Kept {
    link: Arc<Link>,
    /// How much of each output was said.
    had: [u64; 2],
}

impl Replies for Kept {
    fn poll_write(
        &mut self,
        _: &mut Context<'_>,
        messages: &mut Messages,
    ) -> Poll<Option<Result<(), Status>>> {
        Poll::Ready(self.link.next_piece(&mut self.had).map(|(stream, offset, data)| {
            messages.write(&write_output(stream, offset, Packed { data, unpacked_size: 0 }));
            Ok(())
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
    if spec.linger_ms > MAX_LINGER_MS {
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
    let mark = spec.directory_mark.len();
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
        directory_mark: spec.directory_mark,
        hold: spec.hold,
        merges_outputs: spec.merge_outputs,
        timeout: (limits.timeout_ms > 0).then(|| Duration::from_millis(limits.timeout_ms)),
        idle_timeout: (limits.idle_timeout_ms > 0).then(|| Duration::from_millis(limits.idle_timeout_ms)),
        grace: Duration::from_millis(limits.grace_ms),
        nice: u8::try_from(spec.nice).ok().filter(|nice| *nice <= MAX_NICE).ok_or(NOT_NICE)?,
        user: if spec.user.is_empty() { None } else { Some(User::find(&spec.user)?) },
        terminal: spec.terminal.map(read_size).transpose()?,
        linger: (!spec.detached).then(|| Duration::from_millis(spec.linger_ms)),
        output_window: spec.output_window.into(),
        output_files: spec.output_files,
        core: spec.core,
    })
}

/// A blob that is to be sent, or to be here already.
fn read_announced(blob: Option<v1::Blob>, bases: &[Vec<u8>]) -> Result<Announced, Error> {
    let blob = blob.ok_or(Error::Protocol("a job without a program, or input files without an archive"))?;
    if blob.size == 0 {
        return Err(Error::Protocol("a program or an archive without content"));
    }
    if bases.len() > MAX_BASES {
        return Err(Error::Protocol("more than 16 bases for a delta"));
    }
    Ok(Announced {
        digest: read_digest(&blob.sha256)?,
        size: blob.size,
        checksum: blob.checksum,
        bases: bases.iter().map(|base| read_digest(base)).collect::<Result<_, _>>()?,
    })
}

fn read_inputs(trees: Vec<v1::InputTree>) -> Result<Vec<InputTree>, Error> {
    if trees.len() > MAX_INPUT_TREES {
        return Err(Error::Protocol("more than 4 trees of input files"));
    }
    let mut inputs: Vec<InputTree> = Vec::new();
    for v1::InputTree { archive, directory, size, bases, entries } in trees {
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
pub fn read_message(request: v1::RunRequest) -> Result<FromController, Error> {
    Ok(match request.message {
        Some(run_request::Message::Blob(chunk)) => FromController::Chunk(read_chunk(chunk)?),
        Some(run_request::Message::Stdin(v1::Stdin { offset, data, end })) => {
            FromController::Stdin { offset, data, end }
        }
        Some(run_request::Message::Signal(v1::Signal { name, number })) => {
            FromController::Signal { number, signal: signal(&name)? }
        }
        Some(run_request::Message::OutputAck(ack)) => {
            let stream = match ack.stream() {
                v1::Stream::Stdout => OutputStream::Stdout,
                v1::Stream::Stderr => OutputStream::Stderr,
                v1::Stream::Unspecified => return Err(Error::Protocol("an output that there is not")),
            };
            FromController::Acknowledge { stream, offset: ack.offset, closed: ack.closed }
        }
        Some(run_request::Message::WindowSize(size)) => FromController::Resize(read_size(size)?),
        Some(run_request::Message::FileAck(position)) => FromController::Stored(read_position(position)),
        Some(run_request::Message::Start(v1::Start {})) => FromController::Start,
        Some(run_request::Message::Release(v1::Release {})) => FromController::Release,
        Some(run_request::Message::Spec(_)) => return Err(Error::Protocol("a second specification")),
        Some(run_request::Message::Attach(_)) => return Err(Error::Protocol("it is attached already")),
        None => return Err(Error::Protocol("a message that this agent does not know")),
    })
}

fn read_chunk(chunk: v1::BlobChunk) -> Result<Chunk, Error> {
    let encoding = match v1::Encoding::try_from(chunk.encoding) {
        Ok(v1::Encoding::Identity) => Encoding::Identity,
        Ok(v1::Encoding::Zstd) => Encoding::Zstd,
        Ok(v1::Encoding::Lz4) => Encoding::Lz4,
        Ok(v1::Encoding::Delta) => Encoding::Delta,
        Ok(v1::Encoding::RelocatedDelta) => Encoding::RelocatedDelta,
        Err(_) => return Err(Error::Protocol("an encoding that this agent does not know")),
    };
    if chunk.data.len() > MAX_BLOB_CHUNK_BYTES {
        return Err(Error::Protocol("a blob chunk is larger than 60 KiB"));
    }
    Ok(Chunk { offset: chunk.offset, encoding, data: chunk.data })
}

fn write_reply(reply: ToController<Packed>, packer: &mut Option<Packer>) -> Result<v1::RunReply, Status> {
    let message = match reply {
        ToController::Accepted { job, needs, stdin, outputs: [stdout, stderr], signals } => {
            let need = |need: Need| v1::Need {
                sha256: need.digest.to_vec(),
                offset: need.offset,
                base: need.base.map(Vec::from).unwrap_or_default(),
            };
            run_reply::Message::Accepted(v1::Accepted {
                job_id: job,
                needs: needs.into_iter().map(need).collect(),
                stdin_offset: stdin,
                stdout_offset: stdout,
                stderr_offset: stderr,
                signals,
            })
        }
        ToController::Started { has_terminal } => run_reply::Message::Started(v1::Started {
            stdin_window: STDIN_WINDOW_BYTES,
            terminal: has_terminal,
        }),
        ToController::Output { stream, offset, data } => {
            run_reply::Message::Output(write_output(stream, offset, data))
        }
        ToController::StdinAck { offset, closed } => {
            run_reply::Message::StdinAck(v1::StdinAck { offset, closed })
        }
        ToController::SignalAck(number) => run_reply::Message::SignalAck(v1::SignalAck { number }),
        ToController::File(piece) => run_reply::Message::OutputFile(write_piece(piece, packer)),
        ToController::Last(last) => match &*last {
            Ok(outcome) => run_reply::Message::Outcome(write_outcome(outcome)),
            Err(error) => return Err(error.into()),
        },
        ToController::TakenOver => return Err(Error::TakenOver.into()),
    };
    Ok(v1::RunReply { message: Some(message) })
}

/// What goes on the wire.
struct Packed {
    data: Bytes,
    /// What `unpacked_size` says of it: 0 if it goes as it is.
    unpacked_size: u32,
}

impl Packed {
    /// For `data`, of which `whole` is all.
    fn of(data: &[u8], packer: &mut Option<Packer>, whole: impl FnOnce() -> Bytes) -> Self {
        match packer.as_mut().and_then(|packer| packer.pack(data)) {
            // At most OUTPUT_CHUNK_BYTES.
            Some(packed) => Self { data: packed, unpacked_size: data.len() as u32 },
            None => Self { data: whole(), unpacked_size: 0 },
        }
    }
}

fn write_output(stream: OutputStream, offset: u64, Packed { data, unpacked_size }: Packed) -> v1::Output {
    let stream = match stream {
        OutputStream::Stdout => v1::Stream::Stdout,
        OutputStream::Stderr => v1::Stream::Stderr,
    };
    v1::Output { stream: stream.into(), offset, data, unpacked_size }
}

fn write_piece(piece: Piece, packer: &mut Option<Packer>) -> v1::OutputFile {
    let Piece { at: Position { file, offset }, data, info, problem } = piece;
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
    let Packed { data, unpacked_size } = Packed::of(&data, packer, || data.clone());
    v1::OutputFile { file, offset, data, info, problem: problem.into(), unpacked_size }
}

fn write_listed(listed: Listed, asking: Fingerprint) -> v1::Job {
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
            Some(v1::Shortage { available, limit: guard::LIMIT, held, of_promises })
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
        shortage,
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

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<&Error> for Status {
    fn from(error: &Error) -> Self {
        let (code, reason, needed, available) = match error {
            Error::NoSpace { needed, available, .. } => {
                (Code::ResourceExhausted, Reason::NoSpace, *needed, *available)
            }
            Error::NoMemory { needed, available } => {
                (Code::ResourceExhausted, Reason::NoMemory, *needed, *available)
            }
            Error::NoReceiveMemory { needed, available } => {
                (Code::ResourceExhausted, Reason::NoMemory, *needed, *available)
            }
            Error::NoInodes { needed, available, .. } => {
                (Code::ResourceExhausted, Reason::NoInodes, *needed, *available)
            }
            Error::NoPromise { needed, available } => {
                (Code::ResourceExhausted, Reason::NoPromise, *needed, *available)
            }
            Error::TooManyJobs { limit } => {
                (Code::ResourceExhausted, Reason::TooManyJobs, u64::from(*limit) + 1, (*limit).into())
            }
            Error::TooManyConnections { limit } => {
                (Code::ResourceExhausted, Reason::TooManyConnections, u64::from(*limit) + 1, (*limit).into())
            }
            Error::TooManyConnectionsOfKey { held, reserved, limit } => (
                Code::ResourceExhausted,
                Reason::TooManyConnections,
                u64::from(*held) + 1,
                u64::from(limit - reserved),
            ),
            Error::NotExecutable(_) => (Code::FailedPrecondition, Reason::NotExecutable, 0, 0),
            Error::DigestMismatch => (Code::DataLoss, Reason::DigestMismatch, 0, 0),
            Error::Protocol(_) => (Code::InvalidArgument, Reason::Protocol, 0, 0),
            Error::Io { .. } => (Code::Internal, Reason::Io, 0, 0),
            Error::NotStarted(_) => (Code::ResourceExhausted, Reason::NotStarted, 0, 0),
            Error::NotAuthorized | Error::KeyList(authorized_keys::Error::NotListed) => {
                (Code::PermissionDenied, Reason::NotAuthorized, 0, 0)
            }
            Error::KeyList(_) => (Code::Internal, Reason::Io, 0, 0),
            Error::NoSuchUser(_) | Error::NotRoot => (Code::FailedPrecondition, Reason::NoSuchUser, 0, 0),
            Error::NoCore(_) => (Code::FailedPrecondition, Reason::NoCore, 0, 0),
            Error::NoSuchJob(_) => (Code::NotFound, Reason::NoSuchJob, 0, 0),
            Error::NotYours(_) => (Code::PermissionDenied, Reason::NotYours, 0, 0),
            Error::OutputLost { .. } => (Code::DataLoss, Reason::OutputLost, 0, 0),
            Error::TakenOver => (Code::Aborted, Reason::TakenOver, 0, 0),
            Error::Stopping => (Code::Unavailable, Reason::Stopping, 0, 0),
            Error::Gone => (Code::Cancelled, Reason::Unspecified, 0, 0),
        };
        let failure = v1::Failure { reason: reason.into(), needed, available };
        Self { code, message: error.to_string(), details: failure.encode_to_vec() }
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

    fn tree() -> v1::InputTree {
        let archive = Some(v1::Blob { sha256: vec![8; 32], size: 1, checksum: None });
        v1::InputTree { archive, directory: b"src".to_vec(), size: 1, ..v1::InputTree::default() }
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
            |spec| spec.directory_mark = vec![b'x'; MAX_MARK_BYTES + 1],
            |spec| spec.directory_mark = vec![b'x'; MIN_MARK_BYTES - 1],
            |spec| spec.inputs = vec![v1::InputTree { directory: b"a/b".to_vec(), ..tree() }],
            |spec| spec.inputs = vec![tree(), tree()],
            |spec| spec.inputs = vec![v1::InputTree { archive: None, ..tree() }],
            |spec| spec.terminal = Some(v1::WindowSize { rows: 1, columns: 65_536 }),
            |spec| spec.nice = 20,
            |spec| spec.job_id = "../../etc".into(),
            |spec| spec.job_id = "7".repeat(33),
            |spec| spec.linger_ms = MAX_LINGER_MS + 1,
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

    #[test]
    fn figures_of_a_refusal_travel_as_numbers() {
        let status = Status::from(Error::NoMemory { needed: 9_000_000_000, available: 5 });
        let failure = v1::Failure::decode(&status.details[..]).unwrap();
        assert_eq!(
            (failure.reason(), failure.needed, failure.available),
            (Reason::NoMemory, 9_000_000_000, 5)
        );
    }
}
