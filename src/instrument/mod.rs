//! Sources inside the process: task hooks, the watchdog, gRPC layers.

#[cfg(feature = "grpc")]
pub mod grpc;
pub mod runtime;
pub mod runtime_metrics;
pub mod task_id;
pub mod watchdog;
