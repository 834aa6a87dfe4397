//! Sources inside the process: task hooks, the watchdog, gRPC layers.

pub mod grpc;
