//! Maps the agent's errors to gRPC statuses.
//!
//! **Invariants:** every error has a code and a reason, by one exhaustive match; and the details are a `google.rpc.Status`, which
//! any gRPC client can read: an `ErrorDetail` of `agent.proto` for hop, and a `google.rpc.ErrorInfo` for other clients.

use std::collections::HashMap;
use std::sync::Arc;

use hop_proto::v1::{ErrorDetail, ErrorReason};
use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb;

use crate::access::authorized_keys;
use crate::error::Error;

/// The `domain` of a `google.rpc.ErrorInfo`: the package whose `ErrorReason` its `reason` is one of.
const DOMAIN: &str = "hop.v1";

/// The prefix of each `ErrorReason` in `agent.proto`, which the `reason` of a `google.rpc.ErrorInfo` omits.
const REASON_PREFIX: &str = "ERROR_REASON_";

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut status = Self::from(&error);
        status.set_source(Arc::new(error));
        status
    }
}

impl From<&Error> for Status {
    fn from(error: &Error) -> Self {
        let (code, reason) = kind(error);
        let details = [detail(error, reason), info(error, reason)].to_vec();
        let message = error.to_string();
        let status = pb::Status { code: code.into(), message: message.clone(), details };
        Self::with_details(code, message, status.encode_to_vec().into())
    }
}

/// The error that ended a request stream: the one that [`crate::service::codec`] or [`crate::service::receive_budget`] found, or
/// [`Error::Gone`] if the stream broke.
pub fn stream_error(status: &Status) -> Error {
    match std::error::Error::source(status).and_then(|source| source.downcast_ref()) {
        Some(Error::Protocol(rule)) => Error::Protocol(rule),
        Some(Error::NoReceiveMemory { needed, available }) => {
            Error::NoReceiveMemory { needed: *needed, available: *available }
        }
        _ => Error::Gone,
    }
}

/// The gRPC code and the `ErrorReason` of an error.
fn kind(error: &Error) -> (Code, ErrorReason) {
    match error {
        Error::NoSpace { .. } => (Code::ResourceExhausted, ErrorReason::NoSpace),
        Error::NoMemory { .. } | Error::NoReceiveMemory { .. } => {
            (Code::ResourceExhausted, ErrorReason::NoMemory)
        }
        Error::NoInodes { .. } => (Code::ResourceExhausted, ErrorReason::NoInodes),
        Error::NoPromise { .. } => (Code::ResourceExhausted, ErrorReason::NoPromise),
        Error::TooManyJobs { .. } => (Code::ResourceExhausted, ErrorReason::TooManyJobs),
        Error::TooManyConnections { .. } | Error::TooManyConnectionsOfKey { .. } => {
            (Code::ResourceExhausted, ErrorReason::TooManyConnections)
        }
        Error::NotExecutable(_) => (Code::FailedPrecondition, ErrorReason::NotExecutable),
        Error::DigestMismatch => (Code::DataLoss, ErrorReason::DigestMismatch),
        Error::NoRandom => (Code::Internal, ErrorReason::NoRandom),
        Error::UploadStalled { .. } => (Code::DeadlineExceeded, ErrorReason::UploadStalled),
        Error::JobExists(_) => (Code::AlreadyExists, ErrorReason::JobExists),
        Error::Protocol(_) => (Code::InvalidArgument, ErrorReason::Protocol),
        Error::Io { .. } => (Code::Internal, ErrorReason::Io),
        Error::NotStarted(_) => (Code::ResourceExhausted, ErrorReason::NotStarted),
        Error::NotAuthorized | Error::KeyList(authorized_keys::Error::NotListed) => {
            (Code::PermissionDenied, ErrorReason::NotAuthorized)
        }
        Error::KeyList(_) => (Code::Internal, ErrorReason::Io),
        Error::NoSuchUser(_) | Error::NotRoot => (Code::FailedPrecondition, ErrorReason::NoSuchUser),
        Error::NoCore(_) => (Code::FailedPrecondition, ErrorReason::NoCore),
        Error::NoSuchJob(_) => (Code::NotFound, ErrorReason::NoSuchJob),
        Error::NotYours(_) => (Code::PermissionDenied, ErrorReason::NotYours),
        Error::OutputLost { .. } => (Code::DataLoss, ErrorReason::OutputLost),
        Error::TakenOver => (Code::Aborted, ErrorReason::TakenOver),
        Error::Stopping => (Code::Unavailable, ErrorReason::Stopping),
        Error::Gone => (Code::Cancelled, ErrorReason::Cancelled),
    }
}

/// The amounts that were needed and available, if an error has them.
fn amounts(error: &Error) -> Option<(u64, u64)> {
    match error {
        Error::NoSpace { needed, available, .. }
        | Error::NoMemory { needed, available }
        | Error::NoReceiveMemory { needed, available }
        | Error::NoInodes { needed, available, .. }
        | Error::NoPromise { needed, available } => Some((*needed, *available)),
        Error::TooManyJobs { limit } | Error::TooManyConnections { limit } => {
            Some((u64::from(*limit) + 1, (*limit).into()))
        }
        Error::TooManyConnectionsOfKey { held, reserved, limit } => {
            Some((u64::from(*held) + 1, u64::from(limit - reserved)))
        }
        _ => None,
    }
}

fn detail(error: &Error, reason: ErrorReason) -> Any {
    let (needed, available) = amounts(error).unwrap_or_default();
    any("hop.v1.ErrorDetail", &ErrorDetail { reason: reason.into(), needed, available })
}

fn info(error: &Error, reason: ErrorReason) -> Any {
    let reason = reason.as_str_name().trim_start_matches(REASON_PREFIX).to_owned();
    let mut metadata = HashMap::new();
    if let Some((needed, available)) = amounts(error) {
        metadata.insert("needed".to_owned(), needed.to_string());
        metadata.insert("available".to_owned(), available.to_string());
    }
    any("google.rpc.ErrorInfo", &pb::ErrorInfo { reason, domain: DOMAIN.to_owned(), metadata })
}

/// Encodes a message of this name as a `google.protobuf.Any`.
fn any(name: &str, message: &impl Message) -> Any {
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
        vec![
            Error::NoSpace { needed: 9_000_000_000, available: 5, directory: directory() },
            Error::NoMemory { needed: 9_000_000_000, available: 5 },
            Error::NoReceiveMemory { needed: 9_000_000_000, available: 5 },
            Error::NoInodes { needed: 9_000_000_000, available: 5, directory: directory() },
            Error::NoPromise { needed: 9_000_000_000, available: 5 },
            Error::TooManyJobs { limit: 8 },
            Error::TooManyConnections { limit: 16 },
            Error::TooManyConnectionsOfKey { held: 12, reserved: 4, limit: 16 },
            Error::NotExecutable(directory()),
            Error::DigestMismatch,
            Error::NoRandom,
            Error::UploadStalled { after: Duration::from_secs(60) },
            Error::JobExists("a1".into()),
            Error::Protocol("a second specification"),
            Error::Io { action: "read", path: directory(), source: source() },
            Error::NotStarted(source()),
            Error::NotAuthorized,
            Error::KeyList(authorized_keys::Error::NotListed),
            Error::KeyList(authorized_keys::Error::TooLarge(directory())),
            Error::NoSuchUser("nobody".into()),
            Error::NotRoot,
            Error::NoCore("no pattern"),
            Error::NoSuchJob("a1".into()),
            Error::NotYours("a1".into()),
            Error::OutputLost { bytes: 7, ending: "exited with 0".into() },
            Error::TakenOver,
            Error::Stopping,
            Error::Gone,
        ]
    }

    #[test]
    fn refusals_are_google_rpc_statuses() {
        for error in all() {
            // As it travels: in headers.
            let mut trailers = http::HeaderMap::new();
            Status::from(&error).add_header(&mut trailers).unwrap();
            let status = Status::from_header_map(&trailers).unwrap();
            let rich = pb::Status::decode(status.details()).unwrap();
            assert_eq!((rich.code, &*rich.message), (i32::from(status.code()), status.message()), "{error}");
            assert_ne!(status.code(), Code::Unknown, "{error}");

            let info = status.get_details_error_info().unwrap();
            let detail = &rich.details[0];
            assert_eq!(detail.type_url, "type.googleapis.com/hop.v1.ErrorDetail");
            let detail = ErrorDetail::decode(&detail.value[..]).unwrap();
            assert_ne!(detail.reason(), ErrorReason::Unspecified, "{error}");
            assert_eq!(format!("ERROR_REASON_{}", info.reason), detail.reason().as_str_name());
            assert_eq!(info.domain, "hop.v1");
            match amounts(&error) {
                None => assert!(info.metadata.is_empty() && (detail.needed, detail.available) == (0, 0)),
                Some(amounts) => {
                    assert_eq!((detail.needed, detail.available), amounts);
                    let [needed, available] = ["needed", "available"].map(|name| &*info.metadata[name]);
                    assert_eq!((needed, available), (&*amounts.0.to_string(), &*amounts.1.to_string()));
                }
            }
        }
    }

    #[test]
    fn only_broken_rules_blame_the_controller() {
        let blamed: Vec<_> =
            all().into_iter().filter(|error| kind(error).0 == Code::InvalidArgument).collect();
        assert!(matches!(blamed[..], [Error::Protocol(_)]), "{blamed:?}");
        for (error, code) in [
            (Error::NoRandom, Code::Internal),
            (Error::UploadStalled { after: Duration::ZERO }, Code::DeadlineExceeded),
            (Error::JobExists(String::new()), Code::AlreadyExists),
        ] {
            assert_eq!(Status::from(&error).code(), code, "{error}");
        }
    }
}
