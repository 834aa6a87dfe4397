//! Slots: small numbers under which tasks remember the stream that caused them.
//!
//! A slot is held by its stream while that lives and by every task that the
//! stream caused, so method, peer and id can be told for a task that outlives
//! its stream. Taking and giving back a reference is one atomic operation;
//! only the last one takes a lock. Pages are made when first needed and stay.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::cell::StreamCell;

const PAGE: usize = 1024;

#[derive(Debug, Default)]
struct Slot {
    /// 0 while the slot is free.
    references: AtomicU32,
    cell: Mutex<Option<Arc<StreamCell>>>,
}

#[derive(Debug)]
pub(super) struct Slots {
    bound: u32,
    pages: Box<[OnceLock<Box<[Slot]>>]>,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    /// Given back. The last is taken first: its page is warm.
    given_back: Vec<u32>,
    /// Below it all slots have been used once.
    fresh: u32,
}

impl Slots {
    pub(super) fn new(bound: u32) -> Self {
        let pages = (bound as usize).div_ceil(PAGE);
        Self { bound, pages: (0..pages).map(|_| OnceLock::new()).collect(), free: Mutex::default() }
    }

    fn slot(&self, index: u32) -> Option<&Slot> {
        self.pages.get(index as usize / PAGE)?.get()?.get(index as usize % PAGE)
    }

    /// A free slot, not yet filled; `None` at the bound.
    pub(super) fn reserve(&self) -> Option<u32> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = free.given_back.pop() {
            return Some(index);
        }
        let index = free.fresh;
        if index >= self.bound {
            return None;
        }
        free.fresh += 1;
        self.pages[index as usize / PAGE]
            .get_or_init(|| (0..PAGE).map(|_| Slot::default()).collect());
        Some(index)
    }

    /// Fills a reserved slot; the stream holds the first reference.
    pub(super) fn fill(&self, index: u32, cell: Arc<StreamCell>) {
        if let Some(slot) = self.slot(index) {
            *slot.cell.lock().unwrap_or_else(PoisonError::into_inner) = Some(cell);
            slot.references.store(1, Ordering::Release);
        }
    }

    /// Takes a reference. False if the slot is free: then nothing was taken.
    pub(super) fn retain(&self, index: u32) -> bool {
        self.slot(index).is_some_and(|slot| {
            slot.references
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                    (n != 0).then(|| n.saturating_add(1))
                })
                .is_ok()
        })
    }

    /// Gives a reference back; the last one frees the slot.
    pub(super) fn release(&self, index: u32) {
        let Some(slot) = self.slot(index) else { return };
        let before =
            slot.references.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
        if before == Ok(1) {
            let cell = slot.cell.lock().unwrap_or_else(PoisonError::into_inner).take();
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.given_back.push(index);
            drop(free);
            drop(cell);
        }
    }

    /// What a slot holds, and how many references there are.
    pub(super) fn get(&self, index: u32) -> Option<(Arc<StreamCell>, u32)> {
        let slot = self.slot(index)?;
        let references = slot.references.load(Ordering::Acquire);
        let cell = slot.cell.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        (references != 0).then_some((cell, references))
    }

    /// One more than the highest slot ever used.
    pub(super) fn len(&self) -> u32 {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).fresh
    }
}
