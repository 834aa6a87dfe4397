//! The only mutable state: tasks, streams, connections, workers. Bounded; counts what it drops.
