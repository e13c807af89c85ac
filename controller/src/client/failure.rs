//! The agent's own failures inside a gRPC status: an [`ErrorDetail`] in the details of a `google.rpc.Status`, so that nobody parses
//! text.

use hop_proto::v1::ErrorDetail;
use prost::Message;
use tonic::Status;
use tonic_types::pb;

/// The part after the host in the type URL of an [`ErrorDetail`] (`google/protobuf/any.proto`).
const TYPE: &str = "/hop.v1.ErrorDetail";

/// The failure in `status`, if the agent's own code made it. `None` for what the transport reports.
pub fn of(status: &Status) -> Option<ErrorDetail> {
    let status = pb::Status::decode(status.details()).ok()?;
    let detail = status.details.iter().find(|detail| detail.type_url.ends_with(TYPE))?;
    ErrorDetail::decode(&detail.value[..]).ok()
}

#[cfg(test)]
mod tests {
    use hop_proto::v1::ErrorReason;
    use tonic::Code;
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    /// A status with these details.
    fn status(details: Vec<(&str, Vec<u8>)>) -> Status {
        let any = |(name, value)| prost_types::Any { type_url: format!("type.googleapis.com/{name}"), value };
        let details = details.into_iter().map(any).collect();
        let rich = pb::Status { code: Code::ResourceExhausted.into(), message: "no space".into(), details };
        Status::with_details(Code::ResourceExhausted, "no space", rich.encode_to_vec().into())
    }

    #[test]
    fn failure_is_decoded_from_status() {
        let failure =
            ErrorDetail { reason: ErrorReason::NoSpace.into(), needed: 7_000_000_000, available: 3 };
        let info = ("google.rpc.ErrorInfo", pb::ErrorInfo::default().encode_to_vec());
        let detail = ("hop.v1.ErrorDetail", failure.encode_to_vec());
        assert_eq!(of(&status(vec![info, detail])), Some(failure));
    }

    #[test]
    fn foreign_statuses_hold_no_failure() {
        assert_eq!(of(&Status::unavailable("connection reset")), None);
        let details = ErrorDetails::with_error_info("NO_SPACE", "example.com", [("a".into(), "b".into())]);
        assert_eq!(of(&Status::with_error_details(Code::Internal, "", details)), None);
        assert_eq!(of(&status(vec![("hop.v1.ErrorDetail", vec![7])])), None);
        assert_eq!(of(&Status::with_details(Code::Internal, "", vec![7].into())), None);
    }
}
