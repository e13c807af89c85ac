//! Finds the parts that two programs have in common.
//!
//! After the way of bsdiff (Colin Percival, "Naive differences of executable code", 2003): what moved is found by what is
//! the same in it, and what differs in between, addresses most of all, is written as differences. Instead of a sorted index of
//! all suffixes, every fourth position is hashed, because instructions are four bytes: that takes 0.06 s for 6 MB where the
//! other takes seconds, and finds nearly as much.
//!
//! **Invariants:** the copies, and what is new behind each, are the program from its beginning to its end, whatever
//! the two are; and it takes no longer than it is allowed to.

use std::time::Instant;

/// Positions of the base that are looked for: one of this many.
const STRIDE: usize = 4;

/// Bytes that must be the same at a position for it to be found.
const SEED: usize = 16;

/// Positions of the same hash that are compared.
const CANDIDATES: usize = 16;

/// A move is worth it if so many more bytes are the same than without.
const GAIN: usize = 8;

/// Positions between two looks at the clock.
const POLL_INTERVAL: usize = 1 << 14;

/// Bytes of the base, some of which differ in the program, and then bytes that are new.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    /// Where in the base.
    pub from: usize,
    /// Where in the program.
    pub to: usize,
    /// Bytes of the base.
    pub copied: usize,
    /// Bytes that are new.
    pub new: usize,
}

/// The copies that make `program` out of `base`, in its order; `None` if they were not found by `deadline`.
pub fn find(base: &[u8], program: &[u8], deadline: Instant) -> Option<Vec<Copy>> {
    let index = Index::new(base);
    let mut copies = Vec::new();
    // Where the last copy began, in both, and how far it has moved.
    let (mut last_to, mut last_from, mut shift) = (0, 0, 0_isize);
    let (mut to, mut length, mut from) = (0, 0, 0);
    let mut looked = 0;
    while to < program.len() {
        // How much is the same without a move, of the bytes from `to` to `counted`.
        let mut score = 0;
        to += length;
        let mut counted = to;
        while to < program.len() {
            if to >= looked + POLL_INTERVAL {
                looked = to;
                if Instant::now() >= deadline {
                    return None;
                }
            }
            (length, from) = index.find(program, to, shift);
            while counted < to + length {
                score += usize::from(is_same(base, program, counted, shift));
                counted += 1;
            }
            if (length == score && length != 0) || length > score + GAIN {
                break;
            }
            if counted > to && is_same(base, program, to, shift) {
                score -= 1;
            }
            to += 1;
            counted = counted.max(to);
        }
        if length == score && to < program.len() {
            continue;
        }
        // The last copy goes as far as that pays, and the next one begins as early as that does.
        let mut forward = extent(program[last_to..to].iter().zip(&base[last_from..]));
        let mut backward = match to < program.len() {
            true => extent(program[last_to..to].iter().rev().zip(base[..from].iter().rev())),
            false => 0,
        };
        if last_to + forward > to - backward {
            let overlap = last_to + forward - (to - backward);
            let kept = divide(
                &program[to - backward..][..overlap],
                &base[last_from + forward - overlap..][..overlap],
                &base[from - backward..][..overlap],
            );
            forward = forward + kept - overlap;
            backward -= kept;
        }
        let new = to - backward - (last_to + forward);
        copies.push(Copy { from: last_from, to: last_to, copied: forward, new });
        (last_to, last_from) = (to - backward, from - backward);
        shift = from as isize - to as isize;
    }
    Some(copies)
}

/// Whether a byte of the program equals the byte of the base at this shift.
fn is_same(base: &[u8], program: &[u8], at: usize, shift: isize) -> bool {
    at.checked_add_signed(shift).and_then(|from| base.get(from)) == Some(&program[at])
}

/// How many of these pairs to take so that as many as possible are the same and few are not.
fn extent<'a>(pairs: impl Iterator<Item = (&'a u8, &'a u8)>) -> usize {
    let (mut same, mut best, mut extent) = (0_isize, 0, 0);
    for (index, (one, other)) in pairs.enumerate() {
        same += isize::from(one == other);
        let worth = 2 * same - (index as isize + 1);
        if worth > best {
            (best, extent) = (worth, index + 1);
        }
    }
    extent
}

/// Where to switch from one copy to the next, within the bytes that both could make.
fn divide(program: &[u8], one: &[u8], other: &[u8]) -> usize {
    let (mut worth, mut best, mut kept) = (0_isize, 0, 0);
    for (index, byte) in program.iter().enumerate() {
        worth += isize::from(*byte == one[index]) - isize::from(*byte == other[index]);
        if worth > best {
            (best, kept) = (worth, index + 1);
        }
    }
    kept
}

/// The length of the common prefix of two slices.
pub fn common(one: &[u8], other: &[u8]) -> usize {
    const WORD: usize = 8;
    let words = one.chunks_exact(WORD).zip(other.chunks_exact(WORD));
    let same = WORD * words.take_while(|(one, other)| one == other).count();
    same + one[same..].iter().zip(&other[same..]).take_while(|(one, other)| one == other).count()
}

/// An index of the base, by hashes.
struct Index<'a> {
    base: &'a [u8],
    /// The last position of each hash, in strides.
    last: Vec<u32>,
    /// The one before each position that has the same hash.
    before: Vec<u32>,
    bits: u32,
}

const NONE: u32 = u32::MAX;

impl<'a> Index<'a> {
    fn new(base: &'a [u8]) -> Self {
        let positions = base.len() / STRIDE;
        let bits = (usize::BITS - positions.leading_zeros()).max(10);
        let mut index = Self { base, last: vec![NONE; 1 << bits], before: vec![NONE; positions + 1], bits };
        for position in 0..=positions {
            let Some(seed) = base.get(position * STRIDE..).and_then(<[u8]>::first_chunk) else { break };
            let slot = index.slot(seed);
            // A program has less than 4 GiB.
            index.before[position] = std::mem::replace(&mut index.last[slot], position as u32);
        }
        index
    }

    fn slot(&self, seed: &[u8; SEED]) -> usize {
        let number = u128::from_le_bytes(*seed);
        let (low, high) = (number as u64, (number >> 64) as u64);
        let mixed = low.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ high.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        (mixed.wrapping_mul(0x9fb2_1c65_1e98_df25) >> (64 - self.bits)) as usize
    }

    /// The longest piece of the base that the program has at `to`, of several the one nearest to where it would be with
    /// `shift`: its length, or 0, and where it is.
    fn find(&self, program: &[u8], to: usize, shift: isize) -> (usize, usize) {
        let Some(seed) = program[to..].first_chunk() else { return (0, 0) };
        let expected = to as isize + shift;
        let mut best = (0, 0);
        let mut distance = usize::MAX;
        let mut position = self.last[self.slot(seed)];
        for _ in 0..CANDIDATES {
            if position == NONE {
                break;
            }
            let from = position as usize * STRIDE;
            let length = common(&self.base[from..], &program[to..]);
            let away = expected.abs_diff(from as isize);
            if length >= SEED && (length > best.0 || length == best.0 && away < distance) {
                (best, distance) = ((length, from), away);
            }
            position = self.before[position as usize];
        }
        best
    }
}
