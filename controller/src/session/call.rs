//! The stream of one `Run` or `Attach` call, which carries a job while its connection holds.
//!
//! **Invariants:** everything here can be awaited beside other events, so that a stalled link blocks no signal; the agent sees a
//! call that is no longer needed end, not break.

use std::pin::Pin;
use std::time::Duration;

use hop_proto::v1::agent_service_client::AgentServiceClient;
use hop_proto::v1::{Detach, Discard, RunRequest, RunResponse, run_request};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use crate::client::connection::Channel;

/// Messages on their way to the agent. Each is at most a blob chunk, which bounds how far `hop` reads ahead.
const MAX_QUEUED_REQUESTS: usize = 8;

/// How long the last message may wait for its place, and how long the agent may take to end its side after this one.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A call of `Run` or `Attach`.
pub struct JobStream {
    /// To the agent.
    pub requests: RequestSender,
    /// From the agent.
    pub replies: Replies,
}

impl JobStream {
    /// Starts a call whose first message this is: a `spec` or an `attach`.
    pub fn start(client: &AgentServiceClient<Channel>, first: run_request::Message) -> Self {
        let (requests, outgoing) = mpsc::channel(MAX_QUEUED_REQUESTS);
        // The channel is empty, so it has capacity.
        let _ = requests.try_send(request(first));
        let mut client = client.clone();
        let answer = async move { client.run(ReceiverStream::new(outgoing)).await };
        Self { requests: RequestSender(Some(requests)), replies: Replies::Awaited(Box::pin(answer)) }
    }

    /// Tells the agent to discard the job, if the call is still open. Nothing can be sent after that.
    pub async fn discard(&mut self) {
        self.send_last(run_request::Message::Discard(Discard {})).await;
    }

    async fn send_last(&mut self, message: run_request::Message) {
        let is_over = matches!(self.replies, Replies::Over);
        if let Some(requests) = self.requests.0.take().filter(|_| !is_over) {
            // If even this cannot be sent, the agent notices by itself.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, requests.send(request(message))).await;
        }
    }

    /// Detaches from the job, unless the last message was sent already, and waits until the agent has closed its side:
    /// dropping the call earlier resets it, and the reset may overtake the last message.
    /// The job is detached from then on if it `runs_on`.
    pub async fn end(mut self, runs_on: bool) {
        self.send_last(run_request::Message::Detach(Detach { run_on: runs_on })).await;
        let agents_end = async { while let Ok(Some(_)) = self.replies.next().await {} };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, agents_end).await;
    }
}

/// The controller's side of a call; `None` when it has ended.
pub struct RequestSender(Option<mpsc::Sender<RunRequest>>);

impl RequestSender {
    /// Waits for the capacity to send a message. Cancel safe.
    pub async fn reserve(&self) -> SendPermit<'_> {
        if let Some(requests) = &self.0
            && let Ok(permit) = requests.reserve().await
        {
            return SendPermit(permit);
        }
        // The call has ended, which the replies report.
        std::future::pending().await
    }
}

/// Reserved capacity for one message.
pub struct SendPermit<'a>(mpsc::Permit<'a, RunRequest>);

impl SendPermit<'_> {
    /// Sends it.
    pub fn send(self, message: run_request::Message) {
        self.0.send(request(message));
    }
}

fn request(message: run_request::Message) -> RunRequest {
    RunRequest { message: Some(message) }
}

type Answer = Result<Response<Streaming<RunResponse>>, Status>;

/// The agent's side of a call.
pub enum Replies {
    /// It has not answered yet.
    Awaited(Pin<Box<dyn Future<Output = Answer>>>),
    /// It speaks.
    Coming(Box<Streaming<RunResponse>>),
    /// It has ended, well or not.
    Over,
}

impl Replies {
    /// The next message; `None` after the last one. Cancel safe.
    ///
    /// # Errors
    /// The agent refuses, or the connection broke.
    pub async fn next(&mut self) -> Result<Option<RunResponse>, Box<Status>> {
        loop {
            let reply = match self {
                Self::Awaited(answer) => match answer.await {
                    Ok(replies) => {
                        *self = Self::Coming(Box::new(replies.into_inner()));
                        continue;
                    }
                    Err(status) => Err(status),
                },
                Self::Coming(replies) => replies.message().await,
                Self::Over => Ok(None),
            };
            if !matches!(reply, Ok(Some(_))) {
                *self = Self::Over;
            }
            return reply.map_err(Box::new);
        }
    }
}
