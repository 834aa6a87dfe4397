//! Prometheus text format.

use crate::model::{Report, Snapshot};

/// What the debug server counts of itself.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // named as the metrics they become
pub struct ServerFigures {
    pub requests: u64,
    pub refused: u64,
    pub connections: u64,
    pub connections_refused: u64,
    pub write_timeouts: u64,
    pub event_streams: u64,
    pub panics: u64,
}

/// `/metrics`
pub fn metrics(_: &Snapshot, _: &Report, _: &ServerFigures) -> Vec<u8> {
    Vec::new()
}
