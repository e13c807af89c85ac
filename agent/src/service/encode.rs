//! Encodes the events, summaries and outcomes of jobs into the messages of `agent.proto`.

use std::time::Duration;

use hop_proto::identity::Fingerprint;
use hop_proto::limits::STDIN_WINDOW_BYTES;
use hop_proto::v1::outcome::Ending as WireEnding;
use hop_proto::v1::{self, run_response};
use tonic::Status;

use crate::files::outputs::{Info, Position, Problem};
use crate::job::error::Error;
use crate::job::oom_guard::{self, OutOfMemory};
use crate::job::outcome::{Cause, Outcome};
use crate::job::registry::JobSummary;
use crate::job::session::output_buffer::OutputStream;
use crate::job::session::{Event, Payload, Phase, Wait};
use crate::process::child::Ending;
use crate::store::receiver::Need;
use crate::system::resources::{Exhausted, Resource};

pub(super) fn encode_event(event: Event) -> Result<v1::RunResponse, Status> {
    let message = match event {
        Event::Accepted { job, needs, stdin, outputs: [stdout, stderr], signals } => {
            let need = |need: Need| v1::MissingBlob {
                sha256: need.digest.to_vec(),
                offset: need.offset,
                base: need.base.map(Vec::from).unwrap_or_default(),
            };
            run_response::Message::Accepted(v1::Accepted {
                job_id: job,
                missing_blobs: needs.into_iter().map(need).collect(),
                stdin_offset: stdin,
                stdout_offset: stdout,
                stderr_offset: stderr,
                signals,
            })
        }
        Event::Started { has_terminal } => run_response::Message::Started(v1::Started {
            stdin_window: STDIN_WINDOW_BYTES,
            terminal: has_terminal,
        }),
        Event::Output { stream, offset, payload } => {
            run_response::Message::Output(encode_output(stream, offset, payload))
        }
        Event::StdinAck { offset, closed } => {
            run_response::Message::StdinAck(v1::StdinAck { offset, closed })
        }
        Event::SignalAck(number) => run_response::Message::SignalAck(v1::SignalAck { number }),
        Event::File { at, info, problem, payload } => {
            run_response::Message::OutputFile(encode_file_piece(at, info, problem, payload))
        }
        Event::Ended(last) => match &*last {
            Ok(outcome) => run_response::Message::Outcome(encode_outcome(outcome)),
            Err(error) => return Err(error.into()),
        },
        Event::TakenOver => return Err(Error::TakenOver.into()),
    };
    Ok(v1::RunResponse { message: Some(message) })
}

pub(super) fn encode_output(
    stream: OutputStream,
    offset: u64,
    Payload { data, uncompressed_size }: Payload,
) -> v1::Output {
    let stream = match stream {
        OutputStream::Stdout => v1::Stream::Stdout,
        OutputStream::Stderr => v1::Stream::Stderr,
    };
    v1::Output { stream: stream.into(), offset, data, uncompressed_size }
}

fn encode_file_piece(
    Position { file, offset }: Position,
    info: Option<Info>,
    problem: Option<Problem>,
    Payload { data, uncompressed_size }: Payload,
) -> v1::OutputFile {
    let info = info.map(|info| {
        let Info { path, request, size, is_executable, is_core, files } = info;
        v1::FileInfo { path, request, size, executable: is_executable, core: is_core, files }
    });
    let problem = match problem {
        None => v1::FileProblem::Unspecified,
        Some(Problem::NotThere) => v1::FileProblem::NotThere,
        Some(Problem::NotAFile) => v1::FileProblem::NotAFile,
        Some(Problem::TooLarge) => v1::FileProblem::TooLarge,
        Some(Problem::TooMany) => v1::FileProblem::TooMany,
        Some(Problem::Unreadable) => v1::FileProblem::Unreadable,
        Some(Problem::Changed) => v1::FileProblem::Changed,
        Some(Problem::NotOwn) => v1::FileProblem::NotOwn,
        Some(Problem::Hidden) => v1::FileProblem::Hidden,
    };
    v1::OutputFile { file, offset, data, info, problem: problem.into(), uncompressed_size }
}

pub(super) fn encode_job(listed: JobSummary, asking: Fingerprint) -> v1::Job {
    let state = match listed.phase {
        Phase::Admitted | Phase::Receiving => v1::JobState::Receiving,
        Phase::Complete | Phase::Running => v1::JobState::Running,
        Phase::Ended => v1::JobState::Ended,
    };
    v1::Job {
        job_id: listed.job,
        name: listed.name.to_string_lossy().into_owned(),
        state: state.into(),
        age_ms: milliseconds(listed.age),
        attached: listed.is_attached,
        own: listed.owner == asking,
        detached: listed.is_detached,
        unread: listed.unread,
        outcome: listed.final_result.and_then(|last| last.as_ref().as_ref().ok().map(encode_outcome)),
        waits_for: listed.waits_for.map_or(v1::WaitReason::Unspecified, encode_wait).into(),
        has_log: listed.dropped.is_some(),
        dropped: listed.dropped.unwrap_or(0),
    }
}

fn encode_wait(wait: Wait) -> v1::WaitReason {
    match wait {
        Wait::Upload => v1::WaitReason::Upload,
        Wait::Start => v1::WaitReason::Start,
        Wait::Output => v1::WaitReason::Output,
        Wait::Artifacts => v1::WaitReason::Artifacts,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn encode_outcome(outcome: &Outcome) -> v1::Outcome {
    let ran = match outcome {
        Outcome::Ran(ran) => ran,
        Outcome::NotExecuted(reason) => {
            return v1::Outcome {
                ending: Some(WireEnding::NotExecuted(v1::NotExecuted { reason: reason.clone() })),
                cause: v1::Cause::Program.into(),
                ..v1::Outcome::default()
            };
        }
    };
    let shortage = match ran.cause {
        Cause::Memory(OutOfMemory { available, held, of_promises }) => {
            Some(v1::OutOfMemory { available, limit: oom_guard::LIMIT, held, of_promises })
        }
        _ => None,
    };
    let exhausted = match &ran.cause {
        Cause::Exhausted(exhausted) => Some(encode_exhausted(exhausted)),
        _ => None,
    };
    v1::Outcome {
        ending: Some(match &ran.ending {
            Ending::Exited(code) => WireEnding::ExitCode(*code),
            Ending::Signaled { name, core_dumped } => {
                WireEnding::Signaled(v1::Signaled { name: name.clone(), core_dumped: *core_dumped })
            }
        }),
        cause: encode_cause(&ran.cause).into(),
        usage: Some(v1::Usage {
            wall_ms: milliseconds(ran.wall),
            user_ms: milliseconds(ran.usage.user),
            system_ms: milliseconds(ran.usage.system),
            max_rss_bytes: ran.usage.max_rss,
        }),
        stdout_bytes: ran.stdout.bytes,
        stderr_bytes: ran.stderr.bytes,
        output_abandoned: ran.stdout.abandoned || ran.stderr.abandoned,
        orphans: ran.orphans.ended,
        out_of_memory: shortage,
        files_lost: ran.files_lost.as_ref().map_or(v1::Cause::Unspecified, encode_cause).into(),
        exhausted,
        stdin_bytes: ran.stdin,
    }
}

fn encode_exhausted(exhausted: &Exhausted) -> v1::Exhausted {
    let Exhausted { resource, available, limit, held } = exhausted;
    let (resource, place) = match resource {
        Resource::Inodes(place) => (v1::Resource::Inodes, place.display().to_string()),
        Resource::Threads => (v1::Resource::Threads, String::new()),
    };
    v1::Exhausted { resource: resource.into(), available: *available, limit: *limit, held: *held, place }
}

fn encode_cause(cause: &Cause) -> v1::Cause {
    match cause {
        Cause::Program => v1::Cause::Program,
        Cause::ControllerGone => v1::Cause::Abandoned,
        Cause::Timeout => v1::Cause::Timeout,
        Cause::IdleTimeout => v1::Cause::IdleTimeout,
        Cause::Memory(_) => v1::Cause::Memory,
        Cause::Exhausted(_) => v1::Cause::Exhausted,
        Cause::AgentStopped => v1::Cause::AgentStopped,
    }
}
