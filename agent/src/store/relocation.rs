//! Parses the list of moves at the beginning of a relocated delta. `docs/protocol.md` has the format.
//!
//! **Invariants:** the parser's memory is bounded.

use hop_formats::relocation::{MAX_MOVES, Move, Moves, ORIGINS, Place, Relocation};

use crate::store::delta::{MALFORMED, signed};
use crate::store::error::Error;

/// Parses the list from one number after another.
#[derive(Default)]
pub struct Head {
    moves: Vec<Move>,
    places: [Place; ORIGINS],
    next: Next,
    /// Moves that have not been parsed yet.
    left: usize,
    /// The move that is being parsed.
    this: Move,
}

/// The meaning of the next number.
#[derive(Clone, Copy, Default)]
enum Next {
    /// The number of moves.
    #[default]
    Moves,
    /// The distance from the end of the last move to the next one, its length, and how much further than the last one
    /// it goes.
    Gap,
    Length,
    Further,
    /// The address of a place, and the distance that it has moved.
    Place(usize),
    Moved(usize),
}

impl Head {
    /// Takes the next number. Returns the complete relocation with the last one.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the number does not fit the previous ones.
    pub fn push(&mut self, number: u64) -> Result<Option<Relocation>, Error> {
        self.next = match self.next {
            Next::Moves => {
                self.left = usize::try_from(number).unwrap_or(usize::MAX);
                if self.left > MAX_MOVES {
                    return Err(MALFORMED);
                }
                self.next_move()
            }
            Next::Gap => {
                let end = self.this.from.wrapping_add(self.this.length);
                let gap = u32::try_from(number).map_err(|_| MALFORMED)?;
                self.this.from = end.checked_add(gap).ok_or(MALFORMED)?;
                Next::Length
            }
            Next::Length => {
                self.this.length = u32::try_from(number).map_err(|_| MALFORMED)?;
                Next::Further
            }
            Next::Further => {
                self.this.by = self.this.by.wrapping_add(signed(number) as u32);
                self.moves.push(self.this);
                self.left -= 1;
                self.next_move()
            }
            Next::Place(index) => {
                self.places[index].0 = number as u32;
                Next::Moved(index)
            }
            Next::Moved(index) => {
                self.places[index].1 = signed(number) as u32;
                if index + 1 == ORIGINS {
                    let moves = Moves::new(std::mem::take(&mut self.moves)).ok_or(MALFORMED)?;
                    return Ok(Some(Relocation { moves, places: self.places }));
                }
                Next::Place(index + 1)
            }
        };
        Ok(None)
    }

    fn next_move(&self) -> Next {
        if self.left > 0 { Next::Gap } else { Next::Place(0) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(numbers: &[u64]) -> Result<Option<Relocation>, Error> {
        let mut head = Head::default();
        let (last, before) = numbers.split_last().unwrap();
        for number in before {
            assert!(head.push(*number)?.is_none());
        }
        head.push(*last)
    }

    #[test]
    fn moves_and_places_are_parsed() {
        // 16 from 0x1000 move forward by 8; after a gap of 4, 32 move back by 4, which is 12 less.
        let moves = [2, 0x1000, 16, 16, 4, 32, 23];
        let places: Vec<u64> = (1..=ORIGINS as u64).flat_map(|place| [place << 8, 2 * place]).collect();
        let parsed = parse(&[&moves[..], &places].concat()).unwrap().unwrap();
        let expected = [(0x1000, 16, 8_u32), (0x1014, 32, 8_u32.wrapping_sub(12))];
        assert_eq!(parsed.moves.all(), expected.map(|(from, length, by)| Move { from, length, by }));
        assert_eq!(parsed.places, std::array::from_fn(|index| (256 * (index as u32 + 1), index as u32 + 1)));
    }

    #[test]
    fn invalid_moves_are_refused() {
        let bad: [&[u64]; 4] = [
            // Too many moves; one that begins after the last address; one longer than all addresses; one that ends
            // after the last address.
            &[MAX_MOVES as u64 + 1],
            &[2, 0xffff_fff0, 1, 0, 0x10],
            &[1, 0, 1 << 32],
            &[&[1, 0xffff_fff0, 0x11, 0][..], &[0; 2 * ORIGINS]].concat(),
        ];
        for numbers in bad {
            assert!(matches!(parse(numbers), Err(Error::Protocol(_))), "{numbers:?}");
        }
    }
}
