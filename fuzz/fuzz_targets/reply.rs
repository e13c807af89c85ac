//! Decodes any bytes as the controller decodes an agent's responses. A decoded message survives being encoded and
//! decoded again.
#![no_main]

use std::fmt::Debug;

use hop::client::failure;
use hop_proto::signal;
use hop_proto::v1::{GetInfoResponse, ListJobsResponse, Outcome, RunResponse, run_response};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};

fuzz_target!(|bytes: &[u8]| {
    if let Some(reply) = survives::<RunResponse>(bytes)
        && let Some(run_response::Message::Outcome(Outcome { ending: Some(ending), .. })) = reply.message
        && let hop_proto::v1::outcome::Ending::Signaled(signaled) = ending
        && let Some(number) = signal::number(&signaled.name)
    {
        assert_eq!(signal::name(number), signaled.name);
    }
    survives::<GetInfoResponse>(bytes);
    survives::<ListJobsResponse>(bytes);
    let status = |details: Vec<u8>| Status::with_details(Code::Internal, "", details.into());
    if let Some(failure) = failure::of(&status(bytes.to_vec())) {
        let type_url = "type.googleapis.com/hop.v1.ErrorDetail".to_owned();
        let details = vec![Any { type_url, value: failure.encode_to_vec() }];
        let again = tonic_types::Status { details, ..tonic_types::Status::default() };
        assert_eq!(failure::of(&status(again.encode_to_vec())), Some(failure));
    }
});

fn survives<M: Message + Debug + Default + PartialEq>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let again = M::decode(message.encode_to_vec().as_slice());
    assert_eq!(again.as_ref(), Ok(&message));
    Some(message)
}
