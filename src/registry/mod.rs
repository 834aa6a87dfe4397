//! The only mutable state: tasks, streams, connections, workers. Bounded; counts what it drops.

pub mod clock;
pub mod connections;
pub mod streams;
pub mod tasks;

/// What the sources write and snapshots are made from.
#[derive(Debug, Default)]
pub struct Registry {
    /// Live tasks.
    pub tasks: tasks::Tasks,
    /// gRPC streams.
    pub streams: streams::Streams,
    /// Their connections.
    pub connections: connections::Connections,
}
