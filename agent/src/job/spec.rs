//! What to run, as the controller asked for it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::files::inputs::InputArchive;
use crate::job::error::Error;
use crate::process::pty::Size;
use crate::process::user::User;
use crate::store::receiver::BlobDescriptor;

/// What to run.
#[derive(Debug)]
pub struct Spec {
    /// The job's name, if the controller has chosen it.
    pub id: Option<String>,
    /// File name of the program.
    pub name: OsString,
    /// The program.
    pub program: BlobDescriptor,
    /// What it finds when it starts.
    pub inputs: Vec<InputArchive>,
    /// Where it starts, below the job's directory; empty for that itself.
    pub working_directory: PathBuf,
    /// argv[1] and on.
    pub args: Vec<OsString>,
    /// Added to the environment that every program gets.
    pub env: Vec<(OsString, OsString)>,
    /// What stands for the job's directory in them; empty: nothing.
    pub workdir_placeholder: Vec<u8>,
    /// It waits, when it is here, until the controller says to start.
    pub hold: bool,
    /// When to end it.
    pub timeout: Option<Duration>,
    /// When to end it after its last output.
    pub idle_timeout: Option<Duration>,
    /// Time between TERM and KILL.
    pub grace: Duration,
    /// Its nice value, 0 to 19.
    pub nice: u8,
    /// Whom it runs as, if not as the agent does.
    pub user: Option<User>,
    /// Its two outputs are one pipe.
    pub merges_outputs: bool,
    /// How large its terminal is, if it is to have one instead of its pipes.
    pub terminal: Option<Size>,
    /// How long the job goes on without a controller; `None`: until it ends by itself, and without standard input.
    pub linger: Option<Duration>,
    /// Bytes of each output that may be unacknowledged.
    pub output_window: u64,
    /// What to bring back: paths below the working directory, by the rules of `hop_proto::output_path`.
    pub output_files: Vec<Vec<u8>>,
    /// Bring back its core, too, if it leaves one.
    pub core: bool,
}

#[cfg(test)]
impl Spec {
    /// Runs `content` without a limit, as long as its controller is there.
    pub fn of_test(content: &[u8]) -> Self {
        Self {
            id: None,
            name: "program".into(),
            program: BlobDescriptor::of_test(content),
            inputs: Vec::new(),
            working_directory: PathBuf::new(),
            args: Vec::new(),
            env: Vec::new(),
            workdir_placeholder: Vec::new(),
            hold: false,
            timeout: None,
            idle_timeout: None,
            grace: Duration::ZERO,
            nice: 0,
            user: None,
            merges_outputs: false,
            terminal: None,
            linger: Some(Duration::ZERO),
            output_window: 1024,
            output_files: Vec::new(),
            core: false,
        }
    }
}

/// The signal with this name.
///
/// # Errors
/// [`Error::Protocol`] for a name that may not be sent.
pub fn signal(name: &str) -> Result<Signal, Error> {
    hop_proto::signal::sendable(name).ok_or(Error::Protocol("a signal that may not be sent"))
}
