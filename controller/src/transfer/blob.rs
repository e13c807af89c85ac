//! Blobs, which a router knows by their digest: a program, or an archive of input files.

use bytes::Bytes;

/// The kind of a blob. Blobs of one kind resemble each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An executable.
    Program,
    /// An archive of files.
    Files,
}

/// Content with its digest.
#[derive(Clone, Debug)]
pub struct Blob {
    /// What it is.
    pub kind: Kind,
    /// Its file name on this machine: earlier blobs of this name resemble it most.
    pub name: String,
    /// Its content.
    pub content: Bytes,
    /// SHA-256 of the content.
    pub digest: [u8; 32],
}

impl Blob {
    /// A blob with this content.
    pub fn new(kind: Kind, name: String, content: Vec<u8>) -> Self {
        let mut digest = [0; 32];
        digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, &content).as_ref());
        Self { kind, name, content: content.into(), digest }
    }
}
