//! What goes to a router by its digest: a program, or an archive of input files.

use bytes::Bytes;

/// What a blob is. One of a kind resembles others of it.
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
    /// What it is called here: earlier ones of this name resemble it most. A file name.
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
