//! A blob that is received: pieces of whatever it is sent as, in order, become its file.
//!
//! **Invariants:** a piece counts once, by however many connections it comes; and what is there in the end is what was
//! announced, or there is nothing.

use std::sync::Arc;

use bytes::Bytes;

use crate::store::blob::{Blob, Digest};
use crate::store::decoder::{Decoder, Encoding};
use crate::store::error::Error;
use crate::store::upload::Upload;

/// What a controller says of a blob before it is sent.
#[derive(Debug)]
pub struct BlobDescriptor {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// XXH32 of its content, if the controller has said it.
    pub checksum: Option<u32>,
    /// What it may be sent as a delta against, the best first.
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

/// A piece of a blob, as it is sent.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Where it belongs, in bytes as they are sent.
    pub offset: u64,
    /// What the blob is sent as. Only the first chunk need say it, and only of that it counts.
    pub encoding: Option<Encoding>,
    /// What it is.
    pub data: Bytes,
}

/// What the agent wants to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Which blob.
    pub digest: Digest,
    /// From where on, in bytes as they are sent.
    pub offset: u64,
    /// Which blob it may be a delta against.
    pub base: Option<Digest>,
}

/// A blob whose space is reserved, and the one that it may be a delta against.
pub struct BlobReceiver {
    upload: Upload,
    base: Option<(Digest, Arc<Blob>)>,
    /// Bytes received, as they are sent.
    received: u64,
    decoder: Option<Decoder>,
}

impl BlobReceiver {
    /// Waits for the first piece of `upload`, which comes from its owner and has this checksum, if the controller gave one.
    pub fn new(mut upload: Upload, base: Option<(Digest, Arc<Blob>)>, checksum: Option<u32>) -> Self {
        checksum.into_iter().for_each(|checksum| upload.expect(checksum));
        Self { upload, base, received: 0, decoder: None }
    }

    /// Bytes that are here, as they are sent.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// True when the whole blob is here, and all that it was sent as.
    pub fn is_complete(&self) -> bool {
        self.upload.is_complete() && self.decoder.as_ref().and_then(Decoder::is_over).unwrap_or(true)
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// [`Error::Protocol`] for a piece from elsewhere, without an encoding, or what is not of its encoding; those of [`Upload::write`].
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

    /// Makes the complete blob one of the store's.
    ///
    /// # Errors
    /// Those of [`Upload::finish`].
    pub fn finish(self) -> Result<Arc<Blob>, Error> {
        self.upload.finish()
    }
}
