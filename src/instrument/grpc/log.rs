//! One tracing event for each Send and Recv of a stream that is being logged.
//!
//! Target `taskprof::stream`, level INFO: who turns it on wants to see it.
//! Sizes only: a payload is never written.

use crate::registry::streams::StreamCell;

/// Which way a message went, seen from this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Recv,
    Send,
}

/// Logs message `number` (from 1) of `bytes` payload bytes.
#[cold]
pub(super) fn message(cell: &StreamCell, way: Way, number: u64, bytes: u32) {
    let direction = match way {
        Way::Recv => "recv",
        Way::Send => "send",
    };
    tracing::info!(
        target: "taskprof::stream",
        stream = cell.id().0,
        method = &*cell.method().name,
        direction,
        number,
        bytes,
        "stream {direction}"
    );
}
