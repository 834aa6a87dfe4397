//! The one monotonic clock of the registry, in raw ticks.
//!
//! Hot paths store ticks and never convert; a snapshot turns differences into
//! nanoseconds. On x86-64 with an invariant TSC a tick is one `rdtsc`, a few
//! nanoseconds; elsewhere quanta falls back to `clock_gettime`.

use std::sync::LazyLock;

use quanta::Clock;

static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::new);

/// Calibrates the clock (up to 200 ms, once per process), so that the first
/// poll does not have to.
pub fn calibrate() {
    LazyLock::force(&CLOCK);
}

/// Now, in ticks. Never 0, which cells use for "never".
#[inline]
pub fn now() -> u64 {
    CLOCK.raw().max(1)
}

/// Nanoseconds from one tick to a later one; 0 if it is not later, which the
/// counters of different cores make possible by a hair.
#[inline]
pub fn delta_ns(from: u64, to: u64) -> u64 {
    if to <= from { 0 } else { CLOCK.delta_as_nanos(from, to) }
}
