//! The codec of the gRPC server: tonic's codec for protobuf, with a check before each request is decoded.
//!
//! **Invariants:** no list of a decoded request is longer than its limit.

use std::marker::PhantomData;

use hop_proto::v1;
use prost::Message;
use prost::bytes::Buf;
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf};
use tonic_prost::ProstEncoder;

use crate::job::error::Error;
use crate::service::bounds::{UNDECODABLE, check_run_request};

/// A request that can be checked before it is decoded.
pub trait Checked: Message + Default {
    /// Checks an encoded request.
    ///
    /// # Errors
    /// [`Error::Protocol`] if decoding it would take more memory than the agent allows.
    fn check(_encoded: &[u8]) -> Result<(), Error> {
        Ok(())
    }
}

impl Checked for v1::RunRequest {
    fn check(encoded: &[u8]) -> Result<(), Error> {
        check_run_request(encoded)
    }
}

// Each of these has at most MAX_MESSAGE_BYTES, and no list.
impl Checked for v1::GetInfoRequest {}
impl Checked for v1::ListJobsRequest {}
impl Checked for v1::ReadOutputRequest {}
impl Checked for v1::SignalJobRequest {}
impl Checked for v1::AddNextKeyRequest {}
impl Checked for v1::RetirePreviousKeyRequest {}

/// The codec of the generated server (`codec_path` in `xtask/tests/codegen.rs`).
pub struct Codec<T, U>(PhantomData<fn() -> (T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Checked + Send + 'static> tonic::codec::Codec for Codec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Decoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        Decoder::default()
    }
}

/// Decodes requests of one kind.
pub struct Decoder<U>(PhantomData<fn() -> U>);

impl<U> Default for Decoder<U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<U: Checked> tonic::codec::Decoder for Decoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, encoded: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // tonic passes each message whole and in one piece.
        U::check(encoded.chunk())?;
        Ok(Some(U::decode(encoded).map_err(|_| UNDECODABLE)?))
    }
}
