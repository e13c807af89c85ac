//! The agent's own failures inside a gRPC status: a [`Failure`] travels in the details, so that nobody parses text.

use hop_proto::v1::Failure;
use prost::Message;
use tonic::Status;

/// The failure in `status`, if the agent's own code made it. `None` for what the transport reports.
pub fn of(status: &Status) -> Option<Failure> {
    if status.details().is_empty() {
        return None;
    }
    Failure::decode(status.details()).ok()
}

#[cfg(test)]
mod tests {
    use hop_proto::v1::Reason;
    use tonic::Code;

    use super::*;

    #[test]
    fn failure_is_decoded_from_status() {
        let failure = Failure { reason: Reason::NoSpace.into(), needed: 7_000_000_000, available: 3 };
        let details = failure.encode_to_vec().into();
        assert_eq!(of(&Status::with_details(Code::ResourceExhausted, "no room", details)), Some(failure));
    }

    #[test]
    fn transport_status_holds_no_failure() {
        assert_eq!(of(&Status::unavailable("connection reset")), None);
    }
}
