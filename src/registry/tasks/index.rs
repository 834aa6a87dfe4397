//! From a task's id to its cell: buckets of eight entries, one cache line each.
//!
//! An entry is 40 bits of the id and the cell's number; who looks an id up
//! compares the rest with the cell. An id may stand in four buckets.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::zeroed::{Array, Line};

const WAYS: usize = 8;
const ID_BITS: u32 = 40;
const NUMBER: u64 = u64::MAX >> ID_BITS;

/// The table.
#[derive(Debug)]
pub struct Index {
    buckets: Array<Line>,
}

/// Where an id stands.
pub struct Found<'a> {
    place: &'a AtomicU64,
    entry: u64,
    /// Its cell.
    pub number: u32,
}

impl Found<'_> {
    /// Takes the id out; false if another thread was first.
    pub fn leave(&self) -> bool {
        self.place.compare_exchange(self.entry, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

impl Index {
    /// An index for `max` ids at a time. It has twice as many entries, so that
    /// four buckets nearly always have room.
    pub fn new(max: usize) -> Self {
        let buckets = (2 * max).div_ceil(WAYS).next_power_of_two();
        Self { buckets: Array::new(buckets) }
    }

    /// The bucket of first choice. Ids ascend, so that neighbours share a cache
    /// line; four of them to a bucket of eight leave room for older ones.
    #[inline]
    fn near(&self, id: u64) -> &Line {
        &self.buckets[(id >> 2) as usize & (self.buckets.len() - 1)]
    }

    /// The three others, which scatter what the first repels.
    fn far(&self, id: u64) -> [&Line; 3] {
        let mask = self.buckets.len() - 1;
        // The finalizer of MurmurHash3: every bit of the id reaches every bit.
        let mut hash = (id ^ id >> 33).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        hash = (hash ^ hash >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
        hash ^= hash >> 33;
        [hash, hash >> 21, hash >> 42].map(|bucket| &self.buckets[bucket as usize & mask])
    }

    /// Finds an id; `is` says whether a cell is really its.
    #[inline]
    pub fn find(&self, id: u64, is: impl Fn(u32) -> bool) -> Option<Found<'_>> {
        find_in(self.near(id), id, &is)
            .or_else(|| self.far(id).into_iter().find_map(|bucket| find_in(bucket, id, &is)))
    }

    /// Enters an id into its first bucket while that has room to spare, else
    /// into the emptiest of the four; false if all are full. First fit would
    /// fill whole buckets when the survivors' ids come in strides, and ids that
    /// have only such buckets would find no place in a table nearly empty.
    pub fn enter(&self, id: u64, number: u32) -> bool {
        let entry = id << (64 - ID_BITS) | u64::from(number + 1);
        let put = |bucket: &Line| {
            bucket.0.iter().any(|place| {
                place.load(Ordering::Relaxed) == 0
                    && place.compare_exchange(0, entry, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            })
        };
        let load = |bucket: &Line| {
            bucket.0.iter().filter(|place| place.load(Ordering::Relaxed) != 0).count()
        };
        let near = self.near(id);
        if load(near) < WAYS - 2 && put(near) {
            return true;
        }
        let [a, b, c] = self.far(id);
        let mut buckets = [near, a, b, c].map(|bucket| (load(bucket), bucket));
        buckets.sort_unstable_by_key(|&(load, _)| load);
        buckets.into_iter().any(|(_, bucket)| put(bucket))
    }
}

#[inline]
fn find_in<'a>(bucket: &'a Line, id: u64, is: &impl Fn(u32) -> bool) -> Option<Found<'a>> {
    let tag = id << (64 - ID_BITS);
    bucket.0.iter().find_map(|place| {
        let entry = place.load(Ordering::Acquire);
        if entry == 0 || entry & !NUMBER != tag {
            return None;
        }
        let number = (entry & NUMBER) as u32 - 1;
        is(number).then_some(Found { place, entry, number })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_where_they_were_entered_until_they_leave() {
        let index = Index::new(1_000);
        for id in 1..=1_000 {
            assert!(index.enter(id, id as u32));
        }
        for id in 1..=1_000 {
            let found = index.find(id, |number| u64::from(number) == id).expect("entered");
            assert!(found.leave() && !found.leave(), "once");
            assert!(index.find(id, |_| true).is_none());
        }
    }

    #[test]
    fn an_id_with_the_same_forty_bits_is_another() {
        let index = Index::new(8);
        assert!(index.enter(5, 1));
        assert!(index.find(5 + (1 << ID_BITS), |number| number == 2).is_none());
    }
}
