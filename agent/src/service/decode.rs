//! Decodes the messages of `agent.proto` into the agent's own types.
//!
//! **Invariants:** a decoded message obeys every rule of `agent.proto` that can be checked without the state of a job;
//! anything else is an [`Error::Protocol`] that names the rule.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use hop_proto::limits::{
    MAX_BASES, MAX_BLOB_CHUNK_BYTES, MAX_GRACE_MS, MAX_INPUT_TREES, MAX_JOB_ID_BYTES, MAX_LINGER_MS,
    MAX_LOG_BYTES, MAX_MARK_BYTES, MAX_NAME_BYTES, MAX_OUTPUT_REQUESTS, MAX_OUTPUT_WINDOW_BYTES,
    MIN_MARK_BYTES,
};
use hop_proto::v1::{self, run_request};
use hop_proto::{output_path, program_name};

use crate::files::inputs::InputArchive;
use crate::files::outputs::Position;
use crate::job::environment::JOB_DIRECTORY;
use crate::job::error::Error;
use crate::job::session;
use crate::job::session::output_buffer::OutputStream;
use crate::job::spec::{Spec, signal};
use crate::process::pty::Size;
use crate::process::user::User;
use crate::store::blob::Digest;
use crate::store::decoder::Encoding;
use crate::store::receiver::{BlobDescriptor, Chunk};

/// The largest nice value (setpriority(2)).
const MAX_NICE: u8 = 19;
const NOT_NICE: Error = Error::Protocol("a nice value is at most 19");

/// Decodes the specification of a job.
///
/// # Errors
/// [`Error::Protocol`] with the rule.
pub fn decode_spec(spec: v1::JobSpec) -> Result<Spec, Error> {
    let program = decode_blob(spec.program, &spec.bases)?;
    if !program_name::is_valid(&spec.name) {
        return Err(Error::Protocol(
            "the name of the program is not a file name of at most 64 bytes without control characters",
        ));
    }
    if !(1..=MAX_OUTPUT_WINDOW_BYTES).contains(&spec.output_window) {
        return Err(Error::Protocol("the output window is not between 1 byte and 1 MiB"));
    }
    if spec.log_size > MAX_LOG_BYTES {
        return Err(Error::Protocol("the log is larger than 1 MiB"));
    }
    let limits = spec.limits.unwrap_or_default();
    if limits.grace_ms > MAX_GRACE_MS {
        return Err(Error::Protocol("the grace is longer than a minute"));
    }
    let is_id = |id: &str| id.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    if spec.job_id.len() > MAX_JOB_ID_BYTES || !is_id(&spec.job_id) {
        return Err(Error::Protocol("the id of a job is at most 32 digits and lower-case letters"));
    }
    if spec.disconnect_timeout_ms > MAX_LINGER_MS {
        return Err(Error::Protocol("the disconnect timeout is longer than a day"));
    }
    if spec.output_files.len() > MAX_OUTPUT_REQUESTS {
        return Err(Error::Protocol("more than 64 paths of output files"));
    }
    if !spec.output_files.iter().all(|path| output_path::is_valid(path)) {
        return Err(Error::Protocol(
            "the path of an output file does not stay below the program's directory",
        ));
    }
    if !spec.working_directory.is_empty() && !output_path::is_valid(&spec.working_directory) {
        return Err(Error::Protocol("the program is to start outside the job's directory"));
    }
    let mark = spec.workdir_placeholder.len();
    if mark > 0 && !(MIN_MARK_BYTES..=MAX_MARK_BYTES).contains(&mark) {
        return Err(Error::Protocol("the placeholder of the job's directory is not 16 to 64 bytes long"));
    }
    if spec.user.len() > MAX_NAME_BYTES {
        return Err(Error::Protocol("the name of a user is longer than 64 bytes"));
    }
    let args = spec.args.into_iter().map(decode_os_string).collect::<Result<_, _>>()?;
    Ok(Spec {
        id: (!spec.job_id.is_empty()).then_some(spec.job_id),
        name: spec.name.into(),
        program,
        inputs: decode_inputs(spec.inputs)?,
        working_directory: OsString::from_vec(spec.working_directory).into(),
        args,
        env: spec.env.into_iter().map(decode_variable).collect::<Result<_, _>>()?,
        workdir_placeholder: spec.workdir_placeholder,
        hold: spec.wait_for_start,
        merges_outputs: spec.merge_stderr,
        timeout: (limits.timeout_ms > 0).then(|| Duration::from_millis(limits.timeout_ms)),
        idle_timeout: (limits.idle_timeout_ms > 0).then(|| Duration::from_millis(limits.idle_timeout_ms)),
        grace: Duration::from_millis(limits.grace_ms),
        nice: u8::try_from(spec.nice).ok().filter(|nice| *nice <= MAX_NICE).ok_or(NOT_NICE)?,
        user: if spec.user.is_empty() { None } else { Some(User::find(&spec.user)?) },
        terminal: spec.terminal.map(decode_size).transpose()?,
        linger: (!spec.detached).then(|| Duration::from_millis(spec.disconnect_timeout_ms)),
        output_window: spec.output_window.into(),
        log_size: spec.log_size as usize,
        output_files: spec.output_files,
        core: spec.core,
    })
}

/// Decodes the descriptor of a blob that the controller will upload, or that is in the cache.
fn decode_blob(blob: Option<v1::Blob>, bases: &[Vec<u8>]) -> Result<BlobDescriptor, Error> {
    let blob = blob.ok_or(Error::Protocol("a job without a program, or input files without an archive"))?;
    if blob.size == 0 {
        return Err(Error::Protocol("a program or an archive without content"));
    }
    if bases.len() > MAX_BASES {
        return Err(Error::Protocol("more than 16 bases for a delta"));
    }
    Ok(BlobDescriptor {
        digest: decode_digest(&blob.sha256)?,
        size: blob.size,
        checksum: blob.checksum,
        bases: bases.iter().map(|base| decode_digest(base)).collect::<Result<_, _>>()?,
    })
}

fn decode_inputs(trees: Vec<v1::InputArchive>) -> Result<Vec<InputArchive>, Error> {
    if trees.len() > MAX_INPUT_TREES {
        return Err(Error::Protocol("more than 4 trees of input files"));
    }
    let mut inputs: Vec<InputArchive> = Vec::new();
    for v1::InputArchive { archive, directory, size, bases, entries, aside } in trees {
        let is_name = output_path::names(&directory).len() == 1;
        // Nothing is there that the first one could overwrite, and no link that it could write through.
        let is_place = is_name || directory == output_path::ALL && !aside && inputs.is_empty();
        if !is_place
            || !output_path::is_valid(&directory)
            || inputs.iter().any(|other| (&other.directory, other.is_aside) == (&directory, aside))
        {
            return Err(Error::Protocol("input files without a directory of their own"));
        }
        // No router has memory for more, and sums must not overflow.
        if size > u32::MAX.into() {
            return Err(Error::Protocol("input files of more than 4 GiB"));
        }
        let archive = decode_blob(archive, &bases)?;
        inputs.push(InputArchive { archive, directory, is_aside: aside, size, entries });
    }
    Ok(inputs)
}

fn decode_digest(bytes: &[u8]) -> Result<Digest, Error> {
    bytes.try_into().map_err(|_| Error::Protocol("a digest has 32 bytes"))
}

fn decode_os_string(bytes: Vec<u8>) -> Result<OsString, Error> {
    if bytes.contains(&0) {
        return Err(Error::Protocol("an argument or variable with a zero byte"));
    }
    Ok(OsString::from_vec(bytes))
}

fn decode_variable(variable: v1::EnvVar) -> Result<(OsString, OsString), Error> {
    if variable.name.is_empty() || variable.name.contains(&b'=') {
        return Err(Error::Protocol("a variable without a name, or with '=' in it"));
    }
    // The next agent finds the processes that this one has left running by this variable, so a program must not hide
    // it.
    if variable.name == JOB_DIRECTORY.as_bytes() {
        return Err(Error::Protocol("the variable HOP_JOB_DIR is the agent's to set"));
    }
    Ok((decode_os_string(variable.name)?, decode_os_string(variable.value)?))
}

fn decode_size(size: v1::WindowSize) -> Result<Size, Error> {
    let read = |count: u32| u16::try_from(count).map_err(|_| Error::Protocol("a window that is too large"));
    Ok(Size { rows: read(size.rows)?, columns: read(size.columns)? })
}

pub(super) fn decode_position(position: v1::FilePosition) -> Position {
    Position { file: position.file, offset: position.offset }
}

/// Decodes a message after the first of a call.
///
/// # Errors
/// [`Error::Protocol`] with the rule.
pub fn decode_message(request: v1::RunRequest) -> Result<session::Request, Error> {
    Ok(match request.message {
        Some(run_request::Message::Blob(chunk)) => session::Request::Chunk(decode_chunk(chunk)?),
        Some(run_request::Message::Stdin(v1::Stdin { offset, data, end })) => {
            session::Request::Stdin { offset, data, end }
        }
        Some(run_request::Message::Signal(v1::Signal { name, number })) => {
            session::Request::Signal { number, signal: signal(&name)? }
        }
        Some(run_request::Message::OutputAck(ack)) => {
            let stream = match ack.stream() {
                v1::Stream::Stdout => OutputStream::Stdout,
                v1::Stream::Stderr => OutputStream::Stderr,
                v1::Stream::Unspecified => return Err(Error::Protocol("invalid value for OutputAck.stream")),
            };
            session::Request::Acknowledge { stream, offset: ack.offset, closed: ack.closed }
        }
        Some(run_request::Message::WindowSize(size)) => session::Request::Resize(decode_size(size)?),
        Some(run_request::Message::FileAck(position)) => session::Request::Stored(decode_position(position)),
        Some(run_request::Message::Start(v1::Start {})) => session::Request::Start,
        Some(run_request::Message::Discard(v1::Discard {})) => session::Request::Discard,
        Some(run_request::Message::Detach(v1::Detach { run_on })) => session::Request::Detach { run_on },
        Some(run_request::Message::Spec(_)) => return Err(Error::Protocol("a second specification")),
        Some(run_request::Message::Attach(_)) => return Err(Error::Protocol("a second attachment")),
        None => return Err(Error::Protocol("a message that this agent does not know")),
    })
}

fn decode_chunk(chunk: v1::BlobChunk) -> Result<Chunk, Error> {
    let encoding = match v1::Encoding::try_from(chunk.encoding) {
        Ok(v1::Encoding::Unspecified) => None,
        Ok(v1::Encoding::Identity) => Some(Encoding::Identity),
        Ok(v1::Encoding::Zstd) => Some(Encoding::Zstd),
        Ok(v1::Encoding::Lz4) => Some(Encoding::Lz4),
        Ok(v1::Encoding::Delta) => Some(Encoding::Delta),
        Ok(v1::Encoding::RelocatedDelta) => Some(Encoding::RelocatedDelta),
        Err(_) => return Err(Error::Protocol("an encoding that this agent does not know")),
    };
    if chunk.data.len() > MAX_BLOB_CHUNK_BYTES {
        return Err(Error::Protocol("a blob chunk is larger than 60 KiB"));
    }
    Ok(Chunk { offset: chunk.offset, encoding, data: chunk.data })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn spec() -> v1::JobSpec {
        v1::JobSpec {
            name: "hello".into(),
            program: Some(v1::Blob { sha256: vec![7; 32], size: 1, checksum: None }),
            output_window: 1,
            ..v1::JobSpec::default()
        }
    }

    fn tree() -> v1::InputArchive {
        let archive = Some(v1::Blob { sha256: vec![8; 32], size: 1, checksum: None });
        v1::InputArchive { archive, directory: b"src".to_vec(), size: 1, ..v1::InputArchive::default() }
    }

    #[test]
    fn specifications_that_break_rules_are_refused() {
        assert!(decode_spec(spec()).is_ok());
        assert!(decode_spec(v1::JobSpec { inputs: vec![tree()], ..spec() }).is_ok());
        let here = || v1::InputArchive { directory: b".".to_vec(), ..tree() };
        let aside = || v1::InputArchive { aside: true, ..tree() };
        assert!(decode_spec(v1::JobSpec { inputs: vec![here(), tree(), aside()], ..spec() }).is_ok());
        for inputs in [
            vec![tree(), here()],
            vec![v1::InputArchive { aside: true, ..here() }],
            vec![aside(), aside()],
            vec![v1::InputArchive { directory: b"..".to_vec(), ..aside() }],
        ] {
            assert!(decode_spec(v1::JobSpec { inputs, ..spec() }).is_err());
        }
        let broken: [fn(&mut v1::JobSpec); 29] = [
            |spec| spec.user = "x".repeat(65),
            |spec| spec.output_files = vec![b"results/../../x".to_vec()],
            |spec| spec.output_files = vec![b"x".to_vec(); MAX_OUTPUT_REQUESTS + 1],
            |spec| spec.working_directory = b"/etc".to_vec(),
            |spec| spec.working_directory = b"src/..".to_vec(),
            |spec| spec.workdir_placeholder = vec![b'x'; MAX_MARK_BYTES + 1],
            |spec| spec.workdir_placeholder = vec![b'x'; MIN_MARK_BYTES - 1],
            |spec| spec.inputs = vec![v1::InputArchive { directory: b"a/b".to_vec(), ..tree() }],
            |spec| spec.inputs = vec![tree(), tree()],
            |spec| spec.inputs = vec![v1::InputArchive { archive: None, ..tree() }],
            |spec| spec.terminal = Some(v1::WindowSize { rows: 1, columns: 65_536 }),
            |spec| spec.nice = 20,
            |spec| spec.job_id = "../../etc".into(),
            |spec| spec.job_id = "7".repeat(33),
            |spec| spec.disconnect_timeout_ms = MAX_LINGER_MS + 1,
            |spec| spec.program = None,
            |spec| spec.program.as_mut().unwrap().size = 0,
            |spec| spec.program.as_mut().unwrap().sha256.truncate(31),
            |spec| spec.name = String::new(),
            |spec| spec.name = "..".into(),
            |spec| spec.name = "a/b".into(),
            |spec| spec.name = "x".repeat(65),
            |spec| spec.output_window = 0,
            |spec| spec.output_window = u32::MAX,
            |spec| spec.log_size = MAX_LOG_BYTES + 1,
            |spec| spec.args = vec![b"a\0b".to_vec()],
            |spec| spec.env = vec![v1::EnvVar { name: b"A=B".to_vec(), value: vec![] }],
            |spec| spec.env = vec![v1::EnvVar { name: b"HOP_JOB_DIR".to_vec(), value: vec![] }],
            |spec| spec.limits = Some(v1::Limits { grace_ms: MAX_GRACE_MS + 1, ..v1::Limits::default() }),
        ];
        for (index, breaks) in broken.iter().enumerate() {
            let mut spec = spec();
            breaks(&mut spec);
            assert!(matches!(decode_spec(spec), Err(Error::Protocol(_))), "rule {index}");
        }
    }

    #[test]
    fn arguments_may_be_arbitrary_bytes() {
        let spec = v1::JobSpec { args: vec![vec![], vec![0xff, b'\n', b'"']], ..spec() };
        let args = decode_spec(spec).unwrap().args;
        assert_eq!(
            args.iter().map(|arg| arg.as_bytes()).collect::<Vec<_>>(),
            [&b""[..], &[0xff, b'\n', b'"']]
        );
    }
}
