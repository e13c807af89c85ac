//! Adjusts the addresses in a copy of a part of a MIPS program to the new places of the code and data that they refer
//! to.
//!
//! Between two builds of a program most bytes that differ are addresses: in jumps, in `lui` and the instruction behind
//! it, in words of data, in Go's tables of functions. Both sides know which parts have moved where, and compute the new
//! addresses from that.
//!
//! **Invariants:** the agent computes what the controller has predicted, to the last bit, wherever it divides a copy;
//! and no input can make it fail.

/// Most moves of a program: an agent keeps them in memory, 12 bytes each.
pub const MAX_MOVES: usize = 8192;

/// Most pages in the index of moves by address, of 2 bytes each.
const MAX_PAGES: u32 = 8192;

/// Number of the lowest bits of a copy's length in a delta, which give its [`Content`].
pub const CONTENT_BITS: u32 = 3;

/// Bytes of the longest item that must be in one buffer: an entry in Go's table of functions, see [`FUNCTION`].
pub const LONGEST: usize = 4 * (FUNCTION.len() + 2 * MAX_DATA);

/// Bytes of an instruction, and of an address.
const WORD: usize = 4;

/// Position of the opcode, the upper 6 bits of an instruction (MIPS32 Architecture, Volume II).
const OPCODE: u32 = 26;
const J: u32 = 2;
const JAL: u32 = 3;
const ADDIU: u32 = 9;
const LUI: u32 = 15;
/// The target of a jump in an instruction, in words; and the highest bits of the target, which are those of the
/// instruction's own address.
const JUMP: u32 = 0x03ff_ffff;
const JUMP_BASE: u32 = 0xf000_0000;
/// Opcodes with the lower half of an address: `addiu`, loads and stores, each with a signed 16-bit immediate.
const LOWER_HALF: u64 =
    bits(&[ADDIU, 0x20, 0x21, 0x23, 0x24, 0x25, 0x28, 0x29, 0x2b, 0x31, 0x35, 0x39, 0x3d]);

/// The origin of each word at the beginning of an entry in Go's table of functions, if the word is an offset (`_func`
/// in Go's runtime/runtime2.go).
const FUNCTION: [Option<Origin>; 11] = [
    Some(Origin::Text),
    Some(Origin::Names),
    None,
    None,
    Some(Origin::Tables),
    Some(Origin::Tables),
    Some(Origin::Tables),
    None,
    None,
    None,
    None,
];
/// Index of the word with the number of offsets from [`Origin::Tables`] that follow, and of the word whose last byte is
/// the number of offsets from [`Origin::Data`] after these.
const TABLES: usize = 7;
const DATA: usize = 10;
/// Most words that are followed of each of the two, of which an entry usually has five or fewer. Counts are taken
/// modulo the next power of two, so that no entry is longer than a buffer.
const MAX_DATA: usize = 15;

/// An origin of the offsets in a Go program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Where the instructions begin (`runtime.text`).
    Text,
    /// Where the types begin (`runtime.types`).
    Types,
    /// The names of functions (`runtime.funcnametab`).
    Names,
    /// Tables with data for each instruction of a function (`runtime.pctab`).
    Tables,
    /// Data for a function as a whole (`go:func.*`).
    Data,
    /// The table of functions: an index, then the entries (`runtime.functab`).
    Functions,
}

/// Number of origins.
pub const ORIGINS: usize = 6;

/// The old address of an origin, and the distance that it has moved, modulo 2³².
pub type Place = (u32, u32);

/// The kind of content of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Bytes.
    Bytes,
    /// Instructions.
    Code,
    /// Entries of Go's table of functions, from the beginning of one.
    Functions,
    /// Go's index of functions: pairs of the start of a function and the offset of its entry.
    Index,
    /// Words, some of which are addresses.
    Addresses,
    /// Words, some of which are offsets from this origin.
    Offsets(Origin),
}

impl Content {
    /// All kinds, in the order of their numbers in a delta.
    pub const ALL: [Self; 8] = [
        Self::Bytes,
        Self::Code,
        Self::Functions,
        Self::Index,
        Self::Addresses,
        Self::Offsets(Origin::Text),
        Self::Offsets(Origin::Types),
        Self::Offsets(Origin::Names),
    ];
}

const fn bits(numbers: &[u32]) -> u64 {
    let (mut bits, mut index) = (0, 0);
    while index < numbers.len() {
        bits |= 1 << numbers[index];
        index += 1;
    }
    bits
}

/// A range of addresses that have moved by one distance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Move {
    /// The first address, before the move.
    pub from: u32,
    /// Number of addresses.
    pub length: u32,
    /// Distance of the move, modulo 2³².
    pub by: u32,
}

/// All moves of a program.
#[derive(Clone, Debug, Default)]
pub struct Moves {
    /// The moves in the order of their addresses, without overlaps.
    all: Vec<Move>,
    /// The first address of the first move, and the number of addresses from there to the end of the last move.
    first: u32,
    length: u32,
    /// For each page of these addresses, the index of the last move that begins at or before its start; then that of
    /// the last move.
    pages: Vec<u16>,
    /// Binary logarithm of the number of addresses in a page.
    page: u32,
}

impl Moves {
    /// Creates the index of moves, which are in the order of their addresses. `None` if two overlap, or there are too
    /// many.
    pub fn new(all: Vec<Move>) -> Option<Self> {
        let (Some(first), Some(last)) = (all.first(), all.last()) else { return Some(Self::default()) };
        let are_apart = all
            .windows(2)
            .all(|pair| pair[0].from.checked_add(pair[0].length).is_some_and(|end| end <= pair[1].from));
        let first = first.from;
        if !are_apart || all.len() > MAX_MOVES {
            return None;
        }
        let length = last.from.checked_add(last.length)? - first;
        let page = (length / MAX_PAGES + 1).next_power_of_two().ilog2();
        let (mut pages, mut index) = (Vec::with_capacity(2 + (length >> page) as usize), 0);
        for number in 0..=length >> page {
            let start = first + (number << page);
            while all.get(index + 1).is_some_and(|next| next.from <= start) {
                index += 1;
            }
            pages.push(index as u16);
        }
        pages.push(all.len() as u16 - 1);
        Some(Self { all, first, length, pages, page })
    }

    /// All moves, in the order of their addresses.
    pub fn all(&self) -> &[Move] {
        &self.all
    }

    /// The distance that an address has moved, or `None` if it has not.
    #[inline(always)]
    fn distance(&self, address: u32) -> Option<u32> {
        let offset = address.wrapping_sub(self.first);
        // Most words are outside this range, and need no search.
        if offset >= self.length {
            return None;
        }
        let page = (offset >> self.page) as usize;
        let (mut low, mut high) =
            (usize::from(*self.pages.get(page)?), usize::from(*self.pages.get(page + 1)?));
        while low < high {
            let middle = (low + high).div_ceil(2);
            if self.all.get(middle)?.from <= address { low = middle } else { high = middle - 1 }
        }
        let found = self.all.get(low)?;
        (address.wrapping_sub(found.from) < found.length).then_some(found.by)
    }
}

/// How the parts of a program have moved.
#[derive(Clone, Debug, Default)]
pub struct Relocation {
    /// The moves.
    pub moves: Moves,
    /// The origins of its offsets, in the order of [`Origin`].
    pub places: [Place; ORIGINS],
}

impl Relocation {
    /// Adjusts the old `words`, which begin at a multiple of four, and returns the number of bytes that it has
    /// processed. The caller passes the others again, together with the following data; if there is none, they stay as
    /// they are.
    // Not inlined, because its callers are optimized for size, and it would be too.
    #[cfg_attr(target_arch = "mips", optimize(speed), inline(never))]
    pub fn follow<const BIG_ENDIAN: bool>(&self, content: Content, words: &mut [u8]) -> usize {
        walk::<BIG_ENDIAN>(content, &self.places, words, |_, address| self.moves.distance(address))
    }
}

/// Visits the addresses in `words`: calls `moved` with the index of the word and the address, and adds the distance
/// that it returns, if any. Returns the number of bytes that it has processed.
#[inline(always)]
pub fn walk<const BIG_ENDIAN: bool>(
    content: Content,
    places: &[Place; ORIGINS],
    words: &mut [u8],
    moved: impl FnMut(usize, u32) -> Option<u32>,
) -> usize {
    let place = |origin: Origin| places[origin as usize];
    let count = words.len();
    let mut walk = Walk::<BIG_ENDIAN, _> { words: words.as_chunks_mut().0, moved };
    let (one, two);
    let in_turn: &[Place] = match content {
        Content::Bytes => return count,
        Content::Code => return WORD * walk.code(place(Origin::Text).0),
        Content::Functions => return WORD * walk.functions(places),
        Content::Index => {
            two = [place(Origin::Text), place(Origin::Functions)];
            &two
        }
        Content::Addresses => &[(0, 0)],
        Content::Offsets(origin) => {
            one = [place(origin)];
            &one
        }
    };
    WORD * walk.offsets(in_turn)
}

struct Walk<'a, const BIG_ENDIAN: bool, Moved> {
    words: &'a mut [[u8; WORD]],
    moved: Moved,
}

impl<const BIG_ENDIAN: bool, Moved: FnMut(usize, u32) -> Option<u32>> Walk<'_, BIG_ENDIAN, Moved> {
    /// Adjusts instructions, which are in the same 256 MiB of addresses as the program's `text`.
    #[inline(always)]
    fn code(&mut self, text: u32) -> usize {
        // The loop tests every word, and few are one of these instructions.
        let names = |word: &[u8; WORD]| {
            let operation = read::<BIG_ENDIAN>(word) >> OPCODE;
            operation == LUI || operation == J || operation == JAL
        };
        let mut at = 0;
        while let Some(others) = self.words.get(at..).and_then(|rest| rest.iter().position(names)) {
            at += others;
            let word = read::<BIG_ENDIAN>(&self.words[at]);
            if word >> OPCODE != LUI {
                let offset = (word & JUMP) * WORD as u32;
                let address = text & JUMP_BASE | offset;
                if let Some(by) = (self.moved)(at, address) {
                    let to = address.wrapping_add(by) / WORD as u32;
                    self.words[at] = written::<BIG_ENDIAN>(word & !JUMP | to & JUMP);
                }
                at += 1;
                continue;
            }
            let Some(next) = self.words.get(at + 1) else { return at };
            let next = read::<BIG_ENDIAN>(next);
            // The second instruction has the register that `lui` loads as its base.
            if LOWER_HALF >> (next >> OPCODE) & 1 == 1 && (next >> 21) & 31 == (word >> 16) & 31 {
                let address = (word << 16).wrapping_add(next as u16 as i16 as u32);
                if let Some(by) = (self.moved)(at, address) {
                    let now = address.wrapping_add(by);
                    // The lower half is signed: if it is negative, the upper half must be one larger.
                    let upper = now.wrapping_add(0x8000) >> 16;
                    self.words[at] = written::<BIG_ENDIAN>(word & 0xffff_0000 | upper);
                    self.words[at + 1] = written::<BIG_ENDIAN>(next & 0xffff_0000 | now & 0xffff);
                }
                at += 1;
            }
            at += 1;
        }
        self.words.len()
    }

    /// Adjusts words that are offsets from these places, which take turns.
    #[inline(always)]
    fn offsets(&mut self, places: &[Place]) -> usize {
        let end = self.words.len() / places.len() * places.len();
        for (first, place) in places.iter().enumerate() {
            let mut at = first;
            while at < end {
                self.offset(at, *place);
                at += places.len();
            }
        }
        end
    }

    #[inline(always)]
    fn functions(&mut self, places: &[Place; ORIGINS]) -> usize {
        let mut at = 0;
        while let Some(function) = self.words.get(at..at + FUNCTION.len()) {
            let tables = read::<BIG_ENDIAN>(&function[TABLES]) as usize & MAX_DATA;
            let data = usize::from(function[DATA][3]) & MAX_DATA;
            let end = FUNCTION.len() + tables + data;
            if at + end > self.words.len() {
                break;
            }
            for index in 0..end {
                let origin = match FUNCTION.get(index) {
                    Some(origin) => *origin,
                    None if index < FUNCTION.len() + tables => Some(Origin::Tables),
                    None => Some(Origin::Data),
                };
                if let Some(origin) = origin {
                    self.offset(at, places[origin as usize]);
                }
                at += 1;
            }
        }
        at
    }

    #[inline(always)]
    fn offset(&mut self, at: usize, (place, place_by): Place) {
        let word = read::<BIG_ENDIAN>(&self.words[at]);
        // A word of 0 usually means that there is no such offset.
        if word != 0
            && let Some(by) = (self.moved)(at, word.wrapping_add(place))
        {
            self.words[at] = written::<BIG_ENDIAN>(word.wrapping_add(by).wrapping_sub(place_by));
        }
    }
}

#[inline(always)]
fn read<const BIG_ENDIAN: bool>(word: &[u8; WORD]) -> u32 {
    if BIG_ENDIAN { u32::from_be_bytes(*word) } else { u32::from_le_bytes(*word) }
}

#[inline(always)]
fn written<const BIG_ENDIAN: bool>(word: u32) -> [u8; WORD] {
    if BIG_ENDIAN { word.to_be_bytes() } else { word.to_le_bytes() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PLACES: [Place; ORIGINS] = [
        (0x1_1000, 0),
        (0x30_0000, 8),
        (0x40_0000, 0x100),
        (0x41_0000, 0x200),
        (0x42_0000, 0),
        (0x43_0000, 16),
    ];

    /// Addresses from 0x300000 have moved by 0x8010, the 64 KiB of `Tables` with their place, and the functions by 16.
    fn relocation() -> Relocation {
        let moves = [(0x30_0000, 0x1_0000, 0x8010), (0x41_0000, 0x1_0000, 0x200), (0x43_0000, 0x1000, 24)];
        let moves = moves.map(|(from, length, by)| Move { from, length, by });
        Relocation { moves: Moves::new(moves.to_vec()).unwrap(), places: PLACES }
    }

    #[test]
    fn jump_targets_keep_their_segment() {
        let moves = vec![Move { from: 0x1030_0000, length: 0x1000, by: 8 }];
        let mut places = PLACES;
        places[Origin::Text as usize].0 = 0x1000_1000;
        let relocation = Relocation { moves: Moves::new(moves).unwrap(), places };
        // jal 0x10300010
        let mut jump = 0x0c0c_0004_u32.to_be_bytes();
        relocation.follow::<true>(Content::Code, &mut jump);
        assert_eq!(u32::from_be_bytes(jump), 0x0c0c_0006);
    }

    fn followed<const BIG_ENDIAN: bool>(content: Content, words: &[u32]) -> Vec<u32> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| written::<BIG_ENDIAN>(*word)).collect();
        relocation().follow::<BIG_ENDIAN>(content, &mut bytes);
        bytes.as_chunks().0.iter().map(read::<BIG_ENDIAN>).collect()
    }

    fn assert_follows(content: Content, before: &[u32], after: &[u32]) {
        assert_eq!(followed::<true>(content, before), after, "big endian");
        assert_eq!(followed::<false>(content, before), after, "little endian");
    }

    #[test]
    fn instruction_operands_follow_moves() {
        let pairs = [
            // jal 0x301000; j 0x200000, which has not moved.
            (0x0c0c_0400, 0x0c0c_2404),
            (0x0808_0000, 0x0808_0000),
            // lui at, 0x30; addiu a0, at, 0x7ff8: the lower half is negative now, so the upper one is one more.
            (0x3c01_0030, 0x3c01_0031),
            (0x2424_7ff8, 0x2424_0008),
            // lui at, 0x31; lw v0, -8(at).
            (0x3c01_0031, 0x3c01_0032),
            (0x8c22_fff8, 0x8c22_8008),
            // lui at, 0x30; lw v0, 0(gp): another register. lui at, 0x30; ori at, at, 1: no lower half with a sign.
            (0x3c01_0030, 0x3c01_0030),
            (0x8f82_0000, 0x8f82_0000),
            (0x3c01_0030, 0x3c01_0030),
            (0x3421_0001, 0x3421_0001),
            // No instruction follows the last one.
            (0x3c01_0030, 0x3c01_0030),
        ];
        let (before, after): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        assert_follows(Content::Code, &before, &after);
    }

    #[test]
    fn words_follow_their_origin() {
        assert_follows(Content::Addresses, &[0x30_0004, 0x2f_ffff, 0], &[0x30_8014, 0x2f_ffff, 0]);
        // The types themselves have moved by 8.
        assert_follows(Content::Offsets(Origin::Types), &[4, 0, 0x2_0000], &[0x800c, 0, 0x2_0000]);
        // The start of a function, which has not moved, and the offset of its entry, which has moved by 8 more than its
        // origin.
        assert_follows(Content::Index, &[0x40, 0x80, 0x44, 0x90], &[0x40, 0x88, 0x44, 0x98]);
    }

    #[test]
    fn go_function_offset_count_is_respected() {
        // Two from the tables and one from the data; then one without any.
        let mut before = vec![0x40, 0, 8, 0, 1, 2, 3, 2, 9, 9, 0, 4, 5, 6];
        before.extend([0x50, 0, 8, 0, 7, 2, 3, 0, 9, 9, 0]);
        let bytes = |words: &[u32]| {
            let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            bytes[4 * DATA + 3] = 1;
            bytes
        };
        let mut relocation = relocation();
        relocation.places[Origin::Tables as usize].1 = 0;
        let mut followed = bytes(&before);
        assert_eq!(relocation.follow::<true>(Content::Functions, &mut followed), followed.len());
        for index in [4, 5, 6, 11, 12, 18, 19, 20] {
            before[index] += 0x200;
        }
        assert_eq!(followed, bytes(&before));
    }

    #[test]
    fn relocation_is_independent_of_chunk_boundaries() {
        let mut state = 1_u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        };
        // Words of all kinds, most of them next to those that they belong to.
        let words: Vec<u32> = (0..600)
            .map(|_| match next() % 6 {
                0 => 0x3c01_0030 | next() & 1,
                1 => 0x2421_0000 | next() & 0xffff,
                2 => 0x0c0c_0000 | next() & 0xffff,
                3 => 0x2e_0000 + next() % 0x4_0000,
                4 => next() % 20,
                _ => next() % 0x4_0000,
            })
            .collect();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).chain([1, 2]).collect();
        let mut relocation = relocation();
        relocation.places[Origin::Tables as usize].1 = 0;
        for content in Content::ALL {
            let mut whole = bytes.clone();
            relocation.follow::<false>(content, &mut whole);
            assert!(whole != bytes || content == Content::Bytes, "{content:?}");
            for room in LONGEST..LONGEST + 40 {
                let mut divided = bytes.clone();
                let mut rest = &mut divided[..];
                while rest.len() > room {
                    let done = relocation.follow::<false>(content, &mut rest[..room]);
                    assert!(done > 0, "{content:?}");
                    rest = &mut rest[done..];
                }
                relocation.follow::<false>(content, rest);
                assert!(divided == whole, "{content:?}, {room} bytes at once");
            }
        }
    }

    #[test]
    fn overlapping_or_unsorted_moves_are_refused() {
        let one = |from, length| Move { from, length, by: 4 };
        assert!(Moves::new(vec![one(0, 8), one(8, 8)]).is_some());
        assert!(Moves::new(vec![one(8, 8), one(0, 8)]).is_none());
        assert!(Moves::new(vec![one(0, 9), one(8, 8)]).is_none());
        assert!(Moves::new(vec![one(u32::MAX, 2)]).is_none());
        assert!(Moves::new(vec![one(u32::MAX - 4, 9), one(0, 8)]).is_none());
        assert!(Moves::new((0..=MAX_MOVES as u32).map(|index| one(8 * index, 4)).collect()).is_none());
    }

    #[test]
    fn every_address_finds_its_move() {
        // Near and far from each other, and up to the last address.
        let all: Vec<Move> = (0..300_u32)
            .map(|index| Move { from: index * index * 7, length: 1 + index, by: index + 1 })
            .collect();
        for end in [None, Some(Move { from: u32::MAX - 8, length: 8, by: 9 })] {
            let all: Vec<Move> = all.iter().copied().chain(end).collect();
            let moves = Moves::new(all.clone()).unwrap();
            let near = all.iter().flat_map(|one| {
                [one.from.wrapping_sub(1), one.from, one.from + one.length - 1, one.from + one.length]
            });
            for address in near {
                let expected =
                    all.iter().find(|one| address.wrapping_sub(one.from) < one.length).map(|one| one.by);
                assert_eq!(moves.distance(address), expected, "{address:#x}");
            }
        }
        assert_eq!(Moves::default().distance(0), None);
    }
}
