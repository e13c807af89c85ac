//! Uploads to a router: blobs, their encodings, the caches of both, and archives of input files.

pub mod blob;
pub mod blob_cache;
pub mod delta;
pub mod encode;
pub mod encoded_cache;
mod error;
pub mod inputs;

pub use self::error::Error;
