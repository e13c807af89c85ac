//! A router that lies: its key is pinned and its TLS is Hop's, and what it says is what a test wants it to say.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use bytes::{Buf, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use hop::config::home::Home;
use hop::config::inventory::{Entry, Inventory, Router};
use hop_proto::identity::{Fingerprint, Identity};
use hop_proto::tls::{self, Authorized};
use hop_proto::v1::{
    Accepted, ErrorDetail, GetInfoResponse, Job, ListJobsResponse, Outcome, RunRequest, RunResponse, Started,
    Target as WireTarget, outcome, run_request, run_response,
};
use hop_tests::{Hop, Target};
use http::{HeaderMap, Request, Response};
use prost::Message;
use rustls::crypto::ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Status};

/// A program of this machine that is there and small. It is never run.
const PROGRAM: &str = "/bin/true";

/// Bytes in front of a message: whether it is compressed, and its length (gRPC over HTTP/2, Length-Prefixed-Message).
const PREFIX_BYTES: usize = 5;

/// What the router does with a call about a job.
type Script = Rc<dyn Fn(Call) -> Answer>;
type Answer = Pin<Box<dyn Future<Output = ()>>>;

/// What it says of itself and its jobs.
#[derive(Clone, Default)]
pub struct Said {
    pub info: GetInfoResponse,
    pub jobs: Vec<Job>,
}

/// The router, and a home in which it is enrolled as `router`.
pub struct LyingRouter {
    pub directory: TempDir,
}

impl LyingRouter {
    /// One that does this with a job, and is honest otherwise.
    pub fn start<F: Future<Output = ()> + 'static>(script: impl Fn(Call) -> F + Send + 'static) -> Self {
        Self::start_saying(Said::default(), script)
    }

    /// One that also lies of itself.
    pub fn start_saying<F: Future<Output = ()> + 'static>(
        said: Said,
        script: impl Fn(Call) -> F + Send + 'static,
    ) -> Self {
        let directory = TempDir::new().unwrap();
        let home = Home::at(&directory.path().join("home"));
        let controller = home.identity().unwrap().fingerprint();
        let identity = Identity::load_or_create(&directory.path().join("key")).unwrap();
        let fingerprint = identity.fingerprint();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        // It ends with the test's process.
        thread::spawn(move || {
            let script: Script = Rc::new(move |call: Call| -> Answer { Box::pin(script(call)) });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let serving = serve(listener, identity, Only(controller), honest(said), script);
            LocalSet::new().block_on(&runtime, serving);
        });
        let entry = Entry {
            address: address.to_string(),
            fingerprint,
            goarch: Target::Host.goarch().into(),
            enrolment: None,
            process: None,
        };
        Inventory::new(&home).put(&Router { name: "router".into(), entry }).unwrap();
        Self { directory }
    }

    /// `hop`, which takes it for a router.
    pub fn hop(&self) -> Hop {
        Hop::at(&self.directory.path().join("home"))
    }

    /// `hop exec` of a program, with these options.
    pub fn exec(&self, options: &[&str]) -> Hop {
        self.hop().args(["exec", "-r", "router"]).args(options).arg(PROGRAM)
    }
}

/// Fills in what `hop` must know to send a job there.
fn honest(mut said: Said) -> Said {
    let elf_machine = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    let capabilities = [
        "run",
        "attach",
        "outputs",
        "core",
        "terminal",
        "inputs",
        "merge_stderr",
        "wait_for_start",
        "compress_output",
    ];
    said.info.target = Some(WireTarget { elf_class: 2, elf_data: 1, elf_machine });
    said.info.capabilities = capabilities.map(str::to_owned).to_vec();
    said
}

#[derive(Debug)]
struct Only(Fingerprint);

impl Authorized for Only {
    fn is_authorized(&self, fingerprint: &Fingerprint) -> bool {
        *fingerprint == self.0
    }
}

async fn serve(
    listener: std::net::TcpListener,
    identity: Identity,
    controller: Only,
    said: Said,
    script: Script,
) {
    let config = tls::server_config(&identity, Arc::new(controller), TLS13_CHACHA20_POLY1305_SHA256).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        spawn_local(connection(acceptor.clone(), stream, said.clone(), script.clone()));
    }
}

/// One connection, until the controller has had enough.
async fn connection(acceptor: TlsAcceptor, stream: TcpStream, said: Said, script: Script) -> Option<()> {
    let stream = acceptor.accept(stream).await.ok()?;
    let mut connection = h2::server::handshake(stream).await.ok()?;
    loop {
        let (request, respond) = connection.accept().await?.ok()?;
        let path = request.uri().path().to_owned();
        let call = Call::answer(request, respond)?;
        match path.as_str() {
            "/hop.v1.AgentService/GetInfo" => call.only(&said.info),
            "/hop.v1.AgentService/ListJobs" => call.only(&ListJobsResponse { jobs: said.jobs.clone() }),
            _ => _ = spawn_local(script(call)),
        }
    }
}

/// A call of the controller's that the router has begun to answer.
pub struct Call {
    requests: RecvStream,
    received: BytesMut,
    heard: VecDeque<RunRequest>,
    replies: SendStream<Bytes>,
}

impl Call {
    fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Option<Self> {
        let headers = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let replies = respond.send_response(headers, false).ok()?;
        let (received, heard) = Default::default();
        Some(Self { requests: request.into_body(), received, heard, replies })
    }

    /// Sends a message and nothing else.
    fn only(mut self, message: &impl Message) {
        self.say_raw(message);
        self.end();
    }

    /// Sends any message. What the controller's window does not let through waits here.
    pub fn say_raw(&mut self, message: &impl Message) {
        let mut framed = vec![0; PREFIX_BYTES];
        message.encode(&mut framed).unwrap();
        let length = u32::try_from(framed.len() - PREFIX_BYTES).unwrap();
        framed[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
        // The controller may have hung up, which a test sees on its side.
        let _ = self.replies.send_data(framed.into(), false);
    }

    /// Sends what an agent says of a job.
    pub fn say(&mut self, message: run_response::Message) {
        self.say_raw(&RunResponse { message: Some(message) });
    }

    /// The next message of the controller; `None` at the end of its side.
    pub async fn next(&mut self) -> Option<run_request::Message> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return heard.message;
            }
            let data = self.requests.data().await?.ok()?;
            self.requests.flow_control().release_capacity(data.len()).unwrap();
            self.received.extend_from_slice(&data);
            while let Some(length) = self.received.get(1..PREFIX_BYTES) {
                let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
                if self.received.len() < PREFIX_BYTES + length {
                    break;
                }
                self.received.advance(PREFIX_BYTES);
                self.heard.push_back(RunRequest::decode(self.received.split_to(length)).unwrap());
            }
        }
    }

    /// Reads the request of a job, and accepts it with no blobs missing. Returns the id of the job.
    pub async fn accept(&mut self) -> String {
        let job_id = match self.next().await.unwrap() {
            run_request::Message::Spec(spec) => spec.job_id,
            run_request::Message::Attach(attach) => attach.job_id,
            other => panic!("{other:?}"),
        };
        let accepted = Accepted { job_id: job_id.clone(), ..Accepted::default() };
        self.say(run_response::Message::Accepted(accepted));
        job_id
    }

    /// Accepts a job, and says that its program runs.
    pub async fn run(&mut self) {
        self.accept().await;
        self.say(run_response::Message::Started(Started { stdin_window: 65_536, terminal: false }));
    }

    /// Waits until the controller has hung up, or has said that it wants nothing more.
    pub async fn wait_for_the_end(&mut self) {
        while !matches!(self.next().await, None | Some(run_request::Message::Discard(_))) {}
    }

    /// Says that the program has ended well, and ends the call.
    pub fn exit(mut self) {
        let ending = Some(outcome::Ending::ExitCode(0));
        self.say(run_response::Message::Outcome(Outcome { ending, ..Outcome::default() }));
        self.end();
    }

    /// Ends the call.
    pub fn end(self) {
        self.end_with(&Status::ok(""));
    }

    /// Ends the call as an agent does that refuses something.
    pub fn refuse(self, detail: &ErrorDetail, message: &str) {
        let detail = prost_types::Any {
            type_url: "type.googleapis.com/hop.v1.ErrorDetail".to_owned(),
            value: detail.encode_to_vec(),
        };
        let code = Code::Aborted.into();
        let rich = tonic_types::Status { code, message: message.to_owned(), details: vec![detail] };
        self.end_with(&Status::with_details(Code::Aborted, message, rich.encode_to_vec().into()));
    }

    fn end_with(mut self, status: &Status) {
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).unwrap();
        let _ = self.replies.send_trailers(trailers);
    }
}
