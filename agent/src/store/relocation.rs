//! What a delta says in front of its copies: what has moved. `docs/protocol.md` has the format.
//!
//! **Invariants:** what is kept has a bound.

use hop_formats::relocation::{MAX_MOVES, Move, Moves, ORIGINS, Place, Relocation};

use crate::store::delta::{MALFORMED, signed};
use crate::store::error::Error;

/// Hears one number after another.
#[derive(Default)]
pub struct Head {
    moves: Vec<Move>,
    places: [Place; ORIGINS],
    next: Next,
    /// Moves that are still to come.
    left: usize,
    /// The one that is being told.
    this: Move,
}

/// What the next number says.
#[derive(Clone, Copy, Default)]
enum Next {
    /// How many moves there are.
    #[default]
    Moves,
    /// How far the next one begins behind the last one, how long it is, and how much further than the last one it goes.
    Gap,
    Length,
    Further,
    /// Where a place is, and how far it has moved.
    Place(usize),
    Moved(usize),
}

impl Head {
    /// Takes the next number; gives all that was said with the last one.
    ///
    /// # Errors
    /// [`Error::Protocol`] if it does not fit the others.
    pub fn hear(&mut self, number: u64) -> Result<Option<Relocation>, Error> {
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

    fn hear(numbers: &[u64]) -> Result<Option<Relocation>, Error> {
        let mut head = Head::default();
        let (last, before) = numbers.split_last().unwrap();
        for number in before {
            assert!(head.hear(*number)?.is_none());
        }
        head.hear(*last)
    }

    #[test]
    fn moves_and_places_are_parsed() {
        // 16 from 0x1000 go on by 8; after a gap of 4, 32 go back by 4, 12 less.
        let moves = [2, 0x1000, 16, 16, 4, 32, 23];
        let places: Vec<u64> = (1..=ORIGINS as u64).flat_map(|place| [place << 8, 2 * place]).collect();
        let told = hear(&[&moves[..], &places].concat()).unwrap().unwrap();
        let expected = [(0x1000, 16, 8_u32), (0x1014, 32, 8_u32.wrapping_sub(12))];
        assert_eq!(told.moves.all(), expected.map(|(from, length, by)| Move { from, length, by }));
        assert_eq!(told.places, std::array::from_fn(|index| (256 * (index as u32 + 1), index as u32 + 1)));
    }

    #[test]
    fn invalid_moves_are_refused() {
        let bad: [&[u64]; 4] = [
            // Too many; one that begins behind the last address, one that is longer than all; one that ends behind the last.
            &[MAX_MOVES as u64 + 1],
            &[2, 0xffff_fff0, 1, 0, 0x10],
            &[1, 0, 1 << 32],
            &[&[1, 0xffff_fff0, 0x11, 0][..], &[0; 2 * ORIGINS]].concat(),
        ];
        for numbers in bad {
            assert!(matches!(hear(numbers), Err(Error::Protocol(_))), "{numbers:?}");
        }
    }
}
