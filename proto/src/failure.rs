//! Hop's own failures inside a gRPC status: a [`Failure`] travels in the details, so that nobody parses text.

use prost::Message;
use tonic::{Code, Status};

use crate::v1::Failure;

/// A status for `failure`; `message` is for people.
pub fn status(code: Code, message: impl Into<String>, failure: Failure) -> Status {
    Status::with_details(code, message, failure.encode_to_vec().into())
}

/// The failure in `status`, if the agent's own code made it. `None` for what the transport reports.
pub fn of(status: &Status) -> Option<Failure> {
    if status.details().is_empty() {
        return None;
    }
    Failure::decode(status.details()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Reason;

    #[test]
    fn a_failure_comes_back_out_of_its_status() {
        let failure = Failure { reason: Reason::NoSpace.into(), needed: 7_000_000_000, available: 3 };
        assert_eq!(of(&status(Code::ResourceExhausted, "no room", failure)), Some(failure));
    }

    #[test]
    fn a_status_of_the_transport_holds_no_failure() {
        assert_eq!(of(&Status::unavailable("connection reset")), None);
    }
}
