//! Faults that keep the worker thread: nothing else runs on it meanwhile.

use std::hint::black_box;
use std::time::Duration;

use tonic::Response;

use super::bounds::{EndedBy, Held};
use crate::pb::lab::StuckReply;
use crate::reference::Drain;

/// How often a thread that cannot be woken looks whether the server drains.
const SLICE: Duration = Duration::from_millis(50);

/// Sleeps in the thread instead of in the task.
#[inline(never)]
pub fn block_thread(held: Held, drain: &Drain) -> Response<StuckReply> {
    while !held.left().is_zero() {
        if drain.has_begun() {
            return held.reply(EndedBy::Drain, 0);
        }
        std::thread::sleep(held.left().min(SLICE));
    }
    held.reply(EndedBy::Bound, 0)
}

/// Computes without an await.
#[inline(never)]
pub fn busy_loop(held: Held, drain: &Drain) -> Response<StuckReply> {
    let mut value = 1_u64;
    while !held.left().is_zero() {
        if drain.has_begun() {
            return held.reply(EndedBy::Drain, 0);
        }
        // Some 100 µs of work between two looks at the clock.
        for _ in 0..50_000 {
            value = black_box(value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
    held.reply(EndedBy::Bound, 0)
}
