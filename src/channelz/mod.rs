//! gRPC's own view of itself: `grpc.channelz.v1`, answered from snapshots.
//!
//! The protocol knows servers, channels, subchannels and sockets, and no
//! streams. Each answer is made from a snapshot of its own, so that nothing in
//! it is older than the question: times, windows, and what the kernel says of
//! a socket.
//!
//! ```text
//!   GetServers ──▶ Server ─────▶ listening Socket
//!                     └── GetServerSockets ──▶ Socket
//!   GetTopChannels ─▶ Channel ─▶ Subchannel ─▶ Socket
//! ```
//!
//! A subchannel stands for the one address that a channel of tonic's connects
//! to: both tell the same calls.

mod convert;
mod ids;
mod service;
mod socket;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::error::Result;
use crate::model::Snapshot;
use crate::pb::channelz::channelz_server::ChannelzServer;

pub use service::Channelz;

/// Where snapshots come from. Called from a thread that may block.
pub type SnapshotFn = Arc<dyn Fn() -> Result<Snapshot> + Send + Sync>;

/// The service over these snapshots.
pub fn service(snapshots: SnapshotFn) -> ChannelzServer<Channelz> {
    ChannelzServer::new(Channelz::new(snapshots)).max_decoding_message_size(REQUEST_BYTES)
}

/// A request is three numbers at most.
const REQUEST_BYTES: usize = 4096;
