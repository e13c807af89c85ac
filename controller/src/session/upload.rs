//! The way of a blob to the agent: packed when the agent has said what it has, sent piece by piece, and from where a
//! connection broke.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hop_formats::size::Size;
use hop_proto::limits::BLOB_CHUNK_BYTES;
use hop_proto::v1::{BlobChunk, Encoding, MissingBlob};
use tokio::task::JoinHandle;

use crate::transfer::blob::{Blob, Kind};
use crate::transfer::blob_cache::{BlobCache, Digest};
use crate::transfer::encode::{self, Base, Decoders, Encoded};

/// Bytes from which on the time that they take tells how fast the link is.
const TELLING_BYTES: usize = 64 * 1024;

/// What is shorter is packed sooner than what it is packed as is found.
const LONG_BYTES: usize = 256 * 1024;

/// A blob on its way.
pub struct Upload<'a> {
    blob: &'a Blob,
    sent: &'a BlobCache,
    router: String,
    decoders: Decoders,
    /// The base for a delta that the agent chose.
    base: Option<Digest>,
    encoding: Option<JoinHandle<Option<Encoded>>>,
    encoded: Option<Encoded>,
    /// Encoded bytes that the agent has or will have.
    offset: usize,
    /// When the first of them was sent, if they all went over one connection.
    begun: Option<Instant>,
}

impl<'a> Upload<'a> {
    /// A blob that `router` may want; its agent has these decoders.
    pub fn new(blob: &'a Blob, sent: &'a BlobCache, router: &str, decoders: Decoders) -> Self {
        Self {
            blob,
            sent,
            router: router.to_owned(),
            decoders,
            base: None,
            encoding: None,
            encoded: None,
            offset: 0,
            begun: None,
        }
    }

    /// Does what the agent needs. False if it needs something else.
    pub fn begin(&mut self, need: &MissingBlob) -> bool {
        if need.sha256 != self.blob.digest {
            return false;
        }
        let base = Digest::try_from(&need.base[..]).ok();
        self.begun = None;
        self.offset = usize::try_from(need.offset).unwrap_or(usize::MAX);
        // Another job of the same blob may meet another agent's store.
        if self.offset == 0 && self.base != base {
            (self.encoded, self.encoding) = (None, None);
        }
        if self.encoded.is_none() && self.encoding.is_none() {
            self.base = base;
            self.encoding = Some(tokio::spawn(encode(
                self.blob.clone(),
                self.sent.clone(),
                self.decoders,
                base,
                self.sent.rate(&self.router),
            )));
        }
        true
    }

    /// Waits until there is something to send. Cancel safe.
    pub async fn encoded(&mut self) {
        if let Some(encoding) = &mut self.encoding {
            // It does not panic; if it did, the blob goes as it is.
            let plain =
                || Encoded { encoding: Encoding::Identity, base: None, bytes: self.blob.content.clone() };
            self.encoded = Some(encoding.await.ok().flatten().unwrap_or_else(plain));
            self.encoding = None;
        }
    }

    /// True when there is something to send.
    pub fn is_encoded(&self) -> bool {
        self.encoded.is_some()
    }

    /// The next piece.
    pub fn next_chunk(&mut self) -> Option<BlobChunk> {
        let encoded = self.encoded.as_ref()?;
        let start = self.offset;
        let end = encoded.bytes.len().min(start.saturating_add(BLOB_CHUNK_BYTES));
        let data = encoded.bytes.get(start..end).map(|_| encoded.bytes.slice(start..end))?;
        if start == 0 {
            self.begun = Some(Instant::now());
        }
        self.offset = end;
        let encoding = if start == 0 { encoded.encoding } else { Encoding::Unspecified };
        Some(BlobChunk { offset: start as u64, data, encoding: encoding.into() })
    }

    /// Bytes that are sent, and how many there are.
    pub fn progress(&self) -> (u64, u64) {
        (self.offset as u64, self.encoded.as_ref().map_or(u64::MAX, |encoded| encoded.bytes.len() as u64))
    }

    /// True when nothing is left to be sent.
    pub fn is_sent(&self) -> bool {
        self.encoded.as_ref().is_some_and(|encoded| self.offset >= encoded.bytes.len())
    }

    /// The agent has the whole blob.
    fn on_uploaded(&self) {
        self.sent.keep(self.blob);
    }

    /// What `hop` uploaded, as text for `-v`.
    pub fn describe(&self) -> String {
        let size = Size(self.blob.content.len() as u64);
        let what = match self.blob.kind {
            Kind::Program => "program",
            Kind::Files => "files",
        };
        let Some(encoded) = &self.encoded else {
            return format!("sent nothing: the router has the {what}, {size}");
        };
        let how = match encoded.encoding {
            Encoding::Unspecified | Encoding::Identity => "as it is",
            Encoding::Zstd => "compressed with zstd",
            Encoding::Lz4 => "compressed with LZ4",
            Encoding::Delta => "as a delta against what was sent before",
            Encoding::RelocatedDelta => "as a relocated delta against what was sent before",
        };
        format!("sent {} of {size}, {how}", Size(encoded.bytes.len() as u64))
    }
}

/// Bytes a second of a link over which so many went in this time, if that tells; `known` is what was known of it.
fn rate(bytes: usize, has_delta: bool, time: Duration, known: Option<u64>) -> Option<u64> {
    if bytes < TELLING_BYTES {
        return None;
    }
    let rate = (bytes as f64 / time.max(Duration::from_millis(1)).as_secs_f64()) as u64;
    // A delta keeps the router's CPU busy for longer than the link: that is at least so fast.
    (!has_delta || known.is_some_and(|known| known < rate)).then_some(rate)
}

/// Packs a blob, unless that was done before. `None` if that panics.
async fn encode(
    blob: Blob,
    sent: BlobCache,
    decoders: Decoders,
    base: Option<Digest>,
    rate: Option<u64>,
) -> Option<Encoded> {
    let kept = sent.encoded();
    let name = encode::name(&blob.digest, decoders, base.as_ref(), rate);
    let is_long = blob.content.len() >= LONG_BYTES;
    let encode = move || {
        let base = base.and_then(|digest| Some(Base { digest, content: sent.content(blob.kind, &digest)? }));
        encode::encode(&blob.content, decoders, base, rate)
    };
    match is_long {
        true => kept.find_or(&name, base, encode).await,
        false => tokio::task::spawn_blocking(encode).await.ok(),
    }
}

/// The blobs of a job, on their way in the order in which the agent needs them.
pub struct Uploads<'a> {
    all: Vec<Upload<'a>>,
    /// The missing ones, by their place in `all`.
    needed: VecDeque<usize>,
}

impl<'a> Uploads<'a> {
    /// Blobs that the agent may need.
    pub fn new(all: Vec<Upload<'a>>) -> Self {
        Self { all, needed: VecDeque::new() }
    }

    /// Does what the agent needs. False if it needs something else, or anything twice.
    pub fn begin(&mut self, needs: &[MissingBlob]) -> bool {
        self.needed.clear();
        needs.iter().all(|need| {
            let index = self.all.iter_mut().position(|upload| upload.begin(need));
            let is_new = index.is_some_and(|index| !self.needed.contains(&index));
            self.needed.extend(index);
            is_new
        })
    }

    /// The one that is to be sent next, or to be packed before that.
    pub fn next(&mut self) -> Option<&mut Upload<'a>> {
        while self.needed.front().is_some_and(|index| self.all[*index].is_sent()) {
            self.needed.pop_front();
        }
        self.needed.front().map(|index| &mut self.all[*index])
    }

    /// The agent has all of them.
    pub fn on_uploaded(&mut self) {
        // One waits for the other, so only all together tell something.
        let begun = self.all.iter().filter_map(|upload| upload.begun).min();
        let encoded = || {
            self.all
                .iter()
                .filter(|upload| upload.begun.is_some())
                .filter_map(|upload| upload.encoded.as_ref())
        };
        let bytes = encoded().map(|encoded| encoded.bytes.len()).sum();
        if let Some((begun, first)) = begun.zip(self.all.first())
            && let known = first.sent.rate(&first.router)
            && let Some(rate) = rate(bytes, encoded().any(Encoded::is_delta), begun.elapsed(), known)
        {
            first.sent.set_rate(&first.router, rate);
        }
        for upload in &mut self.all {
            upload.begun = None;
            upload.on_uploaded();
        }
    }

    /// What `hop` uploaded, as text for `-v`.
    pub fn describe(&self) -> Vec<String> {
        self.all.iter().map(Upload::describe).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn deltas_do_not_lower_measured_rate() {
        let sent =
            |bytes, has_delta, seconds, known| rate(bytes, has_delta, Duration::from_secs(seconds), known);
        let known = Some(500_000);
        assert_eq!(sent(1_000_000, true, 10, None), None);
        assert_eq!(sent(1_000_000, true, 10, known), None);
        assert_eq!(sent(1_000_000, true, 1, known), Some(1_000_000), "at least as fast");
        assert_eq!(sent(1_000_000, false, 10, known), Some(100_000));
        assert_eq!(sent(1000, false, 10, known), None, "too little to tell");
    }
}
