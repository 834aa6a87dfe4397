//! gRPC streams: one cell each, a bounded table of the live ones, a ring of
//! the ended ones.
//!
//! A stream that has ended while tasks of it still live stays in its slot and
//! is listed before the ring: that is what a leak looks like.

mod cell;
mod methods;
mod slots;
mod state;

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

pub use cell::{Begin, Direction, StreamCell};
pub use methods::sanitise;

use super::clock;
use super::endpoints::EndpointCell;
use super::spans::{Seed, Spans};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{EndedStream, Stream, StreamId, StreamKind};
use methods::Methods;
use slots::Slots;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Streams that are alive, and ended ones whose tasks still live. One
    /// costs about half a KiB with all that belongs to it.
    pub live: u32,
    /// Ended streams, kept for looking back.
    pub ended: usize,
    /// Names of methods that were never declared.
    pub methods: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { live: 100_000, ended: 1_000, methods: 4_096 }
    }
}

/// All streams that the layers have seen.
#[derive(Debug)]
pub struct Streams {
    slots: Slots,
    methods: Methods,
    ring: Mutex<VecDeque<Arc<StreamCell>>>,
    ring_bound: usize,
    /// Also the last id given.
    started: AtomicU64,
    ended: AtomicU64,
    /// Where ended streams go whose spans are wanted.
    pub spans: Spans,
    untracked: AtomicU64,
    untracked_ended: AtomicU64,
    forgotten: AtomicU64,
}

/// What a slot stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    /// The stream, alive or ended.
    pub stream: StreamId,
    /// `/pkg.Service/Method`.
    pub method: Arc<str>,
    /// The other end, if known.
    pub peer: Option<Arc<str>>,
}

/// Streams at one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamsSnapshot {
    /// Live, by id.
    pub live: Vec<Stream>,
    /// Ended: first those whose tasks still live, then the ring; newest first.
    pub ended: Vec<Stream>,
    /// Ever started.
    pub started: u64,
    /// Ever ended.
    pub ended_total: u64,
    /// Never listed, because the table was full.
    pub untracked: u64,
    /// Of those, not ended.
    pub untracked_live: u64,
    /// Ended, and no longer in the ring.
    pub forgotten: u64,
    /// Calls whose method is not named, because that table was full.
    pub unnamed: u64,
}

impl Default for Streams {
    fn default() -> Self {
        Self::new(Bounds::default())
    }
}

impl Streams {
    /// An empty table.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            slots: Slots::new(bounds.live),
            methods: Methods::new(bounds.methods),
            ring: Mutex::default(),
            ring_bound: bounds.ended,
            started: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            spans: Spans::default(),
            untracked: AtomicU64::new(0),
            untracked_ended: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
        }
    }

    /// Declares the kind of a method.
    pub fn declare(&self, path: &str, kind: StreamKind) {
        self.methods.declare(path, kind);
    }

    /// Declares that a method's streams are silent for long by design.
    pub fn declare_idle(&self, path: &str) {
        self.methods.declare_idle(path);
    }

    /// How many have ended.
    #[cfg(test)]
    pub fn ended_total(&self) -> u64 {
        self.ended.load(Relaxed)
    }

    /// How many slots have ever been in use at once.
    #[cfg(test)]
    pub fn slots_used(&self) -> u32 {
        self.slots.len()
    }

    /// A stream begins. There is always a cell, so that deadlines and limits
    /// hold for every stream; where the table is full it is in no list.
    pub fn begin(&self, begin: Begin) -> Arc<StreamCell> {
        let id = StreamId(self.started.fetch_add(1, Relaxed) + 1);
        let method = self.methods.get(begin.path);
        let now = clock::now();
        if let Some(connection) = &begin.connection {
            connection.stream_began(now);
        }
        if let Some(endpoint) = &begin.endpoint {
            endpoint.call_began(now);
        }
        let slot = self.slots.reserve();
        let cell = Arc::new(StreamCell::new(id, method, slot, begin, now));
        match slot {
            Some(slot) => self.slots.fill(slot, cell.clone()),
            None => {
                self.untracked.fetch_add(1, Relaxed);
            }
        }
        cell
    }

    /// A stream of this server or channel ends. Only the first call counts.
    pub fn end(&self, cell: &Arc<StreamCell>, endpoint: Option<&Arc<EndpointCell>>) {
        if !cell.ends(clock::now()) {
            return;
        }
        self.ended.fetch_add(1, Relaxed);
        let (connection, seed, ok) = {
            let mut outcome = cell.outcome();
            let ok = outcome.status == Some(0);
            (outcome.connection.take(), outcome.span.take(), ok)
        };
        if let Some(mut seed) = seed {
            seed.local = connection.as_ref().and_then(|connection| connection.local().cloned());
            seed.endpoint = endpoint.and_then(|endpoint| endpoint.name().cloned());
            self.spans.ended(cell.clone(), seed);
        }
        if let Some(connection) = connection {
            connection.stream_ended(cell.succeeded(), &cell.sent, &cell.received);
        }
        if let Some(endpoint) = endpoint {
            endpoint.call_ended(ok);
        }
        let Some(slot) = cell.slot() else {
            self.untracked_ended.fetch_add(1, Relaxed);
            return;
        };
        // Into the ring before the slot goes: a snapshot in between sees it
        // twice, which it can tell, rather than not at all.
        let evicted = {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.push_front(cell.clone());
            (ring.len() > self.ring_bound).then(|| ring.pop_back())
        };
        if evicted.is_some() {
            self.forgotten.fetch_add(1, Relaxed);
        }
        self.slots.release(slot);
    }

    /// Streams that have ended and are to get spans, at most so many. `now` is
    /// in ticks.
    pub fn take_ended(&self, most: usize, now: u64) -> Vec<EndedStream> {
        let taken = self.spans.take(most).into_iter();
        let model = |(cell, seed): (Arc<StreamCell>, Box<Seed>)| {
            let Seed { trace, local, endpoint } = *seed;
            EndedStream { stream: cell.to_model(now, 0), trace, local, endpoint }
        };
        taken.map(model).collect()
    }

    /// A task takes a reference to a slot. False, and nothing is taken, if the
    /// slot is free. Lock-free.
    pub fn retain(&self, slot: u32) -> bool {
        self.slots.retain(slot)
    }

    /// A task gives its reference back. Lock-free, but for the last one.
    pub fn release(&self, slot: u32) {
        self.slots.release(slot);
    }

    /// The scope starts to track a task itself.
    pub fn track(&self, cell: &StreamCell) -> bool {
        cell.tracked.fetch_add(1, Relaxed);
        cell.slot().is_some_and(|slot| self.slots.retain(slot))
    }

    /// The scope's task is over; `retained` is what [`track`](Self::track) said.
    pub fn untrack(&self, cell: &StreamCell, retained: bool) {
        cell.tracked.fetch_sub(1, Relaxed);
        if let Some(slot) = cell.slot().filter(|_| retained) {
            self.slots.release(slot);
        }
    }

    /// What a slot stands for.
    pub fn info(&self, slot: u32) -> Option<SlotInfo> {
        self.slots.get(slot).map(|(cell, _)| SlotInfo {
            stream: cell.id,
            method: cell.method.name.clone(),
            peer: cell.peer.clone(),
        })
    }

    /// Streams now. `now` is in ticks, and must be read before.
    pub fn snapshot(&self, now: u64) -> StreamsSnapshot {
        let mut live = Vec::new();
        let mut leaked = Vec::new();
        let mut seen = HashSet::new();
        for (cell, references) in (0..self.slots.len()).filter_map(|index| self.slots.get(index)) {
            let own = u32::from(!cell.is_ended());
            let tracked = cell.tracked.load(Relaxed);
            // A scope's task holds a reference of its own, beside that of
            // the hooks where there are any: each is counted once.
            let hooked = references.saturating_sub(own + tracked);
            let stream = cell.to_model(now, hooked.max(tracked));
            if stream.ended_ago_ns.is_none() {
                live.push(stream);
            } else {
                seen.insert(cell.id);
                leaked.push(stream);
            }
        }
        live.sort_unstable_by_key(|stream| stream.id);
        leaked.sort_unstable_by_key(|stream| stream.ended_ago_ns);
        let ring: Vec<_> = {
            let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.iter().cloned().collect()
        };
        let mut ended = leaked;
        ended.extend(
            ring.iter().filter(|cell| !seen.contains(&cell.id)).map(|cell| cell.to_model(now, 0)),
        );
        // A stream may have ended between the two looks.
        let gone: HashSet<_> = ended.iter().map(|stream| stream.id).collect();
        live.retain(|stream| !gone.contains(&stream.id));
        // What ended has begun before: asked for in this order, none seems to
        // end that was never there.
        let untracked_ended = self.untracked_ended.load(Relaxed);
        let untracked = self.untracked.load(Relaxed);
        StreamsSnapshot {
            live,
            ended,
            started: self.started.load(Relaxed),
            ended_total: self.ended.load(Relaxed),
            untracked,
            untracked_live: untracked.saturating_sub(untracked_ended),
            forgotten: self.forgotten.load(Relaxed),
            unnamed: self.methods.refused() as u64,
        }
    }

    fn live_cells(&self) -> impl Iterator<Item = Arc<StreamCell>> {
        (0..self.slots.len())
            .filter_map(|index| self.slots.get(index))
            .map(|(cell, _)| cell)
            .filter(|cell| !cell.is_ended())
    }

    /// Logs each Send and Recv of one live stream, or stops doing so.
    ///
    /// # Errors
    /// `NotFound` if no such stream is alive.
    pub fn log_stream(&self, id: StreamId, on: bool) -> Result<()> {
        let cell = self.live_cells().find(|cell| cell.id == id).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("no live stream has the id {id}"))
        })?;
        cell.logged.store(on, Relaxed);
        Ok(())
    }

    /// Logs each Send and Recv of a method's streams, those to come included,
    /// or stops doing so. Returns how many live streams it concerns.
    ///
    /// # Errors
    /// `InvalidInput` if the path is none, or the table of methods is full.
    pub fn log_method(&self, path: &str, on: bool) -> Result<usize> {
        if !path.starts_with('/') {
            let message = format!("a method is written /package.Service/Method, not {path:?}");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let method = self.methods.try_get(path).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "too many methods are known to add another")
        })?;
        method.set_logged(on);
        let cells = self.live_cells().filter(|cell| Arc::ptr_eq(&cell.method, &method));
        Ok(cells.map(|cell| cell.logged.store(on, Relaxed)).count())
    }
}

#[cfg(test)]
mod tests;
