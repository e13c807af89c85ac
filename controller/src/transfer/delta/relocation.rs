//! How far code and data have moved from one build of a MIPS program to the next, so that an agent can update the
//! addresses in a copy.
//!
//! Every address in a copy, with its old and its new value, is a sample of how far its target has moved.
//!
//! **Invariants:** the delta makes the program whatever relocation it states, because this code relocates each copy
//! with the agent's code, and encodes the differences that remain; so a wrong guess at the content of a part costs
//! bytes, and nothing else.

use std::ops::Range;
use std::time::Instant;

use hop_formats::relocation::{Content, ORIGINS, Origin, Place, Relocation, walk};
use object::Endianness;

use super::functions::{self, PAIR};
use super::image::{GoTables, Image};
use super::search::Copy;
use super::shifts::{ShiftSample, fit_shifts};

/// What a difference costs, and what it costs a router's CPU to look at a word: the one is some byte on the wire, and while a
/// link of 0.5 MB/s takes that, the CPU looks at 128 words.
const DIFFERENCE: usize = 128;
const WORD_COST: usize = 1;

/// What must be spared by dividing a copy: that takes some four bytes.
const DIVISION: usize = 8 * DIFFERENCE;

/// The kinds of addresses that words of data may hold.
const DATA: [Content; 5] = [
    Content::Bytes,
    Content::Addresses,
    Content::Offsets(Origin::Text),
    Content::Offsets(Origin::Types),
    Content::Offsets(Origin::Names),
];

const WORD: usize = 4;

/// A copy, and what it holds.
pub type Part = (Copy, Content);

/// A program, and the one that it is made from.
pub struct Relocator<'a> {
    base: &'a [u8],
    program: &'a [u8],
    image: Image<'a>,
    /// Parts of the base of which it is known what they hold, in their order.
    known: Vec<(Range<usize>, Content)>,
    /// What Go says of the functions, before and now.
    go: Option<(GoTables<'a>, GoTables<'a>)>,
    /// How far the targets have moved.
    relocation: Relocation,
}

impl<'a> Relocator<'a> {
    /// Both programs, if they are for the same kind of MIPS.
    pub fn new(base: &'a [u8], program: &'a [u8]) -> Option<Self> {
        let (old, new) = (Image::read(base)?, Image::read(program)?);
        if old.endianness() != new.endianness() {
            return None;
        }
        let mut known: Vec<_> = old.code().map(|range| (range, Content::Code)).collect();
        let mut relocation = Relocation::default();
        let go = old.go().zip(new.go());
        if let Some((old, new)) = &go {
            let moved = old.origins.iter().zip(&new.origins).map(|(old, new)| (*old, new.wrapping_sub(*old)));
            relocation.places = moved.collect::<Vec<_>>().try_into().ok()?;
            // The last one is so short that it does not matter.
            let end = old.functions.last().map_or(old.index.end, |last| last.at);
            known.push((old.index.clone(), Content::Index));
            known.push((old.index.end..end, Content::Functions));
        }
        // What a file says of itself twice counts once.
        known.sort_by_key(|(range, _)| range.start);
        let mut end = 0;
        known.retain(|(range, _)| {
            let is_apart = range.start >= end;
            end = end.max(range.end);
            is_apart
        });
        Some(Self { base, program, image: old, known, go, relocation })
    }

    /// Finds out how far the targets have moved, and what the copies hold; `None` if that takes longer than `deadline`.
    pub fn relocate(&mut self, copies: &[Copy], deadline: Instant) -> Option<Vec<Part>> {
        let in_time = || (Instant::now() < deadline).then_some(());
        let copies = match &self.go {
            Some((old, new)) => functions::by_name(copies, old, new, self.program.len()),
            None => copies.to_vec(),
        };
        let divided: Vec<Part> = copies.iter().flat_map(|copy| self.divide(*copy)).collect();
        // Parts that are known to hold addresses show how far their targets have moved, and that shows which other
        // parts hold addresses.
        self.learn(&divided);
        let mut parts = Vec::new();
        for part in divided {
            in_time()?;
            parts.extend(self.judge(part));
        }
        self.learn(&parts);
        for (copy, content) in &mut parts {
            in_time()?;
            if self.cost(copy, *content) >= self.cost(copy, Content::Bytes) {
                *content = Content::Bytes;
            }
        }
        Some(parts)
    }

    /// How far the targets have moved.
    pub fn relocation(&self) -> &Relocation {
        &self.relocation
    }

    /// The bytes that an agent makes of a copy before it applies the differences.
    pub fn expected(&self, copy: &Copy, content: Content) -> Vec<u8> {
        let mut words = self.base[copy.from..copy.from + copy.copied].to_vec();
        if let Some(words) = words.get_mut(to_word(copy.from)..) {
            match self.image.endianness() {
                Endianness::Big => self.relocation.follow::<true>(content, words),
                Endianness::Little => self.relocation.follow::<false>(content, words),
            };
        }
        words
    }

    fn cost(&self, copy: &Copy, content: Content) -> usize {
        let new = &self.program[copy.to..copy.to + copy.copied];
        cost(content, &self.expected(copy, content), new)
    }

    /// Divides a copy where it is known what it holds.
    fn divide(&self, copy: Copy) -> Vec<Part> {
        let end = copy.from + copy.copied;
        let mut cuts = Vec::new();
        for (range, content) in &self.known {
            let start = match content {
                Content::Index => range.start + copy.from.saturating_sub(range.start).next_multiple_of(PAIR),
                Content::Functions => self.function_from(copy.from).unwrap_or(end),
                _ => range.start.max(copy.from),
            };
            let stop = range.end.min(end);
            if start < stop {
                cuts.push((start, *content));
                cuts.push((stop, Content::Bytes));
            }
        }
        cut(copy, &cuts)
    }

    /// Where in the base the next Go function is described from there on.
    fn function_from(&self, at: usize) -> Option<usize> {
        let functions = &self.go.as_ref()?.0.functions;
        functions.get(functions.partition_point(|function| function.at < at)).map(|function| function.at)
    }

    /// Decides what data holds, word by word, and divides it where that pays.
    fn judge(&self, (copy, content): Part) -> Vec<Part> {
        if content != Content::Bytes {
            return vec![(copy, content)];
        }
        let skipped = to_word(copy.from).min(copy.copied);
        let new = &self.program[copy.to..copy.to + copy.copied];
        let expected = DATA.map(|content| self.expected(&copy, content));
        // For each content, what the best way costs that ends with it, and where in `chosen` that is.
        let mut costs = [0; DATA.len()];
        let mut chosen: Vec<[u8; DATA.len()]> = Vec::new();
        for word in (skipped..copy.copied).step_by(WORD) {
            let range = word..(word + WORD).min(copy.copied);
            let best = (0..DATA.len()).min_by_key(|content| costs[*content]).unwrap_or(0);
            let least = costs[best] + DIVISION;
            chosen.push(std::array::from_fn(
                |content| if costs[content] <= least { content } else { best } as u8,
            ));
            for (content, cost) in costs.iter_mut().enumerate() {
                *cost = (*cost).min(least)
                    + self::cost(DATA[content], &expected[content][range.clone()], &new[range.clone()]);
            }
        }
        let mut content = (0..DATA.len()).min_by_key(|content| costs[*content]).unwrap_or(0);
        let mut cuts = Vec::new();
        for (index, before) in chosen.iter().enumerate().rev() {
            let earlier = usize::from(before[content]);
            if earlier != content || index == 0 {
                cuts.push((copy.from + skipped + index * WORD, DATA[content]));
            }
            content = earlier;
        }
        cuts.reverse();
        cut(copy, &cuts)
    }

    /// Asks all addresses in these copies what has moved.
    fn learn(&mut self, parts: &[Part]) {
        let now = self.relocation.places.map(|(place, by)| (place.wrapping_add(by), 0));
        let mut samples = Vec::new();
        for (copy, content) in parts.iter().filter(|(_, content)| *content != Content::Bytes) {
            let skipped = to_word(copy.from).min(copy.copied);
            let old = &self.base[copy.from..copy.from + copy.copied][skipped..];
            let new = &self.program[copy.to..copy.to + copy.copied][skipped..];
            let old = self.named(*content, &self.relocation.places, old);
            let mut new = self.named(*content, &now, new).into_iter().peekable();
            for (at, address) in old {
                while new.next_if(|(other, _)| *other < at).is_some() {}
                if let Some((_, now)) = new.next_if(|(other, _)| *other == at)
                    && self.image.has(address)
                {
                    samples.push(ShiftSample { address, by: now.wrapping_sub(address) });
                }
            }
        }
        self.relocation.moves = fit_shifts(samples);
    }

    /// The addresses that words name, and where.
    fn named(&self, content: Content, places: &[Place; ORIGINS], words: &[u8]) -> Vec<(usize, u32)> {
        let mut named = Vec::new();
        let look = |at, address| {
            named.push((at, address));
            None
        };
        let mut words = words.to_vec();
        match self.image.endianness() {
            Endianness::Big => walk::<true>(content, places, &mut words, look),
            Endianness::Little => walk::<false>(content, places, &mut words, look),
        };
        named.sort_unstable();
        named
    }
}

/// The cost for a router of making `new` from a copy that holds that.
fn cost(content: Content, old: &[u8], new: &[u8]) -> usize {
    let looks = if content == Content::Bytes { 0 } else { old.len() / WORD * WORD_COST };
    looks + DIFFERENCE * old.iter().zip(new).filter(|(old, new)| old != new).count()
}

/// Bytes from there to the next word.
fn to_word(at: usize) -> usize {
    at.wrapping_neg() % WORD
}

/// Divides a copy: from each of these places in the base on, it holds that; before the first one, bytes.
fn cut(copy: Copy, cuts: &[(usize, Content)]) -> Vec<Part> {
    let end = copy.from + copy.copied;
    let starts = std::iter::once((copy.from, Content::Bytes)).chain(cuts.iter().copied());
    let ends = cuts.iter().map(|(start, _)| *start).chain([end]);
    let ranges = starts.zip(ends).filter(|((start, _), end)| start < end);
    let mut parts: Vec<Part> = ranges
        .map(|((start, content), end)| {
            let to = copy.to + (start - copy.from);
            (Copy { from: start, to, copied: end - start, new: 0 }, content)
        })
        .collect();
    match parts.last_mut() {
        Some((last, _)) => last.new = copy.new,
        None => parts.push((copy, Content::Bytes)),
    }
    parts
}
