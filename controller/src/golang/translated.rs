//! What becomes of a call of Go on a router.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::session::Job;
use crate::session::artifacts::Request;
use crate::transfer::inputs::InputArchive;

/// A call translated for a router: its paths are the router's.
#[derive(Debug, Default)]
pub struct Translated {
    /// Arguments of the program.
    pub args: Vec<OsString>,
    /// Its variables.
    pub env: Vec<(OsString, OsString)>,
    /// What it finds.
    pub inputs: Vec<InputArchive>,
    /// Where it starts, below the job's directory.
    pub working_directory: Vec<u8>,
    /// The artifacts to fetch.
    pub outputs: Vec<Request>,
    /// Files of this machine that the program does not find, because they cannot be read.
    pub unreadable: Vec<PathBuf>,
}

impl Translated {
    /// Makes the arguments, variables and files of a job those of this call.
    pub fn apply(self, job: &mut Job) {
        let Self { args, env, inputs, working_directory, outputs, unreadable } = self;
        (job.args, job.working_directory, job.unreadable) = (args, working_directory, unreadable);
        // The user's own options come last, and win.
        job.env.splice(..0, env);
        job.inputs.extend(inputs);
        job.outputs.extend(outputs);
    }
}
