//! Per-stream gRPC state: tower layers, body wrappers, the accept loop.
//!
//! ```text
//!   serve ── accept loop, hyper ──▶ executor: one StreamTask a stream ─┐
//!   layer ── tonic's or axum's own server ─────────────────────────────┤
//!   client ─ a channel ────────────────────────────────────────────────┤
//!                                                                      ▼
//!                          Tracker::begin ──▶ Call (cell, stop, token)
//!                                              │ shared by
//!                        CallFuture, two StreamBody, Watch, Scope
//! ```

mod admit;
mod body;
pub(crate) mod call;
mod client;
#[cfg(feature = "client")]
mod connect;
mod descriptor;
// A channel is tapped only with that feature.
#[cfg_attr(not(feature = "client"), allow(dead_code))]
mod dispatch;
mod doze;
mod exec;
pub(crate) mod frames;
mod future;
pub mod heartbeat;
mod layer;
mod limits;
mod log;
mod metadata;
mod serve;
mod tap;
mod tracker;
mod watch;

pub use body::StreamBody;
pub use client::GrpcClient;
#[cfg(all(feature = "client", feature = "tls"))]
pub use connect::TlsConnector;
#[cfg(feature = "client")]
pub use connect::UnixConnector;
#[cfg(feature = "client")]
pub(crate) use connect::{Connect, endpoint, tcp};
pub(crate) use descriptor::declare;
pub use future::CallFuture;
pub use layer::{GrpcLayer, GrpcService};
pub use limits::{Exceeded, Limits, RateLimit, RatePer, RateUnit};
pub use metadata::MetadataKeys;
pub(crate) use serve::serve;
pub use serve::{Listener, ServeConfig};
#[cfg(any(test, fuzzing))]
pub use tap::damage::any_bytes as any_frames;
#[cfg(feature = "tls")]
pub use tokio_rustls::rustls;

// They need tonic's channel, which only that feature brings.
#[cfg(all(test, feature = "cli"))]
mod tests;
