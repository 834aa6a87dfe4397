//! Where spans come from: this process's snapshots and its ended streams.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Core;
use crate::error::Result;
use crate::model::{EndedStream, Snapshot, Timestamp};
use crate::otel::{self, Otel, OtelConfig};
use crate::registry::clock;
use crate::serve::Want;

impl Core {
    /// Starts to export a span for each stream that begins.
    pub(super) fn export_spans(self: &Arc<Self>, config: &OtelConfig) -> Result<Otel> {
        let exporting = otel::start(config, &self.process.name, self.clone())?;
        self.registry.streams.spans.switch_on();
        Ok(exporting)
    }
}

impl otel::Streams for Core {
    fn snapshot(&self) -> Result<Snapshot> {
        Ok(self.take(Want::COUNTS))
    }

    fn ended(&self, most: usize) -> (Timestamp, Vec<EndedStream>) {
        let (at, now) = (Timestamp::now(), clock::now());
        (at, self.registry.streams.take_ended(most, now))
    }

    fn exported(&self, taken: u64, failed: u64) {
        self.registry.streams.spans.told(taken, failed);
    }

    fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }
}
