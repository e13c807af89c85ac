//! Receives a blob: decodes its chunks in order, and writes the content to its file.
//!
//! **Invariants:** each chunk counts once, over any number of connections; and the result is the announced content, or
//! nothing.

use std::sync::Arc;

use bytes::Bytes;

use crate::store::blob::{Blob, Digest};
use crate::store::decoder::{Decoder, Encoding};
use crate::store::error::Error;
use crate::store::upload::Upload;

/// A blob as a controller announces it.
#[derive(Debug)]
pub struct BlobDescriptor {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// XXH32 of its content, if the controller has sent one.
    pub checksum: Option<u32>,
    /// Blobs that it may be sent as a delta against, the best first.
    pub bases: Vec<Digest>,
}

#[cfg(test)]
impl BlobDescriptor {
    /// A blob with this content.
    pub fn of_test(content: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, content);
        let digest = digest.as_ref().try_into().unwrap_or_default();
        Self { digest, size: content.len() as u64, checksum: None, bases: Vec::new() }
    }
}

/// A piece of an encoded blob.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Its offset in the encoded blob, in bytes.
    pub offset: u64,
    /// The encoding of the blob. Only the first chunk must have it; later ones' is ignored.
    pub encoding: Option<Encoding>,
    /// Its bytes.
    pub data: Bytes,
}

/// A blob that the agent requests from the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The digest of the blob.
    pub digest: Digest,
    /// The offset in the encoded blob from which to send it, in bytes.
    pub offset: u64,
    /// A blob that it may be sent as a delta against.
    pub base: Option<Digest>,
}

/// A blob that is being received into reserved space, and the base that it may be a delta against.
pub struct BlobReceiver {
    upload: Upload,
    base: Option<(Digest, Arc<Blob>)>,
    /// Bytes of the encoded blob that have arrived.
    received: u64,
    decoder: Option<Decoder>,
}

impl BlobReceiver {
    /// Waits for the first chunk of `upload`, which comes from its owner. Verifies the content by `checksum`, if there
    /// is one.
    pub fn new(mut upload: Upload, base: Option<(Digest, Arc<Blob>)>, checksum: Option<u32>) -> Self {
        checksum.into_iter().for_each(|checksum| upload.expect(checksum));
        Self { upload, base, received: 0, decoder: None }
    }

    /// Bytes of the encoded blob that have arrived.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// True when the whole blob has arrived, and its encoding is complete.
    pub fn is_complete(&self) -> bool {
        self.upload.is_complete() && self.decoder.as_ref().and_then(Decoder::is_over).unwrap_or(true)
    }

    /// Decodes the next chunk.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the chunk is not the next one, lacks an encoding, or is malformed; and the errors of
    /// [`Upload::write`].
    pub fn take(&mut self, chunk: &Chunk) -> Result<(), Error> {
        if chunk.offset != self.received {
            return Err(Error::Protocol("a blob chunk does not begin where the last one ended"));
        }
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            none => {
                let encoding =
                    chunk.encoding.ok_or(Error::Protocol("a blob that does not say its encoding"))?;
                none.insert(Decoder::new(encoding, self.base.as_ref().map(|(_, base)| base))?)
            }
        };
        let upload = &mut self.upload;
        decoder.decode(&chunk.data, &mut |data| upload.write(upload.offset(), data))?;
        self.received += chunk.data.len() as u64;
        if decoder.is_over() == Some(true) && !self.upload.is_complete() {
            return Err(Error::Protocol("a blob is shorter than announced"));
        }
        Ok(())
    }

    /// Adds the complete blob to the store.
    ///
    /// # Errors
    /// The errors of [`Upload::finish`].
    pub fn finish(self) -> Result<Arc<Blob>, Error> {
        self.upload.finish()
    }
}
