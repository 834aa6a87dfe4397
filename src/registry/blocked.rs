//! Polls over the threshold, and times at which the whole process stood still.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::clock;
use crate::model::Stack;

/// Ended episodes kept.
const RECENT: usize = 64;
/// Episodes that last: one a worker, and workers are bounded, but not by little.
const ONGOING: usize = 256;
/// Pauses kept.
const PAUSES: usize = 32;

/// One poll over the threshold. Times are ticks.
#[derive(Clone, Debug)]
pub struct Episode {
    /// Ascending number.
    pub id: u64,
    /// The runtime's small number.
    pub runtime: u8,
    /// Worker index.
    pub worker: u32,
    /// The worker's thread.
    pub tid: u32,
    /// The task polled.
    pub task: u64,
    /// Where it was spawned and for which stream, as a task of a snapshot: it
    /// may have ended by the time somebody asks.
    pub subject: Option<crate::model::Task>,
    /// When the poll began.
    pub began: u64,
    /// When it ended; 0 while it lasts.
    pub ended: u64,
    /// In the worker's own queue, when last looked at.
    pub queued_local: Option<u64>,
    /// In the global queue, when last looked at.
    pub queued_global: u64,
    /// The thread's stack.
    pub stack: Option<Arc<Stack>>,
    /// Why there is none.
    pub stack_missing: Option<Arc<str>>,
}

/// A time in which no thread of the process ran. Ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PauseSpan {
    /// Last sign of life before.
    pub from: u64,
    /// First sign of life after.
    pub to: u64,
}

#[derive(Debug, Default)]
struct Inner {
    ongoing: Vec<Episode>,
    recent: VecDeque<Episode>,
    pauses: VecDeque<PauseSpan>,
}

/// The log of blocked polls and pauses.
#[derive(Debug, Default)]
pub struct BlockedLog {
    inner: Mutex<Inner>,
    episodes: AtomicU64,
    pauses: AtomicU64,
    /// Polls over the threshold for which there was no room at the last look, and
    /// at the one that goes on.
    unlogged: AtomicU64,
    refused: AtomicU64,
}

impl BlockedLog {
    /// A poll has passed the threshold. Returns the episode's number, or none
    /// if it is known or the table is full.
    pub fn begin(&self, mut episode: Episode) -> Option<u64> {
        let mut inner = self.lock();
        let known = inner.ongoing.iter().any(|known| same_poll(known, &episode))
            || inner.recent.iter().any(|known| same_poll(known, &episode));
        if known {
            return None;
        }
        if inner.ongoing.len() >= ONGOING {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        episode.id = self.episodes.fetch_add(1, Ordering::Relaxed) + 1;
        let id = episode.id;
        inner.ongoing.push(episode);
        Some(id)
    }

    /// The watchdog has looked at all workers.
    pub fn looked(&self) {
        self.unlogged.store(self.refused.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Polls over the threshold that are no episodes for want of room.
    pub fn unlogged(&self) -> u64 {
        self.unlogged.load(Ordering::Relaxed)
    }

    /// Changes an episode that lasts.
    pub fn update(&self, id: u64, change: impl FnOnce(&mut Episode)) {
        if let Some(episode) = self.lock().ongoing.iter_mut().find(|episode| episode.id == id) {
            change(episode);
        }
    }

    /// The stack of an episode, which may be over by now, or why it has none.
    pub fn give_stack(&self, id: u64, stack: Result<Arc<Stack>, Arc<str>>) {
        let mut inner = self.lock();
        let Inner { ongoing, recent, .. } = &mut *inner;
        if let Some(episode) = ongoing.iter_mut().chain(recent).find(|episode| episode.id == id) {
            match stack {
                Ok(stack) => (episode.stack, episode.stack_missing) = (Some(stack), None),
                Err(why) => episode.stack_missing = Some(why),
            }
        }
    }

    /// The poll that began at `began` on this worker has ended at `ended`.
    /// Nothing happens if it is no episode.
    pub fn end(&self, runtime: u8, worker: u32, began: u64, ended: u64) {
        let mut inner = self.lock();
        let this = |episode: &Episode| {
            (episode.runtime, episode.worker, episode.began) == (runtime, worker, began)
        };
        let Some(at) = inner.ongoing.iter().position(this) else { return };
        let mut episode = inner.ongoing.swap_remove(at);
        episode.ended = ended;
        inner.recent.push_front(episode);
        inner.recent.truncate(RECENT);
    }

    /// Episodes that last, by number: `(id, runtime, worker, began)`.
    pub fn ongoing(&self) -> Vec<(u64, u8, u32, u64)> {
        let inner = self.lock();
        inner.ongoing.iter().map(|e| (e.id, e.runtime, e.worker, e.began)).collect()
    }

    /// The process stood still.
    pub fn paused(&self, span: PauseSpan) {
        self.pauses.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.lock();
        inner.pauses.push_front(span);
        inner.pauses.truncate(PAUSES);
    }

    /// How long from `from` to `to` the process ran, in nanoseconds.
    pub fn running_ns(&self, from: u64, to: u64) -> u64 {
        running_ns(self.lock().pauses.iter(), from, to)
    }

    /// Everything, newest first: `(ongoing, recent, pauses)`.
    pub fn all(&self) -> (Vec<Episode>, Vec<Episode>, Vec<PauseSpan>) {
        let inner = self.lock();
        let mut ongoing = inner.ongoing.clone();
        ongoing.sort_unstable_by_key(|episode| episode.began);
        (ongoing, inner.recent.iter().cloned().collect(), inner.pauses.iter().copied().collect())
    }

    /// `(blocked polls, pauses)` since the start.
    pub fn totals(&self) -> (u64, u64) {
        (self.episodes.load(Ordering::Relaxed), self.pauses.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn same_poll(a: &Episode, b: &Episode) -> bool {
    (a.runtime, a.worker, a.began) == (b.runtime, b.worker, b.began)
}

/// The time between two ticks, less what lies in pauses.
pub fn running_ns<'a>(pauses: impl Iterator<Item = &'a PauseSpan>, from: u64, to: u64) -> u64 {
    let paused: u64 =
        pauses.map(|pause| clock::delta_ns(pause.from.max(from), pause.to.min(to))).sum();
    clock::delta_ns(from, to).saturating_sub(paused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn episode(worker: u32, began: u64) -> Episode {
        Episode {
            id: 0,
            runtime: 0,
            worker,
            tid: 1,
            task: 1,
            subject: None,
            began,
            ended: 0,
            queued_local: None,
            queued_global: 0,
            stack: None,
            stack_missing: None,
        }
    }

    #[test]
    fn one_poll_is_one_episode() {
        let log = BlockedLog::default();
        let id = log.begin(episode(1, 100)).expect("new");
        assert_eq!(log.begin(episode(1, 100)), None, "known");
        log.update(id, |episode| episode.queued_global = 5);
        log.end(0, 1, 100, 900);
        assert_eq!(log.begin(episode(1, 100)), None, "over");
        log.end(0, 1, 100, 950);
        log.end(0, 2, 100, 950);
        let (ongoing, recent, _) = log.all();
        assert!(ongoing.is_empty());
        assert_eq!((recent.len(), recent[0].ended, recent[0].queued_global), (1, 900, 5));
        assert_eq!(log.totals(), (1, 0));
    }

    #[test]
    fn bounds_hold() {
        let log = BlockedLog::default();
        for began in 0..1_000 {
            log.begin(episode(0, began));
        }
        assert_eq!(log.ongoing().len(), ONGOING);
        log.looked();
        assert_eq!(log.unlogged(), 1_000 - ONGOING as u64);
        assert_eq!(log.begin(episode(0, 0)), None, "known, and so not refused");
        log.looked();
        assert_eq!(log.unlogged(), 0);
        for began in 0..1_000 {
            log.end(0, 0, began, began + 1);
        }
        for from in 0..1_000 {
            log.paused(PauseSpan { from, to: from + 1 });
        }
        let (ongoing, recent, pauses) = log.all();
        assert_eq!((ongoing.len(), recent.len(), pauses.len()), (0, RECENT, PAUSES));
        assert_eq!(log.totals().1, 1_000);
    }

    #[test]
    fn pauses_do_not_count() {
        let log = BlockedLog::default();
        log.paused(PauseSpan { from: 2_000_000, to: 5_000_000 });
        let ns = clock::ticks_ns;
        assert_eq!(log.running_ns(1_000_000, 6_000_000), ns(5_000_000) - ns(3_000_000));
        assert_eq!(log.running_ns(3_000_000, 4_000_000), 0);
        assert_eq!(log.running_ns(6_000_000, 7_000_000), ns(1_000_000));
    }
}
