//! Sources inside the process: task hooks, the watchdog, gRPC layers.

#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(feature = "grpc")]
pub mod scope;
pub mod task_id;
