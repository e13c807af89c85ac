//! The specification of a job, as its controller requested it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::files::inputs::InputArchive;
use crate::job::error::Error;
use crate::process::pty::Size;
use crate::process::user::User;
use crate::store::receiver::BlobDescriptor;

/// The specification of a job.
#[derive(Debug)]
pub struct Spec {
    /// The job's id, if the controller has chosen one.
    pub id: Option<String>,
    /// File name of the program.
    pub name: OsString,
    /// The program.
    pub program: BlobDescriptor,
    /// Its input files.
    pub inputs: Vec<InputArchive>,
    /// Its working directory, below the job's directory; empty for that directory itself.
    pub working_directory: PathBuf,
    /// Its arguments, from argv[1] on.
    pub args: Vec<OsString>,
    /// Variables in addition to those that every program gets.
    pub env: Vec<(OsString, OsString)>,
    /// The placeholder for the job's directory in arguments and variables; empty if there is none.
    pub workdir_placeholder: Vec<u8>,
    /// When all blobs are there, wait for the controller's `Start`.
    pub hold: bool,
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// How long it may write nothing.
    pub idle_timeout: Option<Duration>,
    /// Time between TERM and KILL.
    pub grace: Duration,
    /// Its nice value, 0 to 19.
    pub nice: u8,
    /// The user as whom it runs, if not as the agent's own.
    pub user: Option<User>,
    /// Its two outputs share one pipe.
    pub merges_outputs: bool,
    /// The size of its terminal, if it gets one instead of pipes.
    pub terminal: Option<Size>,
    /// How long the job continues without a controller. `None`: until it ends by itself, and without standard input.
    pub linger: Option<Duration>,
    /// Bytes of each output that may be unacknowledged.
    pub output_window: u64,
    /// Bytes of each output that a log keeps when the job is detached; 0 for none.
    pub log_size: usize,
    /// The artifacts to offer: paths below the working directory, by the rules of `hop_proto::output_path`.
    pub output_files: Vec<Vec<u8>>,
    /// Offer its core dump too, if there is one.
    pub core: bool,
}

#[cfg(test)]
impl Spec {
    /// Runs `content` without limits, as long as its controller is connected.
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
            log_size: 0,
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
