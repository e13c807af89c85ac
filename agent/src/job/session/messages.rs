//! The messages between a job and its controller: requests of the controller, events of the job, and the commands that
//! reach the job itself.
//!
//! **Invariants:** nothing here knows how a message is encoded.

use std::sync::Arc;

use bytes::Bytes;
use rustix::process::Signal;

use crate::files::outputs::{Info, Position, Problem};
use crate::job::error::Error;
use crate::job::outcome::Outcome;
use crate::job::session::output_buffer::OutputStream;
use crate::process::pty::Size;
use crate::store::receiver::{Chunk, Need};

/// A request of a controller during a job.
#[derive(Debug)]
pub enum Request {
    /// A chunk of a blob.
    Chunk(Chunk),
    /// A piece of standard input.
    Stdin {
        /// The offset of its first byte.
        offset: u64,
        /// Its bytes.
        data: Bytes,
        /// True if the input ends after it.
        end: bool,
    },
    /// A signal for the process group.
    Signal {
        /// The number of the signal, counted from 1; 0 if the controller does not count.
        number: u64,
        /// The signal.
        signal: Signal,
    },
    /// The controller has passed on output.
    Acknowledge {
        /// The output stream.
        stream: OutputStream,
        /// All bytes before this offset were passed on.
        offset: u64,
        /// True if the controller wants no more of it.
        closed: bool,
    },
    /// The terminal window has a new size.
    Resize(Size),
    /// The program may start.
    Start,
    /// The controller has stored the output files up to this position.
    Stored(Position),
    /// The controller wants nothing more of the job.
    Discard,
    /// The controller leaves, and may reattach.
    Detach {
        /// True if the job is detached from now on.
        run_on: bool,
    },
}

/// A message of a job to its controller.
#[derive(Debug)]
pub enum Event {
    /// The agent has accepted the job, or the reattachment to it.
    Accepted {
        /// The job's id.
        job: String,
        /// The blobs to upload, in order.
        needs: Vec<Need>,
        /// The offset at which standard input continues.
        stdin: u64,
        /// The offsets at which standard output and standard error continue.
        outputs: [u64; 2],
        /// How many numbered signals have arrived.
        signals: u64,
    },
    /// The program runs.
    Started {
        /// True if its standard streams are a terminal.
        has_terminal: bool,
    },
    /// A piece of output.
    Output {
        /// The output stream.
        stream: OutputStream,
        /// The offset of its first byte.
        offset: u64,
        /// Its bytes.
        payload: Payload,
    },
    /// The program has taken standard input.
    StdinAck {
        /// All bytes before this offset are in its pipe.
        offset: u64,
        /// True if it reads no more.
        closed: bool,
    },
    /// All signals up to the one with this number have arrived.
    SignalAck(u64),
    /// A piece of an output file.
    File {
        /// The file and the offset of the piece in it.
        at: Position,
        /// The file's metadata, with the first piece of it on this connection.
        info: Option<Info>,
        /// Why nothing more of this file follows, if something failed.
        problem: Option<Problem>,
        /// Its bytes.
        payload: Payload,
    },
    /// The job has ended. This is the last message.
    Ended(FinalResult),
    /// Another connection has the job now.
    TakenOver,
}

/// Content of an event, compressed or not.
#[derive(Debug)]
pub struct Payload {
    /// The bytes to send.
    pub data: Bytes,
    /// The size of the content before compression; 0 if it is not compressed.
    pub uncompressed_size: u32,
}

/// The outcome of a job, or the error that ended it. It is shared by all connections that ask for it.
pub type FinalResult = Arc<Result<Outcome, Error>>;

/// A command to the job itself.
#[derive(Debug)]
pub enum JobCommand {
    /// A chunk of a blob.
    Chunk(Chunk),
    /// A signal for the process group.
    Signal(Signal),
    /// The terminal window has a new size.
    Resize(Size),
    /// The program may start.
    Start,
    /// The controller broke a rule of the protocol, or lost its authorization: the job fails with this error.
    Fault(Error),
}
