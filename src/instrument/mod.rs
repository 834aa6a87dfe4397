//! Sources inside the process: task hooks, the watchdog, gRPC layers.

#[cfg(feature = "grpc")]
pub mod grpc;
pub mod runtime;
pub mod runtime_metrics;
#[cfg(feature = "grpc")]
pub mod scope;
pub mod task_id;
pub mod watchdog;
