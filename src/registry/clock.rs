//! The one monotonic clock of the registry, in raw ticks.
//!
//! Hot paths store ticks and never convert; a snapshot turns differences into
//! nanoseconds. On x86-64 with an invariant TSC a tick is one `rdtsc`, a few
//! nanoseconds; elsewhere quanta falls back to `clock_gettime`.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quanta::Clock;

use crate::sys::{current, tsc};

static CLOCK: LazyLock<Clock> = LazyLock::new(|| {
    let clock = Clock::new();
    // quanta keeps to itself which source it took; its reading tells.
    let (before, raw, after) = (tsc::read(), clock.raw(), tsc::read());
    TSC.store((before..=after).contains(&raw), Ordering::Relaxed);
    clock
});

/// The clock's ticks are those of the processor's own counter, which is then
/// read in place: quanta's reader is a call and two branches more.
static TSC: AtomicBool = AtomicBool::new(false);

/// Calibrates the clock (up to 200 ms, once per process), so that the first
/// poll does not have to.
pub fn calibrate() {
    LazyLock::force(&CLOCK);
}

/// Now, in ticks. Never 0, which cells use for "never".
#[inline]
pub fn now() -> u64 {
    quick().unwrap_or_else(|| CLOCK.raw().max(1))
}

/// The same where that is one instruction; none elsewhere.
#[inline(always)]
pub fn quick() -> Option<u64> {
    TSC.load(Ordering::Relaxed).then(|| tsc::read() | 1)
}

/// The watchdog's last look at the clock.
static LATELY: AtomicU64 = AtomicU64::new(u64::MAX);

/// The watchdog tells the time. It does so every 20 ms or more often.
pub fn tell(now: u64) {
    LATELY.store(now, Ordering::Relaxed);
}

/// It ends. Where there is another, that one goes on.
pub fn tell_no_more() {
    tell(u64::MAX);
}

/// A time told some 20 ms ago at most; later than everything while nobody
/// tells it. Costs no look at the clock.
#[inline]
pub fn lately() -> u64 {
    LATELY.load(Ordering::Relaxed)
}

/// Now, to the length of the poll that this thread is in, or to some 20 ms: the
/// last look at the clock in it, if the watchdog has told no later time. Outside
/// of polls that hooks see, it looks.
#[inline]
pub fn in_poll() -> u64 {
    let current = current::get();
    match looked_last(current.began.get(), current.looked.get()) {
        looked if lately() <= looked => looked,
        _ => look(),
    }
}

/// Now, which [`in_poll`] does not fall behind.
#[inline]
pub fn look() -> u64 {
    let now = now();
    current::get().looked.set(now);
    now
}

/// In the poll that began then; 0 outside of polls.
#[inline]
fn looked_last(began: u64, looked: u64) -> u64 {
    // What was looked at before belongs to another poll, or to none.
    if began == 0 { 0 } else { began.max(looked) }
}

/// Nanoseconds from one tick to a later one; 0 if it is not later, which the
/// counters of different cores make possible by a hair.
#[inline]
pub fn delta_ns(from: u64, to: u64) -> u64 {
    if to <= from { 0 } else { CLOCK.delta_as_nanos(from, to) }
}

/// Nanoseconds that a number of ticks takes.
#[inline]
pub fn ticks_ns(ticks: u64) -> u64 {
    delta_ns(0, ticks)
}

/// About how many ticks a duration takes; for thresholds on hot paths.
pub fn ticks_in(duration: std::time::Duration) -> u64 {
    let million = CLOCK.delta_as_nanos(0, 1_000_000_000).max(1) as u128;
    let ticks = duration.as_nanos() * 1_000_000_000 / million;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ticks_and_nanoseconds_agree() {
        let ns = ticks_ns(ticks_in(Duration::from_millis(100)));
        assert!(ns.abs_diff(100_000_000) < 100_000, "{ns}");
        let now = now();
        assert_eq!(delta_ns(now, now - 1), 0);
    }

    #[test]
    fn a_look_counts_in_its_own_poll() {
        assert_eq!(looked_last(0, 7), 0, "no poll");
        assert_eq!(looked_last(10, 7), 10, "a look in an earlier one");
        assert_eq!(looked_last(10, 12), 12);
    }

    #[test]
    fn time_goes_on_where_there_is_no_poll() {
        let first = in_poll();
        std::thread::sleep(Duration::from_millis(1));
        assert!(in_poll() > first);
    }
}
