//! The body of a request on its way to tonic: its messages are measured before they are put together.
//!
//! **Invariants:** a request stream that breaks off never looks like one that its client has half-closed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::{Code, Status};

use crate::service::receive_budget::MessageMeter;

/// The body of a request, whose messages are measured as they arrive.
pub struct RequestBody<B> {
    incoming: B,
    meter: MessageMeter,
}

impl<B> RequestBody<B> {
    /// What arrives in `incoming`, measured by `meter`.
    pub fn new(incoming: B, meter: MessageMeter) -> Self {
        Self { incoming, meter }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // Not CANCELLED: tonic takes that for the end of a stream that was half-closed.
        let broken =
            || Poll::Ready(Some(Err(Status::new(Code::Unavailable, "the request stream broke off"))));
        loop {
            match ready!(Pin::new(&mut self.incoming).poll_frame(context)) {
                Some(Ok(frame)) => {
                    // A client of gRPC sends no trailers.
                    let Some(data) = frame.data_ref() else { continue };
                    let measured = self.meter.arrived(data);
                    return Poll::Ready(Some(measured.map(|()| frame).map_err(Status::from)));
                }
                Some(Err(_)) => return broken(),
                // hyper says no more of a stream that was reset with NO_ERROR, as it is when this side gives up the connection.
                None if !self.incoming.is_end_stream() => return broken(),
                None => return Poll::Ready(self.meter.end().err().map(|error| Err(error.into()))),
            }
        }
    }
}
