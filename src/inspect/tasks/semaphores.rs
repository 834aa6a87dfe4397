//! Semaphores, each read once: permits, and who stands in the queue.

use std::collections::HashMap;
use std::rc::Rc;

use super::hash::NumberMap;
use super::tokio::{BatchSemaphore, PERMIT_SHIFT, Waiters};
use crate::inspect::image::Cached;

/// A semaphore as it was found.
#[derive(Debug, Default)]
pub struct Semaphore {
    pub free: u64,
    /// Addresses of the nodes in its queue, each with how many came after it.
    pub queue: HashMap<u64, u32>,
    /// The queue was longer than the bound, or a loop.
    pub cut: bool,
}

/// Semaphores read so far, by address.
pub struct Semaphores {
    offsets: Option<BatchSemaphore>,
    known: NumberMap<u64, Rc<Semaphore>>,
    bound: usize,
}

impl Semaphores {
    pub fn new(offsets: Option<BatchSemaphore>, bound: usize) -> Self {
        Self { offsets, known: NumberMap::default(), bound }
    }

    /// Reads one; `None` if there is none at that address.
    pub fn get(&mut self, memory: &mut Cached<'_>, at: u64) -> Option<Rc<Semaphore>> {
        if let Some(semaphore) = self.known.get(&at) {
            return Some(semaphore.clone());
        }
        let offsets = self.offsets?;
        let free = memory.word(at.checked_add(offsets.permits)?).ok()? >> PERMIT_SHIFT;
        let mut semaphore = Semaphore { free, ..Semaphore::default() };
        semaphore.cut = !queue(memory, at, offsets.waiters, self.bound, &mut semaphore.queue);
        let semaphore = Rc::new(semaphore);
        self.known.insert(at, semaphore.clone());
        Some(semaphore)
    }
}

/// Collects the nodes of a queue; false if a bound, a loop or a hole ended it.
fn queue(
    memory: &mut Cached<'_>,
    at: u64,
    waiters: Waiters,
    bound: usize,
    nodes: &mut HashMap<u64, u32>,
) -> bool {
    let mut next = at.wrapping_add(waiters.head);
    loop {
        match memory.word(next) {
            Ok(0) => return true,
            // New ones come in at the head, and are served from the tail.
            Ok(node) if nodes.len() < bound && !nodes.contains_key(&node) => {
                nodes.insert(node, u32::try_from(nodes.len()).unwrap_or(u32::MAX));
                next = node.wrapping_add(waiters.next);
            }
            _ => return false,
        }
    }
}
