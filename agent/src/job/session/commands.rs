//! The way to the job itself.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::job::session::messages::JobCommand;
use crate::job::session::monitor::Monitor;
use crate::job::session::state::State;

/// Messages on their way to the job. One that is not heard holds the connection back, by HTTP/2's own means.
pub(super) const COMMAND_CAPACITY: usize = 1;

/// Where it reaches the job.
pub struct JobCommands {
    pub(super) messages: mpsc::Receiver<Message>,
    pub(super) state: Arc<Monitor<State>>,
}

/// What is on its way to the job, and by which connection it came; by [`NO_CONNECTION`] what came by none.
pub(super) struct Message {
    pub(super) connection: u64,
    pub(super) command: JobCommand,
}

/// Connections are counted from 1.
pub(super) const NO_CONNECTION: u64 = 0;

impl JobCommands {
    /// The next message; `None` if there is no session any more. Cancel safe.
    ///
    /// A piece of the program counts only while its connection is the newest. A newer one was told how much of the program
    /// is here, and sends the rest from there: with what was still on its way it would be here twice.
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
