//! The only mutable state: tasks, streams, connections, workers. Bounded; counts what it drops.

pub mod blocked;
pub mod clock;
pub mod connections;
pub mod places;
pub mod streams;
pub mod tasks;
pub mod workers;

use std::sync::Arc;
use std::time::Duration;

/// What the sources write and snapshots are made from.
#[derive(Debug)]
pub struct Registry {
    /// gRPC streams.
    pub streams: Arc<streams::Streams>,
    /// Live tasks.
    pub tasks: tasks::Tasks,
    /// Their connections.
    pub connections: connections::Connections,
    /// Runtimes and workers.
    pub runtimes: workers::Runtimes,
    /// Blocked polls and pauses.
    pub blocked: blocked::BlockedLog,
    /// A poll longer than this counts as blocked.
    pub blocked_threshold: Duration,
}
