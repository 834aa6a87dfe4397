//! Snapshots as bytes: pprof, text, JSON, HTML, metrics. No clock, no I/O.
//!
//! Whatever can be large is [`Chunks`]: rendered piece by piece while it is
//! sent, so that a dump of 100,000 tasks is complete and still costs little
//! memory beyond its snapshot.

use std::ops::Deref;
use std::sync::Arc;

use crate::model::Snapshot;

mod alike;
#[cfg(feature = "cli")]
pub mod diff;
#[cfg(feature = "cli")]
pub mod html;
pub mod json;
pub mod metrics;
pub mod pprof;
pub mod select;
pub mod text;

/// A snapshot that several renderings read at once.
pub type Shot = Arc<dyn Deref<Target = Snapshot> + Send + Sync>;

/// A rendering in pieces.
pub trait Chunks: Send + 'static {
    /// Appends the next piece, a few kilobytes at most; false after the last.
    fn next(&mut self, out: &mut Vec<u8>) -> bool;
}

/// What a snapshot does not show, and of how many that is true.
fn not_seen(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    snapshot.coverage.missing.iter().map(|missing| match missing.count {
        0 => missing.detail.clone(),
        count => format!("{} ({count})", missing.detail),
    })
}
