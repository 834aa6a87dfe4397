//! Spawn places: each `&'static Location` gets a small number once.

use std::panic;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::Location;

/// Distinct spawn places that are told apart. A program has as many as it has
/// calls of `spawn` (generic ones counted once a crate): hundreds, rarely
/// more. Beyond the bound a task's place is unknown.
const MAX_PLACES: usize = 3 * TABLE / 4;
const TABLE: usize = 8192;

/// Interns spawn places; look-ups take no lock.
#[derive(Debug)]
pub struct Places {
    /// Open addressing by the location's address; 0 is free.
    keys: Box<[AtomicUsize]>,
    numbers: Box<[AtomicU32]>,
    names: Mutex<Vec<Arc<Location>>>,
    /// Tasks spawned at a place for which there was no number.
    unplaced: AtomicU64,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            keys: (0..TABLE).map(|_| AtomicUsize::new(0)).collect(),
            numbers: (0..TABLE).map(|_| AtomicU32::new(0)).collect(),
            names: Mutex::default(),
            unplaced: AtomicU64::new(0),
        }
    }
}

impl Places {
    /// The number of a place, from 1; 0 where the table is full.
    #[cfg_attr(not(tokio_unstable), allow(dead_code))] // only the hooks know places
    pub fn intern(&self, place: &'static panic::Location<'static>) -> u32 {
        let key = std::ptr::from_ref(place) as usize;
        match self.find(key) {
            Ok(number) => number,
            Err(_) => self.insert(key, place),
        }
    }

    /// The number of `key`, or the free slot where its probe ended.
    fn find(&self, key: usize) -> Result<u32, usize> {
        let mut slot = (key >> 3).wrapping_mul(0x9E37_79B9) % TABLE;
        loop {
            match self.keys[slot].load(Ordering::Acquire) {
                0 => return Err(slot),
                found if found == key => return Ok(self.numbers[slot].load(Ordering::Relaxed)),
                // The table is never full (`MAX_PLACES`), so this ends.
                _ => slot = (slot + 1) % TABLE,
            }
        }
    }

    #[cold]
    fn insert(&self, key: usize, place: &'static panic::Location<'static>) -> u32 {
        // Once it is full it stays so, and spawns must not queue for the lock.
        if self.unplaced.load(Ordering::Relaxed) > 0 {
            self.unplaced.fetch_add(1, Ordering::Relaxed);
            return 0;
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = match self.find(key) {
            Ok(number) => return number,
            Err(slot) => slot,
        };
        if names.len() >= MAX_PLACES {
            self.unplaced.fetch_add(1, Ordering::Relaxed);
            return 0;
        }
        names.push(Arc::new(Location {
            file: place.file().into(),
            line: place.line(),
            column: place.column(),
        }));
        let number = names.len() as u32;
        self.numbers[slot].store(number, Ordering::Relaxed);
        self.keys[slot].store(key, Ordering::Release);
        number
    }

    /// Tasks so far whose place is unknown, for want of room.
    pub fn unplaced(&self) -> u64 {
        self.unplaced.load(Ordering::Relaxed)
    }

    /// All places so far; number `n` stands at index `n - 1`.
    pub fn all(&self) -> Vec<Arc<Location>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn here() -> &'static panic::Location<'static> {
        panic::Location::caller()
    }

    #[test]
    fn a_place_keeps_its_number() {
        let places = Places::default();
        let (one, two) = (here(), here());
        let first = places.intern(one);
        let second = places.intern(two);
        assert_ne!(first, second);
        assert_eq!(places.intern(one), first);
        let all = places.all();
        assert_eq!(all.len(), 2);
        assert_eq!(all[first as usize - 1].line, one.line());
        assert_eq!(&*all[second as usize - 1].file, file!());
    }

    #[test]
    fn beyond_the_bound_places_are_unknown_and_counted() {
        let places = Places::default();
        // The key alone tells places apart.
        let numbers: Vec<u32> =
            (1..=MAX_PLACES + 3).map(|n| places.insert(8 * n, here())).collect();
        assert_eq!(numbers[MAX_PLACES - 1], MAX_PLACES as u32);
        assert_eq!(numbers[MAX_PLACES..], [0; 3]);
        assert_eq!((places.unplaced(), places.all().len()), (3, MAX_PLACES));
        assert_eq!(places.find(8), Ok(1), "those that are known stay so");
    }
}
