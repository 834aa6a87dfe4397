//! Generated from `proto/`: messages, and the services' clients and servers.
//!
//! The files are checked in so that a build needs neither protoc nor a build
//! script. `tests/suite/bootstrap.rs` proves that they are fresh, and writes
//! them anew with `TASKPROF_REGENERATE=1 cargo test --test integration bootstrap`.
#![allow(missing_docs, clippy::all)]

/// The pprof profile format (`perftools.profiles`): messages only.
pub mod profile {
    include!("perftools.profiles.rs");
}

/// gRPC's example service (`grpc.examples.echo`).
#[cfg(feature = "cli")]
pub mod echo {
    include!("grpc.examples.echo.rs");
}

/// gRPC's interop service (`grpc.testing`).
#[cfg(feature = "cli")]
pub mod testing {
    include!("grpc.testing.rs");
}

/// gRPC's view of itself (`grpc.channelz.v1`).
#[cfg(feature = "grpc")]
pub mod channelz {
    include!("grpc.channelz.v1.rs");
}

/// An application's heartbeat (`taskprof.heartbeat.v1`).
#[cfg(feature = "grpc")]
pub mod heartbeat {
    include!("taskprof.heartbeat.v1.rs");
}

/// Ways to be stuck (`taskprof.lab.v1`).
#[cfg(feature = "cli")]
pub mod lab {
    include!("taskprof.lab.v1.rs");
}

/// Descriptors of the services above: a `google.protobuf.FileDescriptorSet`
/// on the wire, for reflection and for the kinds of methods.
#[cfg(feature = "cli")]
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("services.bin");
