//! What a program is sent as: a delta against one that the router has, compressed, or as it is. And how packed output comes
//! out again.
//!
//! What is chosen follows from how fast the link was last time. On a fast one the router's CPU is what all wait for, and LZ4
//! costs it least; on a slow one every byte counts, and zstd makes the fewest, at a level that the time on the wire pays for.
//! A delta is sent where the router has the program sooner by it, and is not looked for longer than the program would take as a
//! whole; one in which addresses are followed, if there is time, where that spares more than it costs.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hop_proto::limits::OUTPUT_CHUNK_BYTES;
use hop_proto::v1::{Encoding, GetInfoResponse};

use crate::delta;
use crate::link::can;
use crate::sent::{Digest, hexadecimal};

/// Bytes a second of a link about which nothing is known: a cable to the router on the desk.
const LIKELY_RATE: u64 = 5_000_000;

/// Below so many bytes a second a link is slower than a router's CPU inflates.
const SLOW_RATE: u64 = 1_000_000;

/// Links are told apart by the least that they carried, lest what is packed for one not do for another that is nearly the same; and
/// count as one that carries so much. What was measured has the router's CPU in it, and it is no faster than the first.
const RATES: [(u64, u64); 5] =
    [(2_500_000, LIKELY_RATE), (SLOW_RATE, 1_600_000), (300_000, 550_000), (60_000, 130_000), (0, 30_000)];

/// What LZ4 makes of a Go program takes a second for so many bytes; and it is two fifths of the program.
const LZ4_LEVEL: u32 = 9;
const WHOLE_PART: f64 = 0.4;

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
const LEAST_SPARED: usize = 16 * 1024;

/// Changes with what is made of the same, lest an older one be sent from the cache.
const PACKING: u32 = 3;

/// What an agent can decode.
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
    pub fn of(info: &GetInfoResponse) -> Self {
        let can = |capability| can(info, capability);
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
pub struct Packed {
    /// How.
    pub encoding: Encoding,
    /// What the delta is against, if it is one.
    pub base: Option<Digest>,
    /// The bytes.
    pub bytes: Bytes,
}

impl Packed {
    /// Whether it wants a base.
    pub fn is_delta(&self) -> bool {
        matches!(self.encoding, Encoding::Delta | Encoding::RelocatedDelta)
    }
}

/// Something that a program may be sent as.
struct Candidate {
    packed: Packed,
    /// What it costs the router's CPU, in instructions, to make the program of it.
    cost: f64,
}

impl Candidate {
    /// How long it takes until a router has the program: the link and the CPU work at the same time.
    fn seconds(&self, rate: u64) -> f64 {
        seconds(self.packed.bytes.len() as f64, self.cost, rate)
    }
}

fn seconds(bytes: f64, cost: f64, rate: u64) -> f64 {
    (bytes / rate as f64).max((bytes * WIRE_COST + cost) / CPU_RATE)
}

/// All that decides what [`pack`] makes, as the name of a file.
pub fn name(program: &Digest, decoders: Decoders, base: Option<&Digest>, rate: Option<u64>) -> String {
    let Decoders { checksum: _, zstd, lz4, delta, relocate } = decoders;
    let able = [(zstd, 'z'), (lz4, 'l'), (delta, 'd'), (relocate, 'r')];
    let able: String = able.iter().filter(|(able, _)| *able).map(|(_, letter)| letter).collect();
    let base = base.filter(|_| delta).map(|digest| format!("-{}", hexadecimal(digest))).unwrap_or_default();
    format!("{}{base}-{}-{able}-{PACKING}", hexadecimal(program), likely(rate))
}

/// The rate of a link that was so fast last time.
fn likely(rate: Option<u64>) -> u64 {
    let rate = rate.unwrap_or(LIKELY_RATE);
    RATES.iter().find(|(least, _)| *least <= rate).map_or(LIKELY_RATE, |(_, likely)| *likely)
}

/// Packs a program for a link of `rate` bytes a second. Takes up to a second or two: for a thread that may wait.
pub fn pack(program: &Bytes, decoders: Decoders, base: Option<Base>, rate: Option<u64>) -> Packed {
    let rate = likely(rate);
    // A delta that takes longer to find than the whole program takes to arrive is no use.
    let whole = Duration::from_secs_f64(program.len() as f64 * WHOLE_PART / rate as f64);
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
) -> Packed {
    let base = base.filter(|_| decoders.delta);
    let delta = base.and_then(|base| as_delta(program, base, decoders.relocate, rate, deadline));
    let length = program.len() as f64;
    let whole = seconds(length * WHOLE_PART, length * LZ4_COST, rate);
    let best = match delta {
        // There is no need to pack the whole.
        Some(delta) if delta.seconds(rate) < whole / 2.0 => delta,
        Some(delta) => {
            let whole = as_whole(program, decoders, rate);
            if delta.seconds(rate) < whole.seconds(rate) { delta } else { whole }
        }
        None => as_whole(program, decoders, rate),
    };
    best.packed
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
        Some(Candidate { packed: Packed { encoding, base: Some(base.digest), bytes }, cost })
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
            both.into_iter().flatten().min_by_key(|candidate| candidate.packed.bytes.len())
        }
        Some(relocated) if relocated.len() + LEAST_SPARED < plain.len() => {
            candidate(Encoding::RelocatedDelta, relocated)
        }
        _ => candidate(Encoding::Delta, plain),
    }
}

fn as_whole(program: &Bytes, decoders: Decoders, rate: u64) -> Candidate {
    let packed = if decoders.lz4 && (rate >= SLOW_RATE || !decoders.zstd) {
        lz4(program).map(|bytes| (Encoding::Lz4, bytes, LZ4_COST))
    } else if decoders.zstd {
        zstd(program, level(rate)).map(|bytes| (Encoding::Zstd, bytes, ZSTD_COST))
    } else {
        Err(io::ErrorKind::Unsupported.into())
    };
    match packed {
        Ok((encoding, bytes, cost)) if bytes.len() < program.len() => Candidate {
            packed: Packed { encoding, base: None, bytes: bytes.into() },
            cost: cost * program.len() as f64,
        },
        // What cannot be compressed goes as it is.
        _ => Candidate {
            packed: Packed { encoding: Encoding::Identity, base: None, bytes: program.clone() },
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
pub fn unpack(data: Bytes, uncompressed_size: u32) -> Result<Bytes, &'static str> {
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

    fn pack(program: &Bytes, decoders: Decoders, base: Option<Base>, rate: Option<u64>) -> Packed {
        smallest_time(program, decoders, base, likely(rate), far())
    }

    #[test]
    fn a_slow_link_gets_the_fewest_bytes_and_a_fast_one_what_is_unpacked_fastest() {
        let lengths = [None, Some(900_000), Some(200_000), Some(50_000)].map(|rate| {
            let packed = pack(&program(), ALL, None, rate);
            let expected = if rate.is_some() { Encoding::Zstd } else { Encoding::Lz4 };
            assert_eq!(packed.encoding, expected, "{rate:?}");
            packed.bytes.len()
        });
        assert!(lengths[1..].iter().all(|length| *length < lengths[0]), "{lengths:?}");
    }

    #[test]
    fn what_is_packed_in_another_way_has_another_name() {
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
    fn an_agent_gets_nothing_that_it_cannot_decode() {
        let only = |decoders: Decoders| pack(&program(), decoders, base(&program()), Some(100_000)).encoding;
        let none = Decoders::default();
        assert_eq!(only(none), Encoding::Identity);
        assert_eq!(only(Decoders { lz4: true, ..none }), Encoding::Lz4);
        assert_eq!(only(Decoders { zstd: true, ..none }), Encoding::Zstd);
        assert_eq!(only(Decoders { delta: true, ..none }), Encoding::Delta);
    }

    #[test]
    fn a_delta_is_sent_where_it_is_smaller() {
        let mut changed = program().to_vec();
        changed[1000] ^= 1;
        let packed = pack(&changed.into(), ALL, base(&program()), None);
        assert_eq!((packed.encoding, packed.base), (Encoding::Delta, Some([7; 32])));
        assert!(packed.bytes.len() < 100, "{}", packed.bytes.len());
        assert_eq!(pack(&program(), ALL, base(b"nothing of it"), Some(100)).encoding, Encoding::Zstd);
    }

    #[test]
    fn a_delta_is_sent_where_the_router_has_the_program_sooner_by_it() {
        // Half of it compresses to little. The other half is new, and noise: LZ4 finds nothing in it, nor does zstd.
        let known: Vec<u8> = (0..50_000u32).flat_map(|index| (index / 64).to_be_bytes()).collect();
        let digest = |index: u32| ring::digest::digest(&ring::digest::SHA256, &index.to_be_bytes());
        let noise: Vec<u8> = (0..6000).flat_map(|index| digest(index).as_ref().to_vec()).collect();
        let program = Bytes::from([&known[..], &noise].concat());
        let pack = |rate| pack(&program, ALL, base(&known), rate).encoding;
        assert_eq!(pack(None), Encoding::Lz4, "which costs the router's CPU less");
        assert_eq!(pack(Some(SLOW_RATE / 2)), Encoding::Delta, "which is shorter");
    }

    #[test]
    fn addresses_are_followed_where_that_spares_enough() {
        let [base, program] = delta::builds();
        let program = Bytes::from(program);
        let packed = |can_relocate, rate| {
            let base = Base { digest: [7; 32], content: base.clone() };
            as_delta(&program, base, can_relocate, rate, far()).unwrap().packed
        };
        let (plain, relocated) = (packed(false, 100), packed(true, 100));
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
        assert!(near.is_none_or(|near| near.packed.encoding == Encoding::Delta));
    }

    #[test]
    fn packed_output_is_what_it_says_to_be_or_is_refused() {
        let plain = vec![7; OUTPUT_CHUNK_BYTES + 1];
        let packed =
            |length: usize| Bytes::from(lz4::block::compress(&plain[..length], None, false).unwrap());
        assert_eq!(unpack(Bytes::from_static(b"as it is"), 0).unwrap(), "as it is");
        assert_eq!(unpack(packed(1000), 1000).unwrap(), plain[..1000]);
        assert_eq!(
            unpack(packed(OUTPUT_CHUNK_BYTES), OUTPUT_CHUNK_BYTES as u32).unwrap().len(),
            OUTPUT_CHUNK_BYTES
        );
        for (length, size) in [(1000, 999), (1000, 1001), (OUTPUT_CHUNK_BYTES + 1, OUTPUT_CHUNK_BYTES + 1)] {
            assert!(unpack(packed(length), size as u32).is_err(), "{length} as {size}");
        }
        assert!(unpack(packed(1000), u32::MAX).is_err());
        for broken in [&b""[..], b"\xff", b"\x10a\x02\x00\x00", b"\x50abc"] {
            assert!(unpack(Bytes::from_static(broken), 100).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn what_does_not_become_smaller_goes_as_it_is() {
        let noise: Vec<u8> = (0..10_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let content = ring::digest::digest(&ring::digest::SHA256, &noise).as_ref().to_vec().into();
        assert_eq!(pack(&content, ALL, None, None).encoding, Encoding::Identity);
    }

    #[test]
    fn the_frames_are_what_their_formats_say() {
        let program = program();
        let unpacked = zstd::decode_all(&zstd(&program, LEVEL).unwrap()[..]).unwrap();
        assert!(unpacked == program);
        let mut unpacked = Vec::new();
        let packed = lz4(&program).unwrap();
        io::copy(&mut lz4::Decoder::new(&packed[..]).unwrap(), &mut unpacked).unwrap();
        assert!(unpacked == program);
        // No block is independent, none has a checksum, each is 64 KiB: all that an agent takes.
        assert_eq!(packed[4..6], [0x40, 0x40]);
    }
}
