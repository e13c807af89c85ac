//! What has moved, by the votes of all addresses that were seen before and after.

use std::collections::HashMap;

use hop_formats::relocation::{Move, Moves};

/// Votes that a move must win for it to be told: that takes some four bytes, and a difference that is not foreseen takes one or
/// two.
const COST: u32 = 2;

/// Bytes of what is named at an address, as far as anybody knows.
const NAMED_BYTES: u32 = 4;

/// Somebody who has seen an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShiftSample {
    /// What it was.
    pub address: u32,
    /// How far it has moved, modulo 2³².
    pub by: u32,
}

/// Addresses of which the most is right if they have moved as far, and the ones before them.
#[derive(Clone, Copy)]
struct Run {
    from: u32,
    last: u32,
    by: u32,
    before: Option<usize>,
}

/// The moves that win the most votes, less what they cost.
///
/// Of all ways to divide the addresses into runs, by dynamic programming (after A. Viterbi, 1967): at each address, the best way
/// that ends with each distance either goes on, or begins where the best of all was before.
pub fn fit_shifts(mut samples: Vec<ShiftSample>) -> Moves {
    samples.sort_unstable();
    let mut cost = COST;
    loop {
        let mut moves = divide(&samples, cost);
        // What has not moved need not be told.
        moves.retain(|one| one.by != 0);
        if let Some(moves) = Moves::new(moves) {
            return moves;
        }
        cost *= 2;
    }
}

fn divide(samples: &[ShiftSample], cost: u32) -> Vec<Move> {
    let mut runs: Vec<Run> = Vec::new();
    // For each distance, the votes of the best way that ends with it, and its last run.
    let mut ways: HashMap<u32, (u32, usize)> = HashMap::new();
    let mut best: (u32, Option<usize>) = (0, None);
    for at_address in samples.chunk_by(|one, other| one.address == other.address) {
        let address = at_address[0].address;
        let (before, mut after) = (best, best);
        for same in at_address.chunk_by(|one, other| one.by == other.by) {
            let (by, count) = (same[0].by, same.len() as u32);
            // What is not worth its cost is left, and this one is the first.
            let (again, earlier) = if before.0 > cost { (before.0 - cost, before.1) } else { (0, None) };
            let way = ways.entry(by).or_insert((0, usize::MAX));
            if way.1 == usize::MAX || way.0 < again {
                *way = (again, runs.len());
                runs.push(Run { from: address, last: address, by, before: earlier });
            }
            way.0 += count;
            runs[way.1].last = address;
            if way.0 > after.0 {
                after = (way.0, Some(way.1));
            }
        }
        best = after;
    }
    let mut moves = Vec::new();
    let mut end = u32::MAX;
    let mut next = best.1;
    while let Some(index) = next {
        let run = runs[index];
        // Another way may have gone on with it.
        let length = (run.last.saturating_add(NAMED_BYTES)).min(end).saturating_sub(run.from);
        moves.push(Move { from: run.from, length, by: run.by });
        (end, next) = (run.from, run.before);
    }
    moves.reverse();
    moves
}

#[cfg(test)]
mod tests {
    use hop_formats::relocation::MAX_MOVES;

    use super::*;

    fn samples(addresses: impl Iterator<Item = u32>, by: u32) -> Vec<ShiftSample> {
        addresses.map(|address| ShiftSample { address, by }).collect()
    }

    #[test]
    fn stray_sample_is_no_shift() {
        let mut all = samples((0x1000..0x2000).step_by(16), 0);
        all.extend(samples((0x2000..0x3000).step_by(16), 24));
        all.extend(samples((0x3000..0x4000).step_by(8), 0x100_u32.wrapping_neg()));
        all.extend(samples([0x2208, 0x2209].into_iter(), 7));
        let expected = [
            Move { from: 0x2000, length: 0xff4, by: 24 },
            Move { from: 0x3000, length: 0xffc, by: 0x100_u32.wrapping_neg() },
        ];
        assert_eq!(fit_shifts(all).all(), expected);
    }

    #[test]
    fn many_equal_samples_are_a_shift() {
        let mut all = samples((0x1000..0x2000).step_by(16), 8);
        all.extend([ShiftSample { address: 0x1800, by: 40 }; 9]);
        let moves = fit_shifts(all);
        assert_eq!(moves.all().len(), 3);
        assert_eq!(moves.all()[1], Move { from: 0x1800, length: 4, by: 40 });
    }

    #[test]
    fn unprofitable_shift_is_not_chained() {
        let rising = (0..10).flat_map(|index| {
            let sample = ShiftSample { address: 64 * index, by: 4 + 4 * index };
            std::iter::repeat_n(sample, 1 + index as usize)
        });
        // Or there would be no cost at which there are few enough.
        assert_eq!(divide(&rising.collect::<Vec<_>>(), 100).len(), 1);
    }

    #[test]
    fn number_of_shifts_is_bounded() {
        assert!(fit_shifts(Vec::new()).all().is_empty());
        let wild = (0..4 * MAX_MOVES as u32).flat_map(|index| {
            let sample = ShiftSample { address: 64 * index, by: 4 * index };
            [sample; 5]
        });
        assert!(fit_shifts(wild.collect()).all().len() <= MAX_MOVES);
    }
}
