//! The only mutable state: tasks, streams, connections, workers. Bounded; counts what it drops.

pub mod blocked;
// Without tokio's hooks nobody writes tasks and polls (nor names their streams
// without gRPC); the tables stay, so that there is one way to read them.
#[cfg_attr(not(tokio_unstable), allow(dead_code))]
pub mod clock;
// Without gRPC nothing fills these two; snapshots keep their one shape.
#[cfg_attr(not(feature = "client"), allow(dead_code, unused_imports))]
pub mod connections;
#[cfg_attr(not(feature = "client"), allow(dead_code, unused_imports))]
pub mod endpoints;
#[cfg_attr(not(feature = "grpc"), allow(dead_code))]
pub mod heartbeat;
pub mod places;
#[cfg_attr(not(feature = "otel"), allow(dead_code))]
pub mod spans;
#[cfg_attr(not(feature = "client"), allow(dead_code, unused_imports))]
pub mod streams;
#[cfg_attr(not(tokio_unstable), allow(dead_code))]
pub mod tally;
#[cfg_attr(not(all(tokio_unstable, feature = "grpc")), allow(dead_code))]
pub mod tasks;
#[cfg_attr(not(feature = "client"), allow(dead_code, unused_imports))]
pub mod wire;
#[cfg_attr(not(tokio_unstable), allow(dead_code))]
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
    /// Servers and channels.
    pub endpoints: endpoints::Endpoints,
    /// Their connections.
    pub connections: connections::Connections,
    /// Runtimes and workers.
    pub runtimes: workers::Runtimes,
    /// Blocked polls and pauses.
    pub blocked: blocked::BlockedLog,
    /// A poll longer than this counts as blocked.
    pub blocked_threshold: Duration,
}

/// A poll longer than this counts as blocked unless configured otherwise.
pub const DEFAULT_BLOCKED_THRESHOLD: Duration = Duration::from_millis(100);

impl Registry {
    /// An empty registry with these bounds.
    pub fn new(bounds: streams::Bounds, max_tasks: usize, blocked_threshold: Duration) -> Self {
        let streams = Arc::new(streams::Streams::new(bounds));
        Self {
            tasks: tasks::Tasks::new(max_tasks, streams.clone()),
            streams,
            endpoints: endpoints::Endpoints::default(),
            connections: connections::Connections::default(),
            runtimes: workers::Runtimes::default(),
            blocked: blocked::BlockedLog::default(),
            blocked_threshold,
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new(streams::Bounds::default(), tasks::DEFAULT_MAX_TASKS, DEFAULT_BLOCKED_THRESHOLD)
    }
}
