//! What has changed from one program to another: the encoding that `docs/protocol.md` calls a delta, before it is compressed.
//!
//! After the way of bsdiff (Colin Percival, "Naive differences of executable code", 2003): what moved is found by what is
//! the same in it, and what differs in between, addresses most of all, is written as differences. Instead of a sorted index of
//! all suffixes, every fourth position is hashed, because instructions are four bytes: that takes 0.06 s for 6 MB where the
//! other takes seconds, and finds nearly as much. What must stay true: the base and the delta make the program, whatever
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
const LOOK_INTERVAL: usize = 1 << 14;

/// Bytes of the base, some of which differ in the program, and then bytes that are new.
#[derive(Debug)]
struct Instruction {
    /// Where in the base.
    from: usize,
    /// Where in the program.
    to: usize,
    copied: usize,
    new: usize,
}

/// The instructions that make `program` out of `base`; `None` if they were not found by `deadline`.
pub fn between(base: &[u8], program: &[u8], deadline: Instant) -> Option<Vec<u8>> {
    let instructions = find(base, program, deadline)?;
    let mut written = Vec::new();
    let mut at = 0;
    for Instruction { from, to, copied, new } in instructions {
        write_number(&mut written, copied as u64);
        write_number(&mut written, new as u64);
        let distance = from as i64 - at as i64;
        // The lowest bit is the sign.
        write_number(&mut written, ((distance << 1) ^ (distance >> 63)) as u64);
        write_differences(&mut written, &base[from..from + copied], &program[to..to + copied]);
        written.extend_from_slice(&program[to + copied..to + copied + new]);
        at = from + copied;
    }
    Some(written)
}

/// Runs of bytes that are the same, and of differences, in turn.
fn write_differences(written: &mut Vec<u8>, old: &[u8], new: &[u8]) {
    let mut rest = (old, new);
    while !rest.0.is_empty() {
        let same = common(rest.0, rest.1);
        write_number(written, same as u64);
        rest = (&rest.0[same..], &rest.1[same..]);
        if rest.0.is_empty() {
            return;
        }
        let pairs = || rest.0.iter().zip(rest.1);
        let different = pairs().take_while(|(old, new)| old != new).count();
        write_number(written, different as u64);
        written.extend(pairs().take(different).map(|(old, new)| new.wrapping_sub(*old)));
        rest = (&rest.0[different..], &rest.1[different..]);
    }
}

/// In base 128, the lowest digits first; every byte but the last has its highest bit set.
fn write_number(written: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        written.push(number as u8 | 0x80);
        number >>= 7;
    }
    written.push(number as u8);
}

fn find(base: &[u8], program: &[u8], deadline: Instant) -> Option<Vec<Instruction>> {
    let index = Index::new(base);
    let mut instructions = Vec::new();
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
            if to >= looked + LOOK_INTERVAL {
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
        instructions.push(Instruction { from: last_from, to: last_to, copied: forward, new });
        (last_to, last_from) = (to - backward, from - backward);
        shift = from as isize - to as isize;
    }
    Some(instructions)
}

/// Whether a byte of the program is the one of the base that has moved as far.
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

/// Where to go over from one copy to the next, of the bytes that both could have.
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

/// How many bytes two slices begin with that are the same.
fn common(one: &[u8], other: &[u8]) -> usize {
    const WORD: usize = 8;
    let words = one.chunks_exact(WORD).zip(other.chunks_exact(WORD));
    let same = WORD * words.take_while(|(one, other)| one == other).count();
    same + one[same..].iter().zip(&other[same..]).take_while(|(one, other)| one == other).count()
}

/// Where in the base something is.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    /// Reads what [`between`] writes, as docs/protocol.md tells it.
    fn apply(base: &[u8], mut delta: &[u8]) -> Vec<u8> {
        fn number(delta: &mut &[u8]) -> u64 {
            let end = delta.iter().position(|byte| byte & 0x80 == 0).unwrap();
            let (digits, rest) = delta.split_at(end + 1);
            *delta = rest;
            digits.iter().rev().fold(0, |number, digit| number << 7 | u64::from(digit & 0x7f))
        }
        let mut program = Vec::new();
        let mut at = 0_i64;
        while !delta.is_empty() {
            let [copied, new, seek] = [(); 3].map(|()| number(&mut delta));
            at += (seek >> 1) as i64 ^ -((seek & 1) as i64);
            let from = usize::try_from(at).unwrap();
            let start = program.len();
            program.extend_from_slice(&base[from..from + copied as usize]);
            let mut open = copied;
            let mut next = start;
            while open > 0 {
                let same = number(&mut delta);
                open -= same;
                next += same as usize;
                if open > 0 {
                    let different = number(&mut delta);
                    open -= different;
                    for difference in &delta[..different as usize] {
                        program[next] = program[next].wrapping_add(*difference);
                        next += 1;
                    }
                    delta = &delta[different as usize..];
                }
            }
            program.extend_from_slice(&delta[..new as usize]);
            delta = &delta[new as usize..];
            at += copied as i64;
        }
        program
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// Bytes without a pattern, the same each time.
    fn noise(count: usize, mut seed: u32) -> Vec<u8> {
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 17;
            seed ^= seed << 5;
            seed as u8
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn a_program_that_was_changed_here_and_there_takes_little() {
        let base = noise(100_000, 1);
        let mut program = base.clone();
        // An address that has changed every 400 bytes, something put in, something taken out, something moved.
        for at in (0..program.len()).step_by(400) {
            program[at] = program[at].wrapping_add(24);
        }
        program.splice(50_000..50_000, noise(100, 2));
        program.drain(70_000..70_050);
        let moved: Vec<u8> = program.drain(10_000..20_000).collect();
        program.splice(60_000..60_000, moved);
        let delta = between(&base, &program, later()).unwrap();
        assert_eq!(apply(&base, &delta), program);
        assert!(delta.len() < 1500, "{}", delta.len());
    }

    #[test]
    fn any_base_and_any_program_will_do() {
        let some = noise(1000, 3);
        let other = noise(1000, 4);
        let same = vec![7; 5000];
        let few: &[u8] = &some[..3];
        for base in [&some[..], &other, &same, few, &[]] {
            for program in [&some[..], &other, &same, few, &some[13..], &[]] {
                let delta = between(base, program, later()).unwrap();
                assert_eq!(apply(base, &delta), program, "{} to {}", base.len(), program.len());
            }
        }
    }

    #[test]
    fn what_takes_too_long_is_given_up() {
        assert!(between(&noise(100_000, 1), &noise(100_000, 2), Instant::now()).is_none());
    }
}
