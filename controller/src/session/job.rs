//! A job as messages of the protocol: the specification that hop sends, and the outcome that it receives.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use data_encoding::HEXLOWER;
use hop_proto::limits::OUTPUT_WINDOW_BYTES;
use hop_proto::v1::{self, Cause, EnvVar, GetInfoResponse, JobSpec, Limits, OutOfMemory, WindowSize};
use ring::rand::{SecureRandom, SystemRandom};
use xxhash_rust::xxh32::xxh32;

use super::Error;
use super::artifacts::Request;
use super::outcome::{Ending, Exhausted, FilesLost, Outcome, Resource, Usage};
use super::run_queue::RunSlot;
use super::stdin;
use crate::console::printable::printable;
use crate::program::Program;
use crate::transfer::blob::Blob;
use crate::transfer::blob_cache::BlobCache;
use crate::transfer::encode::Decoders;
use crate::transfer::inputs::InputArchive;

/// Random bytes in the id of a job: more than the jobs of a router can meet in.
const ID_BYTES: usize = 8;

/// Bytes in the name of a signal: the longest is RTMIN+15, and one without name is called by its number.
const MAX_SIGNAL_NAME_BYTES: usize = 16;

/// The variable by which Go's runtime learns how much memory it may use.
const GOMEMLIMIT: &str = "GOMEMLIMIT";

/// A job, except for the program itself.
#[derive(Debug, Default)]
pub struct Job {
    /// argv[1] and on.
    pub args: Vec<OsString>,
    /// Added to the environment that the router gives.
    pub env: Vec<(OsString, OsString)>,
    /// Its input archives.
    pub inputs: Vec<InputArchive>,
    /// Where it starts, below the job's directory; empty: there.
    pub working_directory: Vec<u8>,
    /// The placeholder for the job's directory in arguments and variables; empty: none.
    pub workdir_placeholder: &'static str,
    /// The program has one pipe for both outputs, which preserves their order.
    pub merges_outputs: bool,
    /// When to end it.
    pub timeout: Option<Duration>,
    /// When to end it after its last output.
    pub idle_timeout: Option<Duration>,
    /// Time between TERM and KILL when the agent ends it.
    pub grace: Duration,
    /// Its nice value, 0 to 19.
    pub nice: u8,
    /// Whom it runs as on the router; empty: as hopd.
    pub user: String,
    /// How large its terminal is, if it is to have one.
    pub terminal: Option<WindowSize>,
    /// How long it goes on without a connection, and how long to try to have one again; if it is detached, the latter.
    pub reconnect_timeout: Duration,
    /// hop leaves it once it runs.
    pub detached: bool,
    /// Bytes of each output that the router keeps while the job is detached; 0: the program waits for a reader.
    pub log_size: u32,
    /// The data that `hop` sends to its standard input.
    pub input: stdin::Mode,
    /// The artifacts to fetch.
    pub outputs: Vec<Request>,
    /// Where to write its core file, if it leaves one.
    pub core: Option<PathBuf>,
    /// Print each step.
    pub verbose: bool,
}

impl Job {
    /// Limits the memory of Go programs when several run at a time, so that none takes all of it.
    pub fn share_memory(&mut self, slot: &mut RunSlot, info: &GetInfoResponse) {
        let memory = info.memory.unwrap_or_default();
        let spare = memory.available.saturating_sub(memory.reserve);
        let capacity = slot.set_capacity(spare, info.max_jobs);
        if capacity > 1 {
            // The user's variables come last, and win.
            self.env.insert(0, (GOMEMLIMIT.into(), (spare / capacity).to_string().into()));
        }
    }

    /// Bytes of memory that the job takes on the router before its program runs.
    pub fn room(&self, program: &Program) -> u64 {
        program.blob.content.len() as u64 + self.inputs.iter().map(InputArchive::room).sum::<u64>()
    }

    /// Checks that the router has enough memory for the input files now.
    ///
    /// # Errors
    /// [`Error::InputsTooLarge`].
    pub fn check_inputs(&self, router: &str, info: &GetInfoResponse) -> Result<(), Error> {
        let memory = info.memory.unwrap_or_default();
        let kept = info.store.as_ref().map_or(0, |store| store.reclaimable);
        let available = memory.available.saturating_sub(memory.reserve).saturating_add(kept);
        let bytes = self.inputs.iter().map(InputArchive::room).sum();
        if bytes <= available {
            return Ok(());
        }
        let largest = self.inputs.iter().flat_map(|tree| tree.largest.clone()).collect();
        Err(Error::InputsTooLarge { router: router.to_owned(), bytes, available, largest })
    }

    /// The specification that hop sends to the agent.
    pub(super) fn specification(
        &self,
        id: String,
        program: &Program,
        sent: &BlobCache,
        decoders: Decoders,
        hold: bool,
        accept_compressed_output: bool,
    ) -> JobSpec {
        let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let describe = |blob: &Blob| v1::Blob {
            sha256: blob.digest.to_vec(),
            size: blob.content.len() as u64,
            checksum: decoders.checksum.then(|| xxh32(&blob.content, 0)),
        };
        let bases = |blob: &Blob| match decoders.has_delta() {
            true => sent.candidates(blob).iter().map(|digest| digest.to_vec()).collect(),
            false => Vec::new(),
        };
        let input = |tree: &InputArchive| tree.describe(describe(&tree.archive), bases(&tree.archive));
        JobSpec {
            name: program.blob.name.clone(),
            program: Some(describe(&program.blob)),
            inputs: self.inputs.iter().map(input).collect(),
            working_directory: self.working_directory.clone(),
            workdir_placeholder: self.workdir_placeholder.into(),
            merge_stderr: self.merges_outputs,
            wait_for_start: hold,
            accept_compressed_output,
            args: self.args.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
            env: self
                .env
                .iter()
                .map(|(name, value)| EnvVar {
                    name: name.as_bytes().to_vec(),
                    value: value.as_bytes().to_vec(),
                })
                .collect(),
            limits: Some(Limits {
                // 0 means no limit, so a limit below a millisecond is one millisecond.
                timeout_ms: self.timeout.map_or(0, |timeout| milliseconds(timeout).max(1)),
                idle_timeout_ms: self.idle_timeout.map_or(0, |timeout| milliseconds(timeout).max(1)),
                grace_ms: milliseconds(self.grace),
            }),
            output_window: OUTPUT_WINDOW_BYTES,
            job_id: id,
            disconnect_timeout_ms: milliseconds(self.reconnect_timeout),
            nice: self.nice.into(),
            user: self.user.clone(),
            terminal: self.terminal,
            detached: self.detached,
            log_size: self.log_size,
            output_files: self.outputs.iter().map(|request| request.remote.clone()).collect(),
            core: self.core.is_some(),
            bases: bases(&program.blob),
        }
    }
}

/// An id that no other job has.
pub fn new_id() -> Result<String, Error> {
    let mut bytes = [0; ID_BYTES];
    let no_random = |_| Error::NoRandom(hop_proto::identity::Error::NoRandom);
    SystemRandom::new().fill(&mut bytes).map_err(no_random)?;
    Ok(HEXLOWER.encode(&bytes))
}

/// How `job` ended; `None` if that is not said, or not in the protocol's words. Its files are not in it.
pub fn read_outcome(job: String, outcome: v1::Outcome) -> Option<Outcome> {
    let cause = outcome.cause();
    let files_lost = match outcome.files_lost() {
        Cause::Unspecified => None,
        Cause::Memory => Some(FilesLost::Memory),
        Cause::Exhausted => Some(FilesLost::Inodes),
        Cause::AgentStopped => Some(FilesLost::AgentStopped),
        _ => Some(FilesLost::Abandoned),
    };
    let ending = match (outcome.ending?, cause) {
        (v1::outcome::Ending::NotExecuted(refused), _) => {
            Ending::NotExecuted { why: printable(&refused.reason).into_owned() }
        }
        (_, Cause::Timeout) => Ending::TimedOut,
        (_, Cause::IdleTimeout) => Ending::Idle,
        (_, Cause::Memory) => {
            let OutOfMemory { available, limit, held, of_promises } =
                outcome.out_of_memory.unwrap_or_default();
            Ending::OutOfMemory { available, limit, held, of_promises }
        }
        (_, Cause::Exhausted) => Ending::Exhausted(read_exhausted(outcome.exhausted.unwrap_or_default())),
        (_, Cause::AgentStopped) => Ending::AgentStopped,
        (_, Cause::Abandoned) => Ending::Abandoned,
        (v1::outcome::Ending::ExitCode(code), _) => Ending::Exited(u8::try_from(code).ok()?),
        (v1::outcome::Ending::Signaled(signal), _) if is_signal_name(&signal.name) => {
            Ending::Signaled { name: signal.name, core_dumped: signal.core_dumped }
        }
        (v1::outcome::Ending::Signaled(_), _) => return None,
    };
    let usage = outcome.usage.map(|usage| Usage {
        wall_ms: usage.wall_ms,
        user_ms: usage.user_ms,
        system_ms: usage.system_ms,
        max_rss_bytes: usage.max_rss_bytes,
        stdout_bytes: outcome.stdout_bytes,
        stderr_bytes: outcome.stderr_bytes,
    });
    let (orphans, output_abandoned) = (outcome.orphans, outcome.output_abandoned);
    Some(Outcome { job, ending, usage, orphans, output_abandoned, files: Vec::new(), files_lost })
}

fn read_exhausted(exhausted: v1::Exhausted) -> Exhausted {
    let resource = match exhausted.resource() {
        v1::Resource::Inodes => Resource::Inodes,
        v1::Resource::Threads => Resource::Threads,
        v1::Resource::Unspecified => Resource::Other,
    };
    let v1::Exhausted { available, limit, held, place, .. } = exhausted;
    Exhausted { resource, available, limit, held, place }
}

/// True for a valid name of a signal: an agent names signals that it does not know by their number.
fn is_signal_name(name: &str) -> bool {
    let is_plain =
        |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b'+' | b'-');
    (1..=MAX_SIGNAL_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hop_proto::limits::MAX_JOB_ID_BYTES;

    use std::path::Path;

    use super::*;
    use crate::transfer::inputs::Files;

    #[test]
    fn too_large_inputs_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, vec![7; 1 << 20]).unwrap();
        let mut files = Files::default();
        files.add(Path::new("testdata/file"), &file).unwrap();
        let inputs = vec![files.pack("x".into(), "module").unwrap()];
        let job = Job { inputs, ..Job::default() };
        let info = |available| GetInfoResponse {
            memory: Some(v1::Memory {
                total: 64 << 20,
                available,
                reserve: 8 << 20,
                bound_by_promises: false,
            }),
            ..GetInfoResponse::default()
        };
        assert!(job.check_inputs("desk", &info(11 << 20)).is_ok());
        // Packed and unpacked.
        let error = job.check_inputs("desk", &info(9 << 20)).unwrap_err().to_string();
        assert!(error.contains("and 1.0 MiB are available; the largest: testdata/file (1.0 MiB)"), "{error}");
    }

    #[test]
    fn job_ids_are_valid_and_unique() {
        let id = new_id().unwrap();
        assert!(id.len() <= MAX_JOB_ID_BYTES && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert_eq!(id, id.to_lowercase());
        assert_ne!(id, new_id().unwrap());
    }

    #[test]
    fn outcome_strings_are_checked() {
        let signaled = |name: &str| {
            let ending =
                v1::outcome::Ending::Signaled(v1::Signaled { name: name.into(), core_dumped: false });
            read_outcome("1".into(), v1::Outcome { ending: Some(ending), ..v1::Outcome::default() })
        };
        for name in ["KILL", "SIG33", "RTMIN+1"] {
            assert!(signaled(name).is_some(), "{name}");
        }
        for name in ["", "\u{1b}[2J", "KILL\n", "A VERY LONG ONE THAT NO SIGNAL HAS"] {
            assert!(signaled(name).is_none(), "{name:?}");
        }
        let reason = "\u{1b}[2Jno\n".to_owned();
        let ending = Some(v1::outcome::Ending::NotExecuted(v1::NotExecuted { reason }));
        let outcome = read_outcome("1".into(), v1::Outcome { ending, ..v1::Outcome::default() }).unwrap();
        assert_eq!(outcome.ending, Ending::NotExecuted { why: "\\u{1b}[2Jno\\n".into() });
    }
}
