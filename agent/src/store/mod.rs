//! Blobs in tmpfs by their digest, what they arrive as, and the disk cache.

pub mod blobs;
pub mod decoder;
pub mod delta;
pub mod disk_cache;
pub mod lz4;
pub mod receiver;
pub mod relocation;
