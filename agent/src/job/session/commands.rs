//! The queue of commands from connections to their job.
//!
//! **Invariants:** no chunk of a replaced connection reaches the job; and a connection whose command does not fit into
//! the queue receives nothing more until it does.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::job::session::messages::JobCommand;
use crate::job::session::monitor::Monitor;
use crate::job::session::state::State;

/// Commands in the queue. While it is full, HTTP/2's flow control stops the connection that sends more.
pub(super) const COMMAND_CAPACITY: usize = 1;

/// The receiving end of the queue, which the job has.
pub struct JobCommands {
    pub(super) messages: mpsc::Receiver<Message>,
    pub(super) state: Arc<Monitor<State>>,
}

/// A command, and the connection that it came by; [`NO_CONNECTION`] if the agent itself sent it.
pub(super) struct Message {
    pub(super) connection: u64,
    pub(super) command: JobCommand,
}

/// The number of no connection: connections are counted from 1.
pub(super) const NO_CONNECTION: u64 = 0;

impl JobCommands {
    /// The next command; `None` if the session is gone. Cancel safe.
    ///
    /// A chunk counts only while its connection is the newest. A newer one has learned how much of the program has
    /// arrived, and sends the rest from there: a late chunk of the older one would be received twice.
    pub async fn recv(&mut self) -> Option<JobCommand> {
        loop {
            let Message { connection, command } = self.messages.recv().await?;
            let is_late = connection != self.state.with(|state| state.connection);
            if !(is_late && matches!(command, JobCommand::Chunk(_))) {
                return Some(command);
            }
        }
    }
}
