//! The body of a request, which measures its messages before tonic allocates buffers for them.
//!
//! **Invariants:** a request stream that breaks off never looks like one that its client has half-closed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::{Code, Status};

use crate::service::receive_budget::MessageMeter;

/// The body of a request, which measures its messages as they arrive.
pub struct RequestBody<B> {
    incoming: B,
    meter: MessageMeter,
}

impl<B> RequestBody<B> {
    /// The body `incoming`, measured by `meter`.
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
        // Not CANCELLED: tonic treats that as the end of a half-closed stream.
        let broken =
            || Poll::Ready(Some(Err(Status::new(Code::Unavailable, "the request stream broke off"))));
        loop {
            match ready!(Pin::new(&mut self.incoming).poll_frame(context)) {
                Some(Ok(frame)) => {
                    // A client of gRPC sends no trailers.
                    let Some(data) = frame.data_ref() else { continue };
                    let measured = self.meter.measure(data);
                    return Poll::Ready(Some(measured.map(|()| frame).map_err(Status::from)));
                }
                Some(Err(_)) => return broken(),
                // hyper reports a stream that was reset with NO_ERROR like one that has ended, for example when the
                // agent closes the connection.
                None if !self.incoming.is_end_stream() => return broken(),
                None => return Poll::Ready(self.meter.end().err().map(|error| Err(error.into()))),
            }
        }
    }
}
