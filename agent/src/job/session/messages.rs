//! What a controller asks of its job, and what the job says to it.

use std::sync::Arc;

use bytes::Bytes;
use rustix::process::Signal;

use crate::error::Error;
use crate::files::outputs::{Info, Position, Problem};
use crate::job::outcome::Outcome;
use crate::job::session::output_buffer::OutputStream;
use crate::process::pty::Size;
use crate::store::receiver::{Chunk, Need};

/// What a controller asks for during a job.
#[derive(Debug)]
pub enum Request {
    /// A piece of the program.
    Chunk(Chunk),
    /// A piece of standard input.
    Stdin {
        /// Where it belongs.
        offset: u64,
        /// What it is.
        data: Bytes,
        /// Nothing follows.
        end: bool,
    },
    /// A signal for the process group.
    Signal {
        /// Counts the signals of the job from 1; 0 is not counted.
        number: u64,
        /// What is sent.
        signal: Signal,
    },
    /// How far an output was passed on.
    Acknowledge {
        /// Which output.
        stream: OutputStream,
        /// Everything before this is done.
        offset: u64,
        /// Nobody reads it any more.
        closed: bool,
    },
    /// The window has another size.
    Resize(Size),
    /// The program may start.
    Start,
    /// It has stored the output files up to there.
    Stored(Position),
    /// It wants nothing more of the job.
    Discard,
    /// It leaves, and may come back.
    Detach,
}

/// What a job says to its controller.
#[derive(Debug)]
pub enum Event {
    /// There is room.
    Accepted {
        /// The job's name.
        job: String,
        /// The blobs to send, in order.
        needs: Vec<Need>,
        /// Where standard input goes on.
        stdin: u64,
        /// Where the outputs go on.
        outputs: [u64; 2],
        /// How many numbered signals are here.
        signals: u64,
    },
    /// The program runs.
    Started {
        /// It has a terminal.
        has_terminal: bool,
    },
    /// A piece of output.
    Output {
        /// Which output.
        stream: OutputStream,
        /// Where it belongs.
        offset: u64,
        /// What it is.
        payload: Payload,
    },
    /// How far the program read.
    StdinAck {
        /// Everything before this is in its pipe.
        offset: u64,
        /// It reads no more.
        closed: bool,
    },
    /// All signals up to the one with this number are here.
    SignalAck(u64),
    /// A piece of an output file.
    File {
        /// Where it belongs.
        at: Position,
        /// What is known of the file, if this was not said on this connection.
        info: Option<Info>,
        /// Nothing more of this file comes.
        problem: Option<Problem>,
        /// What it is.
        payload: Payload,
    },
    /// The last message.
    Ended(FinalResult),
    /// Another connection has the job now.
    TakenOver,
}

/// Content as it goes to the controller.
#[derive(Debug)]
pub struct Payload {
    /// What goes.
    pub data: Bytes,
    /// How long the content is, if it is compressed; 0 if it goes as it is.
    pub uncompressed_size: u32,
}

/// How it all ended, for however many connections ask.
pub type FinalResult = Arc<Result<Outcome, Error>>;

/// What reaches the job itself.
#[derive(Debug)]
pub enum JobCommand {
    /// A piece of the program.
    Chunk(Chunk),
    /// A signal for the process group.
    Signal(Signal),
    /// The window has another size.
    Resize(Size),
    /// The program may start.
    Start,
    /// The controller broke a rule, and cannot be believed any more.
    Fault(Error),
}
