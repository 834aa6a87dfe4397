//! Pieces of memory at their addresses, found by address.

use std::ops::Range;

/// Where a piece's bytes are, in whatever holds them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    range: Range<u64>,
    at: u64,
}

/// Pieces in ascending order that do not overlap.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    list: Vec<Piece>,
    /// The piece found last: the next read is mostly near.
    last: usize,
}

/// What is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Bytes, from `at` on in the holder, `len` of them.
    Held { at: u64, len: u64 },
    /// No piece for the next so many bytes.
    Hole { len: u64 },
}

impl Pieces {
    /// Adds a piece whose bytes begin at `at`; joined to the one before if
    /// both addresses and bytes go on. Empty ones are left out.
    pub fn push(&mut self, range: Range<u64>, at: u64) {
        if range.is_empty() {
            return;
        }
        if let Some(last) = self.list.last_mut()
            && last.range.end == range.start
            && last.at.checked_add(last.range.end - last.range.start) == Some(at)
        {
            last.range.end = range.end;
            return;
        }
        self.list.push(Piece { range, at });
    }

    /// Sorts what was pushed out of order. Where pieces overlap, the one that
    /// begins first keeps what it has.
    pub fn sort(&mut self) {
        self.list.sort_by_key(|piece| piece.range.start);
        let mut end = 0;
        for piece in &mut self.list {
            let cut = end.clamp(piece.range.start, piece.range.end) - piece.range.start;
            piece.range.start += cut;
            piece.at = piece.at.saturating_add(cut);
            end = end.max(piece.range.end);
        }
        self.list.retain(|piece| !piece.range.is_empty());
        self.last = 0;
    }

    /// What is at an address.
    pub fn find(&mut self, address: u64) -> Place {
        let inside = |piece: &Piece| piece.range.contains(&address);
        if !self.list.get(self.last).is_some_and(inside) {
            let after = self.list.partition_point(|piece| piece.range.start <= address);
            self.last = after.saturating_sub(1);
            if !self.list.get(self.last).is_some_and(inside) {
                let next = self.list.get(after).map_or(u64::MAX, |piece| piece.range.start);
                return Place::Hole { len: next - address };
            }
        }
        let piece = &self.list[self.last];
        let skip = address - piece.range.start;
        Place::Held { at: piece.at.saturating_add(skip), len: piece.range.end - address }
    }

    /// All pieces: addresses, and where their bytes are.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = (Range<u64>, u64)> {
        self.list.iter().map(|piece| (piece.range.clone(), piece.at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pieces_that_go_on_are_one() {
        let mut pieces = Pieces::default();
        pieces.push(10..20, 0);
        pieces.push(20..30, 10);
        pieces.push(30..40, 50);
        pieces.push(40..40, 60);
        assert_eq!(pieces.iter().collect::<Vec<_>>(), [(10..30, 0), (30..40, 50)]);
    }

    proptest! {
        #[test]
        fn every_address_is_found_as_a_plain_search_finds_it(
            list in proptest::collection::vec((0_u64..200, 0_u64..40), 0..12),
            asked in proptest::collection::vec(0_u64..260, 1..40),
        ) {
            let mut pieces = Pieces::default();
            let mut plain = list.clone();
            for (nth, &(start, len)) in list.iter().enumerate() {
                pieces.push(start..start + len, nth as u64 * 1000 + 7);
            }
            pieces.sort();
            plain.sort_by_key(|&(start, _)| start);
            for address in asked {
                let here = plain.iter().any(|&(start, len)| (start..start + len).contains(&address));
                match pieces.find(address) {
                    Place::Held { len, .. } => {
                        prop_assert!(here);
                        prop_assert!(len > 0);
                        let last = address + len - 1;
                        prop_assert!(plain.iter().any(|&(at, len)| (at..at + len).contains(&last)));
                    }
                    Place::Hole { len } => {
                        prop_assert!(!here);
                        let next = plain
                            .iter()
                            .filter(|&&(start, len)| start > address && len > 0)
                            .map(|&(start, _)| start)
                            .min();
                        prop_assert_eq!(len, next.unwrap_or(u64::MAX) - address);
                    }
                }
            }
        }
    }
}
