//! The gRPC service of `agent.proto` for one connection, and the streams of its calls.
//!
//! **Invariants:** every call asks first whether the controller's key is still authorized; and a stream asks its job
//! for the next event only when the connection can send it.

use std::convert::Infallible;
use std::future::ready;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hop_proto::identity::Fingerprint;
use hop_proto::limits::{MAX_MESSAGE_BYTES, MAX_SPEC_BYTES};
use hop_proto::v1::{self, run_request};
use hyper::body::Incoming;
use tokio_stream::Stream;
use tonic::codegen::{BoxFuture, Service};
use tonic::{Request, Response, Status, Streaming};

use crate::access::authorized_keys::AuthorizedKeys;
use crate::job::error::Error;
use crate::job::job_log::Controller;
use crate::job::registry::{JobRegistry, MAX_JOBS};
use crate::job::session::{Attachment, Payload, Session};
use crate::job::spec::signal;
use crate::service::decode::{decode_message, decode_position, decode_spec};
use crate::service::encode::{encode_event, encode_job, encode_output};
use crate::service::error;
use crate::service::generated::agent_service_server::{AgentService, AgentServiceServer};
use crate::service::receive_budget::{ConnectionBudget, MessageMeter};
use crate::service::request_body::RequestBody;
use crate::service::status::stream_error;
use crate::system::host::{Host, TARGET};
use crate::system::memory::{Memory, RESERVE};
use crate::system::resources;
use crate::system::runtime;

/// The capabilities of this agent, by their names in `docs/protocol.md`.
const CAPABILITIES: [&str; 19] = [
    "run",
    "attach",
    "terminal",
    "user",
    "inputs",
    "input_places",
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
    "log",
];

/// The capabilities of an agent without a launcher: the core dump of a launcher is not that of its program, and the
/// kernel cannot execute what the program would start.
const WITHOUT_LAUNCHER: [&str; 2] = ["core", "native"];

/// The one call whose first message may have [`MAX_SPEC_BYTES`].
const RUN: &str = "/hop.v1.AgentService/Run";

/// Checks that the controller at the other end of a connection may use the agent, and returns the reason if it may not.
pub type Admission = Arc<dyn Fn() -> Result<(), error::Error> + Send + Sync>;

/// The service of one connection, over HTTP: checks admission, measures messages, and passes calls to tonic's server.
#[derive(Clone)]
pub struct ConnectionService {
    server: AgentServiceServer<Agent>,
    admission: Admission,
    budget: Arc<ConnectionBudget>,
}

impl ConnectionService {
    /// The service over `jobs` for a connection of `client`, whose messages take their memory from `budget`. Every call
    /// checks `admission`, so that a controller whose key was removed from the list since it connected starts nothing
    /// more. `place` is the address on which the agent listens, for `hop info` to print.
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

impl Service<http::Request<Incoming>> for ConnectionService {
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
    /// The controller's key and address, for the log.
    client: Controller,
    admission: Admission,
}

#[tonic::async_trait]
impl AgentService for Agent {
    type RunStream = SessionStream;
    type ReadOutputStream = BufferedOutput;

    async fn get_info(
        &self,
        _: Request<v1::GetInfoRequest>,
    ) -> Result<Response<v1::GetInfoResponse>, Status> {
        Ok(Response::new(self.info()?))
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
        let jobs = self.jobs.list().into_iter().map(|listed| encode_job(listed, self.controller)).collect();
        Ok(Response::new(v1::ListJobsResponse { jobs }))
    }

    async fn read_output(
        &self,
        request: Request<v1::ReadOutputRequest>,
    ) -> Result<Response<BufferedOutput>, Status> {
        let v1::ReadOutputRequest { job_id, follow, since_ms } = request.into_inner();
        let session = self.jobs.find(&job_id, self.controller)?;
        session.has_its_output()?;
        let delivered = session.output_since((since_ms > 0).then(|| Duration::from_millis(since_ms)));
        let ends = session.output_ends();
        Ok(Response::new(BufferedOutput { session, delivered, ends, follows: follow, is_caught_up: false }))
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
        tracing::info!(controller = %self.controller, %next, "authorized the next key of a controller");
        Ok(Response::new(v1::AddNextKeyResponse {}))
    }

    async fn retire_previous_key(
        &self,
        _: Request<v1::RetirePreviousKeyRequest>,
    ) -> Result<Response<v1::RetirePreviousKeyResponse>, Status> {
        let previous = self.keys.retire_predecessor(self.controller).await.map_err(error::Error::from)?;
        // Without waiting in between: the agent kills jobs of keys that are not on the list.
        if let Some(previous) = previous {
            self.jobs.transfer(previous, self.controller);
            tracing::info!(controller = %self.controller, %previous, "removed the previous key from the list");
        }
        Ok(Response::new(v1::RetirePreviousKeyResponse {}))
    }
}

impl Agent {
    /// Starts a job, and attaches to it.
    fn start(&self, spec: v1::JobSpec) -> Result<Attachment, error::Error> {
        let accepts_compressed = spec.accept_compressed_output;
        let spec = decode_spec(spec)?;
        // The specification may have arrived long after the call began.
        (self.admission)()?;
        // The controller did not learn that its job was accepted, and asks again.
        if let Some(Ok(session)) = spec.id.as_ref().map(|id| self.jobs.find(id, self.controller)) {
            return Ok(session.connect([None, None], None, accepts_compressed)?);
        }
        let job = self.jobs.admit(spec, self.controller)?;
        let attachment = job.session().connect([None, None], None, accepts_compressed)?;
        runtime::spawn(job.run(self.client.clone()));
        Ok(attachment)
    }

    /// Attaches to a job.
    fn attach(&self, attach: v1::Attach) -> Result<Attachment, Error> {
        let session = self.jobs.find(&attach.job_id, self.controller)?;
        let files = attach.files.map(decode_position);
        let delivered = [attach.stdout_offset, attach.stderr_offset];
        let attachment = session.connect(delivered, files, attach.accept_compressed_output)?;
        tracing::info!(job = attach.job_id, "controller attached");
        Ok(attachment)
    }

    fn info(&self) -> Result<v1::GetInfoResponse, Error> {
        let machine = Host::read();
        let memory = Memory::read().map_err(Error::io("read", Path::new("/proc/meminfo")))?;
        let store = &self.jobs.store;
        let has_launcher = !self.jobs.launcher.is_empty();
        let capabilities =
            CAPABILITIES.into_iter().chain((!has_launcher).then_some(WITHOUT_LAUNCHER).into_iter().flatten());
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
            clock_s: machine.clock_s,
            lacks_resolver: machine.lacks_resolver,
        })
    }
}

/// The first message of a call.
///
/// # Errors
/// [`Error::Protocol`] for a message that breaks a rule; [`Error::Gone`] if the stream broke.
async fn first(messages: &mut Streaming<v1::RunRequest>) -> Result<Option<run_request::Message>, Error> {
    let first = messages.message().await.map_err(|status| stream_error(&status))?;
    Ok(first.and_then(|first| first.message))
}

/// Passes a controller's messages to its job until the stream ends, and returns the stream of the job's events.
fn open_session(attachment: Attachment, mut messages: Streaming<v1::RunRequest>) -> Response<SessionStream> {
    let mut requests = attachment.requests();
    runtime::spawn(async move {
        loop {
            let fault = match messages.message().await {
                Ok(None) => return requests.finish(),
                Ok(Some(message)) => match decode_message(message) {
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

/// The events of a job as messages. A job makes an event only when the connection can send it.
struct SessionStream(Attachment);

impl Stream for SessionStream {
    type Item = Result<v1::RunResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next(context).map(|event| event.map(encode_event))
    }
}

/// The buffered output of a job, which is copied piece by piece as the connection sends it: copied at once, it would
/// take the memory of both windows again.
struct BufferedOutput {
    session: Arc<Session>,
    /// The offsets before which each output was sent.
    delivered: [u64; 2],
    /// Where each output ended when the call began.
    ends: [u64; 2],
    /// The stream goes on behind these ends, until the job has ended.
    follows: bool,
    /// The controller knows that it has all output before these ends.
    is_caught_up: bool,
}

impl Stream for BufferedOutput {
    type Item = Result<v1::ReadOutputResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { session, delivered, ends, follows, is_caught_up } = &mut *self;
        if !*is_caught_up && session.has_no_output_between(*delivered, *ends) {
            if !*follows {
                return Poll::Ready(None);
            }
            *is_caught_up = true;
            return Poll::Ready(Some(Ok(v1::ReadOutputResponse { output: None, caught_up: true })));
        }
        session.poll_piece(context, delivered).map(|piece| {
            piece.map(|(stream, offset, data)| {
                let output = encode_output(stream, offset, Payload { data, uncompressed_size: 0 });
                Ok(v1::ReadOutputResponse { output: Some(output), caught_up: false })
            })
        })
    }
}
