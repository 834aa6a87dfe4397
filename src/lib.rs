//! The goroutine profile for tokio and tonic.
//!
//! A Go developer whose gRPC streams hang opens
//! `/debug/pprof/goroutine?debug=2` and reads where every goroutine waits.
//! This crate gives a tokio or tonic server the same, live, over HTTP: every
//! task with the place that spawned it, what it does and for how long; every
//! gRPC stream with its state on both sides; every worker that does not come
//! back from a poll, with the line it blocks on. `tokio-console`,
//! `go tool pprof` and Prometheus read it too.
//!
//! # Three lines
//!
//! ```no_run
//! # #[cfg(not(feature = "grpc"))]
//! # fn main() {}
//! # #[cfg(feature = "grpc")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let routes = tonic::service::Routes::default();
//! let profiler = taskprof::Profiler::builder().http("127.0.0.1:6060").start()?;
//! let runtime = profiler.runtime(tokio::runtime::Builder::new_multi_thread()).enable_all().build()?;
//! runtime.block_on(async {
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:50051").await?;
//!     profiler.serve(routes, listener).await.map_err(Box::<dyn std::error::Error>::from)
//! })?;
//! # Ok(()) }
//! ```
//!
//! Where the accept loop is your own, `.layer(profiler.grpc_layer())` on
//! tonic's server shows streams as well; what it cannot see is said in
//! [`Profiler::grpc_layer`]. Task hooks need `--cfg tokio_unstable`; without it
//! everything else works, and `coverage` in every answer says what is missing.
//!
//! # What it promises
//!
//! - It never polls your futures, never stops the process, and answers while
//!   every worker is blocked: it has its own threads.
//! - Every answer says what it covers and what it lost.
//! - Everything it keeps is bounded, and what a bound kept out is counted.
//!
//! # The map
//!
//! Data goes one way, imports run downward:
//!
//! ```text
//! hooks, layers, watchdog ─▶ registry ─▶ Snapshot ─▶ analyze ─▶ findings ─▶ HTTP, console, CLI
//!      (instrument)                         (model)                (render)    (serve)
//! ```
//!
//! [`model`] is the middle: plain data. [`Profiler`] ties the rest together.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!(
    "taskprof reads memory and stacks as Linux on x86-64 has them; it builds nowhere else"
);

pub mod error;
pub mod model;
pub mod serve;

mod analyze;
#[cfg(feature = "cli")]
mod attach;
#[cfg(feature = "grpc")]
mod channelz;
#[cfg(feature = "console")]
mod console;
mod debuginfo;
/// What `fuzz/` feeds with any bytes.
#[cfg(all(any(test, fuzzing), feature = "cli"))]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::debuginfo::layout::damage::any_bytes as layouts;
    pub use crate::debuginfo::layout::damage::any_program as symbols;
    pub use crate::inspect::image::core::try_bytes as core_dump;
    pub use crate::inspect::tasks::wild::any_patches as tasks;
    pub use crate::instrument::grpc::any_frames as frames;
}
mod inspect;
mod instrument;
#[cfg(feature = "otel")]
mod otel;
#[doc(hidden)]
pub mod pb;
mod profiler;
mod registry;
mod render;
mod sys;

/// What `benches/verdict.rs` measures.
#[doc(hidden)]
pub use analyze::Judge;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod reference;

#[cfg(feature = "grpc")]
pub use channelz::Channelz;
#[cfg(feature = "grpc")]
pub use instrument::grpc;
pub use instrument::runtime::Hooks;
#[cfg(feature = "grpc")]
pub use instrument::scope;
#[cfg(feature = "otel")]
pub use otel::OtelConfig;
pub use profiler::{Builder, Profiler};
