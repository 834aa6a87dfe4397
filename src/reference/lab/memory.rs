//! Faults that use up memory.

use std::sync::atomic::{AtomicU64, Ordering};

use tonic::{Response, Status};

use super::bounds::Held;
use crate::pb::lab::StuckReply;
use crate::reference::Drain;

const DEFAULT: u64 = 64 << 20;
/// For all calls together.
const MAX: u64 = 1 << 30;
/// Taken in pieces, with a yield between, so that only memory is exhausted.
const PIECE: u64 = 1 << 20;

/// What all calls together have taken.
#[derive(Debug, Default)]
pub struct Budget(AtomicU64);

/// A part of the budget, given back when dropped.
struct Share<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Budget {
    fn take(&self, bytes: u64) -> Result<Share<'_>, Status> {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                taken.checked_add(bytes).filter(|sum| *sum <= MAX)
            })
            .map(|_| Share { budget: self, bytes })
            .map_err(|_| Status::resource_exhausted("at most 1 GiB for all calls together"))
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Takes memory, touches it so that it is really there, and keeps it.
pub async fn exhaust_memory(
    held: Held,
    bytes: u64,
    budget: &Budget,
    drain: &Drain,
) -> Result<Response<StuckReply>, Status> {
    let bytes = if bytes == 0 { DEFAULT } else { bytes };
    let share = budget.take(bytes)?;
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let mut taken = 0;
    while taken < bytes && !drain.has_begun() && !held.left().is_zero() {
        let size = PIECE.min(bytes - taken);
        let mut piece = Vec::new();
        if piece.try_reserve_exact(size as usize).is_err() {
            return Err(Status::resource_exhausted("the machine has no more memory"));
        }
        // Zeroes from the allocator would be pages that do not exist yet.
        piece.resize(size as usize, 0xA5);
        pieces.push(piece);
        taken += size;
        tokio::task::yield_now().await;
    }
    let ended_by = held.over(drain).await;
    drop((pieces, share));
    Ok(held.reply(ended_by, taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_calls_share_one_budget() {
        let budget = Budget::default();
        let most = budget.take(MAX - 1).unwrap_or_else(|_| panic!("there is room"));
        assert!(budget.take(2).is_err());
        assert!(budget.take(u64::MAX).is_err());
        drop(most);
        assert!(budget.take(MAX).is_ok());
    }
}
