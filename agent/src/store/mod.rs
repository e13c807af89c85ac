//! The store: blobs in tmpfs, named by their digests, the encodings in which they arrive, and the disk cache.

pub mod accounting;
pub mod blob;
pub mod blobs;
pub mod decoder;
pub mod delta;
pub mod disk_cache;
pub mod error;
pub mod eviction;
pub mod lz4;
pub mod medium;
pub mod receiver;
pub mod relocation;
pub mod upload;
