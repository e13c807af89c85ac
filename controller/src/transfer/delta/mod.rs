//! What has changed from one program to another: the encodings that `docs/protocol.md` calls a delta, and a relocated one, before
//! they are compressed.
//!
//! **Invariants:** the base and the delta make the program, whatever the two are.

mod functions;
mod image;
mod relocation;
mod search;
mod shifts;

use std::time::Instant;

use hop_formats::relocation::{CONTENT_BITS, Content, Relocation};

use self::relocation::Relocator;
pub use self::search::{Copy, find};
#[cfg(test)]
pub use self::tests::builds;

/// The instructions that make `program` out of `base` by these copies.
pub fn write(base: &[u8], program: &[u8], copies: &[Copy]) -> Vec<u8> {
    let mut writer = Writer::default();
    for copy in copies {
        let old = &base[copy.from..copy.from + copy.copied];
        writer.copy(copy, copy.copied as u64, old, program);
    }
    writer.written
}

/// The instructions of a relocated delta, in which addresses follow what has moved. `None` if the two are not for the same kind of MIPS, or it was not found out
/// by `deadline` what has moved.
pub fn write_relocated(base: &[u8], program: &[u8], copies: &[Copy], deadline: Instant) -> Option<Vec<u8>> {
    let mut relocator = Relocator::new(base, program)?;
    let parts = relocator.relocate(copies, deadline)?;
    let mut writer = Writer::default();
    writer.head(relocator.relocation());
    let mut end = 0;
    for (copy, content) in &parts {
        // Whatever the two say of themselves, each byte is made once.
        if copy.to != end {
            return None;
        }
        end += copy.copied + copy.new;
        let number = Content::ALL.iter().position(|known| known == content)?;
        let length = (copy.copied as u64) << CONTENT_BITS | number as u64;
        writer.copy(copy, length, &relocator.expected(copy, *content), program);
    }
    (end == program.len()).then_some(writer.written)
}

#[derive(Default)]
struct Writer {
    written: Vec<u8>,
    /// Where in the base the last copy ended.
    at: usize,
}

impl Writer {
    /// What has moved.
    fn head(&mut self, relocation: &Relocation) {
        let moves = relocation.moves.all();
        self.number(moves.len() as u64);
        let (mut end, mut by) = (0, 0);
        for one in moves {
            self.number((one.from - end).into());
            self.number(one.length.into());
            self.signed((one.by.wrapping_sub(by) as i32).into());
            (end, by) = (one.from + one.length, one.by);
        }
        for (place, by) in relocation.places {
            self.number(place.into());
            self.signed((by as i32).into());
        }
    }

    /// A copy of this length, and what is new behind it; `old` is what it is before the differences.
    fn copy(&mut self, copy: &Copy, length: u64, old: &[u8], program: &[u8]) {
        let Copy { from, to, copied, new } = *copy;
        self.number(length);
        self.number(new as u64);
        self.signed(from as i64 - self.at as i64);
        self.differences(old, &program[to..to + copied]);
        self.written.extend_from_slice(&program[to + copied..to + copied + new]);
        self.at = from + copied;
    }

    /// Runs of bytes that are the same, and of differences, in turn.
    fn differences(&mut self, old: &[u8], new: &[u8]) {
        let mut rest = (old, new);
        while !rest.0.is_empty() {
            let same = search::common(rest.0, rest.1);
            self.number(same as u64);
            rest = (&rest.0[same..], &rest.1[same..]);
            if rest.0.is_empty() {
                return;
            }
            let pairs = || rest.0.iter().zip(rest.1);
            let different = pairs().take_while(|(old, new)| old != new).count();
            self.number(different as u64);
            self.written.extend(pairs().take(different).map(|(old, new)| new.wrapping_sub(*old)));
            rest = (&rest.0[different..], &rest.1[different..]);
        }
    }

    /// In base 128, the lowest digits first; every byte but the last has its highest bit set.
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.written.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.written.push(number as u8);
    }

    /// A number whose lowest bit is its sign.
    fn signed(&mut self, number: i64) {
        self.number((number << 1 ^ number >> 63) as u64);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use hop_formats::relocation::{Move, Moves};
    use object::elf;

    use super::*;

    fn number(delta: &mut &[u8]) -> u64 {
        let end = delta.iter().position(|byte| byte & 0x80 == 0).unwrap();
        let (digits, rest) = delta.split_at(end + 1);
        *delta = rest;
        digits.iter().rev().fold(0, |number, digit| number << 7 | u64::from(digit & 0x7f))
    }

    fn signed(delta: &mut &[u8]) -> i64 {
        let number = number(delta);
        (number >> 1) as i64 ^ -((number & 1) as i64)
    }

    /// What a relocated delta begins with.
    fn head(delta: &mut &[u8]) -> Relocation {
        let (mut end, mut by) = (0, 0);
        let moves = (0..number(delta)).map(|_| {
            let from = end + number(delta) as u32;
            let length = number(delta) as u32;
            (end, by) = (from + length, signed(delta).wrapping_add(by));
            Move { from, length, by: by as u32 }
        });
        let moves = Moves::new(moves.collect()).unwrap();
        let places = std::array::from_fn(|_| (number(delta) as u32, signed(delta) as u32));
        Relocation { moves, places }
    }

    /// Follows a delta for a program in big endian, as docs/protocol.md tells it.
    fn apply(base: &[u8], mut delta: &[u8], is_relocated: bool) -> Vec<u8> {
        let relocation = is_relocated.then(|| head(&mut delta));
        let mut program = Vec::new();
        let mut at = 0_i64;
        while !delta.is_empty() {
            let mut copied = number(&mut delta);
            let mut content = Content::Bytes;
            if is_relocated {
                content = Content::ALL[(copied & 7) as usize];
                copied >>= 3;
            }
            let new = number(&mut delta);
            at += signed(&mut delta);
            let from = usize::try_from(at).unwrap();
            let start = program.len();
            program.extend_from_slice(&base[from..from + copied as usize]);
            if let (Some(relocation), Some(words)) =
                (&relocation, program.get_mut(start + (4 - from % 4) % 4..))
            {
                relocation.follow::<true>(content, words);
            }
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

    /// A MIPS program of instructions at 0x1000 and data at 0x10000, whose header says no more than it must (elf(5)).
    fn elf(code: &[u32], data: &[u8]) -> Vec<u8> {
        const HEADERS: u32 = 52 + 2 * 32;
        let code_bytes = 4 * code.len() as u32;
        let mut words = vec![
            u32::from_be_bytes(elf::ELFMAG),
            0x0102_0100,
            0,
            0, // 32 bits, big endian
            0x0002_0008,
            1,
            0x1000,
            52,
            0,
            0,
            0x0034_0020,
            0x0002_0000,
            0, // an executable for MIPS, two segments
        ];
        words.extend([1, HEADERS, 0x1000, 0x1000, code_bytes, code_bytes, 5, 4]);
        let data_bytes = data.len() as u32;
        words.extend([1, HEADERS + code_bytes, 0x1_0000, 0x1_0000, data_bytes, data_bytes, 6, 4]);
        words.extend(code);
        let file = words.iter().flat_map(|word| word.to_be_bytes());
        file.chain(data.iter().copied()).collect()
    }

    /// Instructions that load addresses of `data`, of which those from `from` on have moved by `by`.
    fn loads(from: u32, by: u32) -> Vec<u32> {
        let instructions = (0..4000_u32).map(|index| {
            let address = 0x1_0000 + index.wrapping_mul(2_654_435_761) % 20_000;
            let address = if address < from { address } else { address + by };
            // lui at; lw v0, at; and something that tells where this is.
            let upper = address.wrapping_add(0x8000) >> 16;
            [0x3c01_0000 | upper, 0x8c22_0000 | address & 0xffff, 0x2463_0000 | index]
        });
        instructions.flatten().collect()
    }

    /// Two builds of a program: data was added in the second one, and what names the data behind it has changed.
    pub fn builds() -> [Vec<u8>; 2] {
        let data = noise(20_000, 5);
        let mut moved = data.clone();
        moved.splice(10_000..10_000, noise(24, 6));
        [elf(&loads(0, 0), &data), elf(&loads(0x1_0000 + 10_000, 24), &moved)]
    }

    #[test]
    fn moved_addresses_take_no_bytes() {
        let [base, program] = builds();
        let copies = find(&base, &program, later()).unwrap();
        let (plain, relocated) =
            (write(&base, &program, &copies), write_relocated(&base, &program, &copies, later()).unwrap());
        assert!(apply(&base, &plain, false) == program && apply(&base, &relocated, true) == program);
        assert!(relocated.len() < plain.len() / 10, "{} and {}", relocated.len(), plain.len());
    }

    #[test]
    fn overlapping_segments_are_made_once() {
        let [base, program] = builds();
        let copies = find(&base, &program, later()).unwrap();
        // The second segment is where the first one is, and holds instructions as well.
        let twice = |program: &[u8]| {
            let mut program = program.to_vec();
            program.copy_within(52..52 + 32, 52 + 32);
            program
        };
        let (base, program) = (twice(&base), twice(&program));
        let relocated = write_relocated(&base, &program, &copies, later()).unwrap();
        assert!(apply(&base, &relocated, true) == program);
    }

    #[test]
    fn relocation_stops_at_deadline() {
        let [base, program] = builds();
        let copies = find(&base, &program, later()).unwrap();
        assert!(write_relocated(&base, &program, &copies, Instant::now()).is_none());
    }

    #[test]
    fn different_machines_are_not_relocated() {
        let program = elf(&[0; 100], &[0; 100]);
        let changed = |at: usize, byte: u8| {
            let mut changed = program.clone();
            changed[at] = byte;
            changed
        };
        let relocates = |base: &[u8]| {
            write_relocated(base, &program, &find(base, &program, later()).unwrap(), later()).is_some()
        };
        assert!(relocates(&program));
        // e_machine, EI_DATA, where a segment ends.
        for base in [changed(19, 9), changed(5, 1), changed(52 + 16, 0xff), Vec::new(), b"\x7fELF".to_vec()] {
            assert!(!relocates(&base));
        }
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
    fn scattered_changes_make_small_delta() {
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
        let delta = write(&base, &program, &find(&base, &program, later()).unwrap());
        assert_eq!(apply(&base, &delta, false), program);
        assert!(delta.len() < 1500, "{}", delta.len());
    }

    #[test]
    fn delta_between_any_programs_round_trips() {
        let some = noise(1000, 3);
        let other = noise(1000, 4);
        let same = vec![7; 5000];
        let few: &[u8] = &some[..3];
        for base in [&some[..], &other, &same, few, &[]] {
            for program in [&some[..], &other, &same, few, &some[13..], &[]] {
                let delta = write(base, program, &find(base, program, later()).unwrap());
                assert_eq!(apply(base, &delta, false), program, "{} to {}", base.len(), program.len());
            }
        }
    }

    #[test]
    fn search_stops_at_deadline() {
        assert!(find(&noise(100_000, 1), &noise(100_000, 2), Instant::now()).is_none());
    }
}
