//! Maps the agent's errors to gRPC statuses.
//!
//! **Invariants:** every error has a code and a reason, by one exhaustive match; and the details are a
//! `google.rpc.Status`, which any gRPC client can read: an `ErrorDetail` of `agent.proto` for hop, and a
//! `google.rpc.ErrorInfo` for other clients.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

use hop_proto::v1::{ErrorDetail, ErrorReason};
use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb;

use crate::access::authorized_keys;
use crate::files::error as files;
use crate::job::error as job;
use crate::process::error as process;
use crate::service::error::Error;
use crate::store::error as store;
use crate::system::error as system;

/// The `domain` of a `google.rpc.ErrorInfo`: the package whose `ErrorReason` its `reason` is one of.
const DOMAIN: &str = "hop.v1";

/// The prefix of each `ErrorReason` in `agent.proto`, which the `reason` of a `google.rpc.ErrorInfo` omits.
const REASON_PREFIX: &str = "ERROR_REASON_";

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Job(error) => error.into(),
            error => status(&error, kind(&error), figures(&error)),
        }
    }
}

impl From<job::Error> for Status {
    fn from(error: job::Error) -> Self {
        let mut status = Self::from(&error);
        status.set_source(Arc::new(error));
        status
    }
}

impl From<&job::Error> for Status {
    fn from(error: &job::Error) -> Self {
        status(error, job_kind(error), job_figures(error))
    }
}

fn status(error: &dyn Display, (code, reason): Kind, figures: Option<(u64, u64)>) -> Status {
    let details = [detail(figures, reason), info(figures, reason)].to_vec();
    let message = error.to_string();
    let status = pb::Status { code: code.into(), message: message.clone(), details };
    Status::with_details(code, message, status.encode_to_vec().into())
}

/// The error that ended a request stream: the one that [`crate::service::codec`] or [`crate::service::receive_budget`]
/// found, or [`job::Error::Gone`] if the stream broke.
pub fn stream_error(status: &Status) -> job::Error {
    match std::error::Error::source(status).and_then(|source| source.downcast_ref()) {
        Some(job::Error::Protocol(rule)) => job::Error::Protocol(rule),
        Some(job::Error::NoReceiveMemory { needed, available }) => {
            job::Error::NoReceiveMemory { needed: *needed, available: *available }
        }
        _ => job::Error::Gone,
    }
}

/// The gRPC code and the `ErrorReason` of an error.
type Kind = (Code, ErrorReason);

fn kind(error: &Error) -> Kind {
    match error {
        Error::TooManyConnections { .. } | Error::TooManyConnectionsOfKey { .. } => {
            (Code::ResourceExhausted, ErrorReason::TooManyConnections)
        }
        Error::KeyList(authorized_keys::Error::NotListed) => {
            (Code::PermissionDenied, ErrorReason::NotAuthorized)
        }
        Error::KeyList(_) => (Code::Internal, ErrorReason::Io),
        Error::Job(error) => job_kind(error),
    }
}

fn job_kind(error: &job::Error) -> Kind {
    match error {
        job::Error::NoReceiveMemory { .. } => (Code::ResourceExhausted, ErrorReason::NoMemory),
        job::Error::TooManyJobs { .. } => (Code::ResourceExhausted, ErrorReason::TooManyJobs),
        job::Error::NotExecutable(_) => (Code::FailedPrecondition, ErrorReason::NotExecutable),
        job::Error::NoRandom => (Code::Internal, ErrorReason::NoRandom),
        job::Error::UploadStalled { .. } => (Code::DeadlineExceeded, ErrorReason::UploadStalled),
        job::Error::JobExists(_) => (Code::AlreadyExists, ErrorReason::JobExists),
        job::Error::Protocol(_) => (Code::InvalidArgument, ErrorReason::Protocol),
        job::Error::NotStarted(_) => (Code::ResourceExhausted, ErrorReason::NotStarted),
        job::Error::NotAuthorized => (Code::PermissionDenied, ErrorReason::NotAuthorized),
        job::Error::NoSuchJob(_) => (Code::NotFound, ErrorReason::NoSuchJob),
        job::Error::NotYours(_) => (Code::PermissionDenied, ErrorReason::NotYours),
        job::Error::OutputLost { .. } => (Code::DataLoss, ErrorReason::OutputLost),
        job::Error::TakenOver => (Code::Aborted, ErrorReason::TakenOver),
        job::Error::Stopping => (Code::Unavailable, ErrorReason::Stopping),
        job::Error::Gone => (Code::Cancelled, ErrorReason::Cancelled),
        job::Error::Io(_) => (Code::Internal, ErrorReason::Io),
        job::Error::Store(error) => store_kind(error),
        job::Error::System(error) => system_kind(error),
        job::Error::Files(files::Error::Protocol(_)) => (Code::InvalidArgument, ErrorReason::Protocol),
        job::Error::Files(files::Error::NoCore(_)) => (Code::FailedPrecondition, ErrorReason::NoCore),
        job::Error::Files(files::Error::Io(_)) | job::Error::Process(process::Error::Io(_)) => {
            (Code::Internal, ErrorReason::Io)
        }
        job::Error::Process(process::Error::NoSuchUser(_) | process::Error::NotRoot) => {
            (Code::FailedPrecondition, ErrorReason::NoSuchUser)
        }
    }
}

fn store_kind(error: &store::Error) -> Kind {
    match error {
        store::Error::NoSpace { .. } => (Code::ResourceExhausted, ErrorReason::NoSpace),
        store::Error::NoInodes { .. } => (Code::ResourceExhausted, ErrorReason::NoInodes),
        store::Error::DigestMismatch => (Code::DataLoss, ErrorReason::DigestMismatch),
        store::Error::Protocol(_) => (Code::InvalidArgument, ErrorReason::Protocol),
        store::Error::NotStarted(_) => (Code::ResourceExhausted, ErrorReason::NotStarted),
        store::Error::System(error) => system_kind(error),
        store::Error::Io(_) => (Code::Internal, ErrorReason::Io),
    }
}

fn system_kind(error: &system::Error) -> Kind {
    match error {
        system::Error::NoMemory { .. } => (Code::ResourceExhausted, ErrorReason::NoMemory),
        system::Error::NoPromise { .. } => (Code::ResourceExhausted, ErrorReason::NoPromise),
        system::Error::Io(_) => (Code::Internal, ErrorReason::Io),
    }
}

/// The amounts that were needed and available, if an error has them.
fn figures(error: &Error) -> Option<(u64, u64)> {
    match error {
        Error::TooManyConnections { limit } => Some((u64::from(*limit) + 1, (*limit).into())),
        Error::TooManyConnectionsOfKey { held, reserved, limit } => {
            Some((u64::from(*held) + 1, u64::from(limit - reserved)))
        }
        Error::Job(error) => job_figures(error),
        Error::KeyList(_) => None,
    }
}

fn job_figures(error: &job::Error) -> Option<(u64, u64)> {
    match error {
        job::Error::TooManyJobs { limit } => Some((u64::from(*limit) + 1, (*limit).into())),
        job::Error::NoReceiveMemory { needed, available }
        | job::Error::System(
            system::Error::NoMemory { needed, available } | system::Error::NoPromise { needed, available },
        )
        | job::Error::Store(
            store::Error::NoSpace { needed, available, .. }
            | store::Error::NoInodes { needed, available, .. }
            | store::Error::System(
                system::Error::NoMemory { needed, available }
                | system::Error::NoPromise { needed, available },
            ),
        ) => Some((*needed, *available)),
        _ => None,
    }
}

fn detail(figures: Option<(u64, u64)>, reason: ErrorReason) -> Any {
    let (needed, available) = figures.unwrap_or_default();
    packed("hop.v1.ErrorDetail", &ErrorDetail { reason: reason.into(), needed, available })
}

fn info(figures: Option<(u64, u64)>, reason: ErrorReason) -> Any {
    let reason = reason.as_str_name().trim_start_matches(REASON_PREFIX).to_owned();
    let mut metadata = HashMap::new();
    if let Some((needed, available)) = figures {
        metadata.insert("needed".to_owned(), needed.to_string());
        metadata.insert("available".to_owned(), available.to_string());
    }
    packed("google.rpc.ErrorInfo", &pb::ErrorInfo { reason, domain: DOMAIN.to_owned(), metadata })
}

/// Encodes a message of this name as a `google.protobuf.Any`.
fn packed(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io;
    use std::time::Duration;

    use tonic_types::StatusExt;

    use super::*;

    /// One error of each kind.
    fn all() -> Vec<Error> {
        let directory = || "/tmp/hop".into();
        let source = || io::Error::from_raw_os_error(5);
        let io = || system::IoError { action: "read", path: directory(), source: source() };
        let memory = || system::Error::NoMemory { needed: 9_000_000_000, available: 5 };
        let promise = || system::Error::NoPromise { needed: 9_000_000_000, available: 5 };
        let store = [
            store::Error::NoSpace { needed: 9_000_000_000, available: 5, directory: directory() },
            store::Error::NoInodes { needed: 9_000_000_000, available: 5, directory: directory() },
            store::Error::DigestMismatch,
            store::Error::Protocol("a blob is shorter than announced"),
            store::Error::NotStarted(source()),
            store::Error::System(memory()),
            store::Error::System(promise()),
            store::Error::System(io().into()),
            store::Error::Io(io()),
        ];
        let files = [
            files::Error::Protocol("no archive"),
            files::Error::NoCore("no pattern"),
            files::Error::Io(io()),
        ];
        let process =
            [process::Error::NoSuchUser("nobody".into()), process::Error::NotRoot, process::Error::Io(io())];
        let job = [
            job::Error::NoReceiveMemory { needed: 9_000_000_000, available: 5 },
            job::Error::TooManyJobs { limit: 8 },
            job::Error::NotExecutable(directory()),
            job::Error::NoRandom,
            job::Error::UploadStalled { after: Duration::from_secs(60) },
            job::Error::JobExists("a1".into()),
            job::Error::Protocol("a second specification"),
            job::Error::NotStarted(source()),
            job::Error::NotAuthorized,
            job::Error::NoSuchJob("a1".into()),
            job::Error::NotYours("a1".into()),
            job::Error::OutputLost { bytes: 7, ending: "exited with 0".into() },
            job::Error::TakenOver,
            job::Error::Stopping,
            job::Error::Gone,
            job::Error::System(memory()),
            job::Error::System(promise()),
            job::Error::System(io().into()),
            job::Error::Io(io()),
        ];
        let of_jobs = job.into_iter();
        let of_jobs =
            of_jobs.chain(store.map(Into::into)).chain(files.map(Into::into)).chain(process.map(Into::into));
        let of_calls = [
            Error::TooManyConnections { limit: 16 },
            Error::TooManyConnectionsOfKey { held: 12, reserved: 4, limit: 16 },
            Error::KeyList(authorized_keys::Error::NotListed),
            Error::KeyList(authorized_keys::Error::TooLarge(directory())),
        ];
        of_jobs.map(Error::Job).chain(of_calls).collect()
    }

    #[test]
    fn refusals_are_google_rpc_statuses() {
        for error in all() {
            // As it travels: in headers.
            let (text, figures) = (error.to_string(), figures(&error));
            let mut trailers = http::HeaderMap::new();
            Status::from(error).add_header(&mut trailers).unwrap();
            let status = Status::from_header_map(&trailers).unwrap();
            let rich = pb::Status::decode(status.details()).unwrap();
            assert_eq!((rich.code, &*rich.message), (i32::from(status.code()), status.message()), "{text}");
            assert_ne!(status.code(), Code::Unknown, "{text}");

            let info = status.get_details_error_info().unwrap();
            let detail = &rich.details[0];
            assert_eq!(detail.type_url, "type.googleapis.com/hop.v1.ErrorDetail");
            let detail = ErrorDetail::decode(&detail.value[..]).unwrap();
            assert_ne!(detail.reason(), ErrorReason::Unspecified, "{text}");
            assert_eq!(format!("ERROR_REASON_{}", info.reason), detail.reason().as_str_name());
            assert_eq!(info.domain, "hop.v1");
            match figures {
                None => assert!(info.metadata.is_empty() && (detail.needed, detail.available) == (0, 0)),
                Some(figures) => {
                    assert_eq!((detail.needed, detail.available), figures);
                    let [needed, available] = ["needed", "available"].map(|name| &*info.metadata[name]);
                    assert_eq!((needed, available), (&*figures.0.to_string(), &*figures.1.to_string()));
                }
            }
        }
    }

    #[test]
    fn only_broken_rules_blame_the_controller() {
        let blamed: Vec<_> =
            all().into_iter().filter(|error| kind(error).0 == Code::InvalidArgument).collect();
        let is_rule = |error: &Error| {
            use job::Error::{Files, Protocol, Store};
            matches!(
                error,
                Error::Job(Protocol(_) | Store(store::Error::Protocol(_)) | Files(files::Error::Protocol(_)))
            )
        };
        assert!(blamed.len() == 3 && blamed.iter().all(is_rule), "{blamed:?}");
        for (error, code) in [
            (job::Error::NoRandom, Code::Internal),
            (job::Error::UploadStalled { after: Duration::ZERO }, Code::DeadlineExceeded),
            (job::Error::JobExists(String::new()), Code::AlreadyExists),
        ] {
            assert_eq!(Status::from(&error).code(), code, "{error}");
        }
    }
}
