//! Streams that have ended and whose spans are still to be made.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::streams::StreamCell;
use crate::model::TraceContext;

/// Streams that wait. More than end between two looks of the exporter on a
/// busy server, and a few MiB.
pub const QUEUE: usize = 10_000;

/// What a span needs and its stream's cell lacks once the stream is over.
#[derive(Debug, Default)]
pub struct Seed {
    /// What the caller sent.
    pub trace: Option<TraceContext>,
    /// Our address, of its connection.
    pub local: Option<Arc<str>>,
    /// The name of its server or channel.
    pub endpoint: Option<Arc<str>>,
}

/// The queue, its switch and its counts.
#[derive(Debug, Default)]
pub struct Spans {
    on: AtomicBool,
    queue: Mutex<VecDeque<(Arc<StreamCell>, Box<Seed>)>>,
    dropped: AtomicU64,
    exported: AtomicU64,
    failed: AtomicU64,
}

impl Spans {
    /// From now on streams that begin get spans.
    pub fn switch_on(&self) {
        self.on.store(true, Relaxed);
    }

    /// Whether streams get spans: all that a stream pays where they do not.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    pub(super) fn ended(&self, cell: Arc<StreamCell>, seed: Box<Seed>) {
        let mut queue = self.queue();
        if queue.len() < QUEUE {
            queue.push_back((cell, seed));
        } else {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Takes at most so many, oldest first.
    pub fn take(&self, most: usize) -> Vec<(Arc<StreamCell>, Box<Seed>)> {
        let mut queue = self.queue();
        let taken = queue.len().min(most);
        queue.drain(..taken).collect()
    }

    /// A receiver took so many spans, and did not take so many.
    pub fn told(&self, exported: u64, failed: u64) {
        self.exported.fetch_add(exported, Relaxed);
        self.failed.fetch_add(failed, Relaxed);
    }

    /// Spans exported, refused by a receiver, and dropped for want of room.
    pub fn totals(&self) -> (u64, u64, u64) {
        (self.exported.load(Relaxed), self.failed.load(Relaxed), self.dropped.load(Relaxed))
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<(Arc<StreamCell>, Box<Seed>)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
