//! What the server counts of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter or a gauge that any thread may change.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One more of what a gauge counts, for as long as this lives: a panic that
/// takes it along is no leak of the count.
pub struct Counted {
    stats: Arc<Stats>,
    gauge: fn(&Stats) -> &Count,
}

impl Counted {
    pub fn new(stats: Arc<Stats>, gauge: fn(&Stats) -> &Count) -> Self {
        gauge(&stats).add(1);
        Self { stats, gauge }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.gauge)(&self.stats).sub(1);
    }
}

/// Figures of the debug server; shown in `/metrics`.
#[derive(Debug, Default)]
pub struct Stats {
    /// Requests answered.
    pub requests: Count,
    /// Requests refused by a guard: host, origin, token, size.
    pub refused: Count,
    /// Connections alive.
    pub connections: Count,
    /// Connections turned away because there were too many.
    pub connections_refused: Count,
    /// Connections cut because the client did not read.
    pub write_timeouts: Count,
    /// Event streams alive.
    pub event_streams: Count,
    /// Panics caught.
    pub panics: Count,
}
