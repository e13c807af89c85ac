//! The encoding in which a program is uploaded: a delta against one that the router has, compressed, or plain; and the
//! decompression of output.
//!
//! The choice follows from the link's rate at the last upload. On a fast link the router's CPU is the bottleneck, and LZ4 costs it
//! least; on a slow one every byte counts, and zstd makes the fewest, at a level that the time on the wire pays for. A delta is sent
//! where the router has the program sooner by it; the search for one takes no longer than uploading the whole program would; a
//! relocated one is sent, if there is time, where it saves more than it costs.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use hop_proto::limits::OUTPUT_CHUNK_BYTES;
use hop_proto::v1::Encoding;

use super::blob_cache::Digest;
use super::delta;
use crate::client::capabilities::Capabilities;

/// Bytes a second of a link about which nothing is known: a cable to the router on the desk.
const LIKELY_RATE: u64 = 5_000_000;

/// Below so many bytes a second, a link is slower than a router's CPU decompresses.
const SLOW_RATE: u64 = 1_000_000;

/// Classes of links: the lowest measured rate of a class, and the rate for which a program is encoded. There are few
/// classes, so that the encoding for one link serves another that is nearly as fast. A measured rate includes the time
/// of the router's CPU, and no link counts as faster than the first class.
const RATES: [(u64, u64); 5] =
    [(2_500_000, LIKELY_RATE), (SLOW_RATE, 1_600_000), (300_000, 550_000), (60_000, 130_000), (0, 30_000)];

/// What LZ4 makes of a Go program takes a second for so many bytes; and it is two fifths of the program.
const LZ4_LEVEL: u32 = 9;
const WHOLE_FRACTION: f64 = 0.4;

/// Instructions a second of a likely router, and how many a byte takes there: one on the wire, with its ciphers and TCP; one that comes
/// out of LZ4, or of zstd; one of a delta's instructions, unpacked and followed; one of a program where addresses are looked at.
/// Measured by `cargo xtask bench profile`, on a MIPS 24Kc; a delta's are between 45, where much is new, and 100.
const CPU_RATE: f64 = 500e6;
const WIRE_COST: f64 = 50.0;
const LZ4_COST: f64 = 7.0;
const ZSTD_COST: f64 = 28.0;
const DELTA_COST: f64 = 60.0;
const ADDRESS_COST: f64 = 2.5;

/// zstd's window, as a power of two: an agent holds it in memory, and takes no larger one.
const WINDOW_LOG: u32 = 19;

/// Below so many bytes a second, a level of zstd is worth its time: measured on a Go program, level 9 compresses 20 MB/s,
/// 15 does 4 MB/s, 19 does 1.6 MB/s, for a tenth fewer bytes.
const LEVELS: [(u64, i32); 2] = [(60_000, STRONGEST), (300_000, 15)];
const LEVEL: i32 = 9;
const STRONGEST: i32 = 19;

/// Fewer bytes of instructions are compressed at the strongest level whatever the link: it takes a tenth of a second.
const SHORT: usize = 256 * 1024;

/// Bytes of instructions, before they are compressed, that must be spared on a fast link for addresses to be followed: a router's CPU
/// looks at each word that is copied.
const MIN_SAVED_BYTES: usize = 16 * 1024;

/// Changes with what is made of the same, lest an older one be sent from the cache.
const FORMAT_VERSION: u32 = 3;

/// The encodings that an agent can decode.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decoders {
    /// A checksum does for the digest.
    pub checksum: bool,
    zstd: bool,
    lz4: bool,
    delta: bool,
    relocate: bool,
}

impl Decoders {
    /// As the agent says.
    pub fn of(capabilities: &Capabilities) -> Self {
        let can = |capability| capabilities.has(capability);
        Self {
            checksum: can("checksum"),
            zstd: can("zstd"),
            lz4: can("lz4"),
            delta: can("delta"),
            relocate: can("relocate"),
        }
    }

    /// Whether it is worth while to offer bases.
    pub fn has_delta(&self) -> bool {
        self.delta
    }
}

/// A program that another one may be a delta against.
#[derive(Clone, Debug)]
pub struct Base {
    /// Its digest.
    pub digest: Digest,
    /// What it is.
    pub content: Vec<u8>,
}

/// A program as it goes over the wire.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// How.
    pub encoding: Encoding,
    /// What the delta is against, if it is one.
    pub base: Option<Digest>,
    /// The bytes.
    pub bytes: Bytes,
}

impl Encoded {
    /// Whether it wants a base.
    pub fn is_delta(&self) -> bool {
        matches!(self.encoding, Encoding::Delta | Encoding::RelocatedDelta)
    }
}

/// Something that a program may be sent as.
struct Candidate {
    encoded: Encoded,
    /// What it costs the router's CPU, in instructions, to make the program of it.
    cost: f64,
}

impl Candidate {
    /// How long it takes until a router has the program: the link and the CPU work at the same time.
    fn seconds(&self, rate: u64) -> f64 {
        seconds(self.encoded.bytes.len() as f64, self.cost, rate)
    }
}

fn seconds(bytes: f64, cost: f64, rate: u64) -> f64 {
    (bytes / rate as f64).max((bytes * WIRE_COST + cost) / CPU_RATE)
}

/// All that decides what [`encode`] makes, as the name of a file.
pub fn name(program: &Digest, decoders: Decoders, base: Option<&Digest>, rate: Option<u64>) -> String {
    let Decoders { checksum: _, zstd, lz4, delta, relocate } = decoders;
    let able = [(zstd, 'z'), (lz4, 'l'), (delta, 'd'), (relocate, 'r')];
    let able: String = able.iter().filter(|(able, _)| *able).map(|(_, letter)| letter).collect();
    let base =
        base.filter(|_| delta).map(|digest| format!("-{}", HEXLOWER.encode(digest))).unwrap_or_default();
    format!("{}{base}-{}-{able}-{FORMAT_VERSION}", HEXLOWER.encode(program), likely(rate))
}

/// The rate of a link that was so fast last time.
fn likely(rate: Option<u64>) -> u64 {
    let rate = rate.unwrap_or(LIKELY_RATE);
    RATES.iter().find(|(least, _)| *least <= rate).map_or(LIKELY_RATE, |(_, likely)| *likely)
}

/// Packs a program for a link of `rate` bytes a second. Takes up to a second or two: for a thread that may wait.
pub fn encode(program: &Bytes, decoders: Decoders, base: Option<Base>, rate: Option<u64>) -> Encoded {
    let rate = likely(rate);
    // A delta that takes longer to find than the whole program takes to arrive is no use.
    let whole = Duration::from_secs_f64(program.len() as f64 * WHOLE_FRACTION / rate as f64);
    smallest_time(program, decoders, base, rate, Instant::now() + whole)
}

/// The encoding by which a router has the program soonest, over a link of `rate` bytes a second. A delta is looked for until
/// `deadline`.
fn smallest_time(
    program: &Bytes,
    decoders: Decoders,
    base: Option<Base>,
    rate: u64,
    deadline: Instant,
) -> Encoded {
    let base = base.filter(|_| decoders.delta);
    let delta = base.and_then(|base| as_delta(program, base, decoders.relocate, rate, deadline));
    let length = program.len() as f64;
    let whole = seconds(length * WHOLE_FRACTION, length * LZ4_COST, rate);
    let best = match delta {
        // There is no need to pack the whole.
        Some(delta) if delta.seconds(rate) < whole / 2.0 => delta,
        Some(delta) => {
            let whole = as_whole(program, decoders, rate);
            if delta.seconds(rate) < whole.seconds(rate) { delta } else { whole }
        }
        None => as_whole(program, decoders, rate),
    };
    best.encoded
}

fn as_delta(
    program: &Bytes,
    base: Base,
    can_relocate: bool,
    rate: u64,
    deadline: Instant,
) -> Option<Candidate> {
    let copies = delta::find(&base.content, program, deadline)?;
    let candidate = |encoding, instructions: Vec<u8>| {
        let level = if instructions.len() < SHORT { STRONGEST } else { level(rate) };
        let bytes = zstd(&instructions, level).ok()?.into();
        let looked_at = if encoding == Encoding::RelocatedDelta { program.len() as f64 } else { 0.0 };
        let cost = instructions.len() as f64 * DELTA_COST + looked_at * ADDRESS_COST;
        Some(Candidate { encoded: Encoded { encoding, base: Some(base.digest), bytes }, cost })
    };
    let plain = delta::write(&base.content, program, &copies);
    let relocated = match can_relocate {
        true => delta::write_relocated(&base.content, program, &copies, deadline),
        false => None,
    };
    match relocated {
        // On a slow link the bytes on the wire decide.
        Some(relocated) if rate < SLOW_RATE => {
            let both = [candidate(Encoding::Delta, plain), candidate(Encoding::RelocatedDelta, relocated)];
            both.into_iter().flatten().min_by_key(|candidate| candidate.encoded.bytes.len())
        }
        Some(relocated) if relocated.len() + MIN_SAVED_BYTES < plain.len() => {
            candidate(Encoding::RelocatedDelta, relocated)
        }
        _ => candidate(Encoding::Delta, plain),
    }
}

fn as_whole(program: &Bytes, decoders: Decoders, rate: u64) -> Candidate {
    let encoded = if decoders.lz4 && (rate >= SLOW_RATE || !decoders.zstd) {
        lz4(program).map(|bytes| (Encoding::Lz4, bytes, LZ4_COST))
    } else if decoders.zstd {
        zstd(program, level(rate)).map(|bytes| (Encoding::Zstd, bytes, ZSTD_COST))
    } else {
        Err(io::ErrorKind::Unsupported.into())
    };
    match encoded {
        Ok((encoding, bytes, cost)) if bytes.len() < program.len() => Candidate {
            encoded: Encoded { encoding, base: None, bytes: bytes.into() },
            cost: cost * program.len() as f64,
        },
        // Incompressible content is sent plain.
        _ => Candidate {
            encoded: Encoded { encoding: Encoding::Identity, base: None, bytes: program.clone() },
            cost: 0.0,
        },
    }
}

fn level(rate: u64) -> i32 {
    LEVELS.iter().find(|(limit, _)| rate < *limit).map_or(LEVEL, |(_, level)| *level)
}

fn zstd(content: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), level)?;
    encoder.window_log(WINDOW_LOG)?;
    encoder.write_all(content)?;
    encoder.finish()
}

fn lz4(content: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = lz4::EncoderBuilder::new()
        .level(LZ4_LEVEL)
        .block_size(lz4::BlockSize::Max64KB)
        .block_mode(lz4::BlockMode::Linked)
        .checksum(lz4::ContentChecksum::NoChecksum)
        .block_checksum(lz4::liblz4::BlockChecksum::NoBlockChecksum)
        .build(Vec::new())?;
    encoder.write_all(content)?;
    let (bytes, finished) = encoder.finish();
    finished.map(|()| bytes)
}

/// Output as the program wrote it, of which `data` came: packed, if `uncompressed_size` is not 0.
///
/// # Errors
/// It is not what it says to be. No more memory was taken than for a chunk.
pub fn decompress(data: Bytes, uncompressed_size: u32) -> Result<Bytes, &'static str> {
    let size = uncompressed_size as usize;
    if size == 0 {
        return Ok(data);
    }
    if size > OUTPUT_CHUNK_BYTES {
        return Err("a packed piece of output is longer than a chunk");
    }
    let unpacked = lz4::block::decompress(&data, i32::try_from(size).ok());
    match unpacked {
        Ok(unpacked) if unpacked.len() == size => Ok(unpacked.into()),
        _ => Err("a packed piece of output is not what it says to be"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ALL: Decoders = Decoders { checksum: true, zstd: true, lz4: true, delta: true, relocate: true };

    /// Something like a program: words that come again, and some that do not.
    fn program() -> Bytes {
        let words = (0..50_000u32).map(|i| if i % 5 == 0 { i.wrapping_mul(2_654_435_761) } else { i / 64 });
        words.flat_map(u32::to_be_bytes).collect::<Vec<_>>().into()
    }

    fn base(content: &[u8]) -> Option<Base> {
        Some(Base { digest: [7; 32], content: content.to_vec() })
    }

    /// So late that the speed of this machine decides nothing.
    fn far() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    fn encode(program: &Bytes, decoders: Decoders, base: Option<Base>, rate: Option<u64>) -> Encoded {
        smallest_time(program, decoders, base, likely(rate), far())
    }

    #[test]
    fn encoding_depends_on_link_rate() {
        let lengths = [None, Some(900_000), Some(200_000), Some(50_000)].map(|rate| {
            let encoded = encode(&program(), ALL, None, rate);
            let expected = if rate.is_some() { Encoding::Zstd } else { Encoding::Lz4 };
            assert_eq!(encoded.encoding, expected, "{rate:?}");
            encoded.bytes.len()
        });
        assert!(lengths[1..].iter().all(|length| *length < lengths[0]), "{lengths:?}");
    }

    #[test]
    fn cache_names_tell_encodings_apart() {
        let only = |zstd, lz4, delta| Decoders { zstd, lz4, delta, relocate: false, ..ALL };
        let names = [
            name(&[1; 32], ALL, None, None),
            name(&[2; 32], ALL, None, None),
            name(&[1; 32], ALL, Some(&[3; 32]), None),
            name(&[1; 32], ALL, Some(&[4; 32]), None),
            name(&[1; 32], ALL, None, Some(900_000)),
            name(&[1; 32], ALL, None, Some(200_000)),
            name(&[1; 32], ALL, None, Some(50_000)),
            name(&[1; 32], only(true, false, false), None, None),
            name(&[1; 32], only(false, true, false), None, None),
            name(&[1; 32], only(false, false, true), None, None),
            name(&[1; 32], only(true, true, true), None, None),
        ];
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len(), "{names:?}");
        assert_eq!(names[0], name(&[1; 32], ALL, None, Some(70_000_000)), "as fast as it matters");
        assert_eq!(name(&[1; 32], ALL, None, Some(1_900_000)), name(&[1; 32], ALL, None, Some(SLOW_RATE)));
        assert!(names.iter().all(|name| name.len() < 200));
    }

    #[test]
    fn only_supported_encodings_are_sent() {
        let only =
            |decoders: Decoders| encode(&program(), decoders, base(&program()), Some(100_000)).encoding;
        let none = Decoders::default();
        assert_eq!(only(none), Encoding::Identity);
        assert_eq!(only(Decoders { lz4: true, ..none }), Encoding::Lz4);
        assert_eq!(only(Decoders { zstd: true, ..none }), Encoding::Zstd);
        assert_eq!(only(Decoders { delta: true, ..none }), Encoding::Delta);
    }

    #[test]
    fn small_change_sends_a_delta() {
        let mut changed = program().to_vec();
        changed[1000] ^= 1;
        let encoded = encode(&changed.into(), ALL, base(&program()), None);
        assert_eq!((encoded.encoding, encoded.base), (Encoding::Delta, Some([7; 32])));
        assert!(encoded.bytes.len() < 100, "{}", encoded.bytes.len());
        assert_eq!(encode(&program(), ALL, base(b"nothing of it"), Some(100)).encoding, Encoding::Zstd);
    }

    #[test]
    fn delta_is_sent_if_faster() {
        // Half of it compresses to little. The other half is new, and noise: LZ4 finds nothing in it, nor does zstd.
        let known: Vec<u8> = (0..50_000u32).flat_map(|index| (index / 64).to_be_bytes()).collect();
        let digest = |index: u32| ring::digest::digest(&ring::digest::SHA256, &index.to_be_bytes());
        let noise: Vec<u8> = (0..6000).flat_map(|index| digest(index).as_ref().to_vec()).collect();
        let program = Bytes::from([&known[..], &noise].concat());
        let encode = |rate| encode(&program, ALL, base(&known), rate).encoding;
        assert_eq!(encode(None), Encoding::Lz4, "which costs the router's CPU less");
        assert_eq!(encode(Some(SLOW_RATE / 2)), Encoding::Delta, "which is shorter");
    }

    #[test]
    fn relocated_delta_is_sent_if_smaller() {
        let [base, program] = delta::builds();
        let program = Bytes::from(program);
        let encoded = |can_relocate, rate| {
            let base = Base { digest: [7; 32], content: base.clone() };
            as_delta(&program, base, can_relocate, rate, far()).unwrap().encoded
        };
        let (plain, relocated) = (encoded(false, 100), encoded(true, 100));
        assert_eq!((plain.encoding, relocated.encoding), (Encoding::Delta, Encoding::RelocatedDelta));
        assert_eq!(relocated.base, Some([7; 32]));
        assert!(
            relocated.bytes.len() < plain.bytes.len() / 2,
            "{} and {}",
            relocated.bytes.len(),
            plain.bytes.len()
        );
        // Little is spared.
        let near =
            as_delta(&program, Base { digest: [7; 32], content: base.clone() }, true, SLOW_RATE, far());
        assert!(near.is_none_or(|near| near.encoded.encoding == Encoding::Delta));
    }

    #[test]
    fn wrong_compressed_output_is_refused() {
        let plain = vec![7; OUTPUT_CHUNK_BYTES + 1];
        let encoded =
            |length: usize| Bytes::from(lz4::block::compress(&plain[..length], None, false).unwrap());
        assert_eq!(decompress(Bytes::from_static(b"as it is"), 0).unwrap(), "as it is");
        assert_eq!(decompress(encoded(1000), 1000).unwrap(), plain[..1000]);
        assert_eq!(
            decompress(encoded(OUTPUT_CHUNK_BYTES), OUTPUT_CHUNK_BYTES as u32).unwrap().len(),
            OUTPUT_CHUNK_BYTES
        );
        for (length, size) in [(1000, 999), (1000, 1001), (OUTPUT_CHUNK_BYTES + 1, OUTPUT_CHUNK_BYTES + 1)] {
            assert!(decompress(encoded(length), size as u32).is_err(), "{length} as {size}");
        }
        assert!(decompress(encoded(1000), u32::MAX).is_err());
        for broken in [&b""[..], b"\xff", b"\x10a\x02\x00\x00", b"\x50abc"] {
            assert!(decompress(Bytes::from_static(broken), 100).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn incompressible_program_is_sent_plain() {
        let noise: Vec<u8> = (0..10_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let content = ring::digest::digest(&ring::digest::SHA256, &noise).as_ref().to_vec().into();
        assert_eq!(encode(&content, ALL, None, None).encoding, Encoding::Identity);
    }

    #[test]
    fn frames_have_their_formats() {
        let program = program();
        let unpacked = zstd::decode_all(&zstd(&program, LEVEL).unwrap()[..]).unwrap();
        assert!(unpacked == program);
        let mut unpacked = Vec::new();
        let encoded = lz4(&program).unwrap();
        io::copy(&mut lz4::Decoder::new(&encoded[..]).unwrap(), &mut unpacked).unwrap();
        assert!(unpacked == program);
        // No block is independent, none has a checksum, each is 64 KiB: all that an agent takes.
        assert_eq!(encoded[4..6], [0x40, 0x40]);
    }
}
