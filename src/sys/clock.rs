//! The clock that `std::time::Instant` reads, as a number that can be
//! compared with one found in memory.

/// `CLOCK_MONOTONIC` in nanoseconds, see clock_gettime(2).
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that lives across the call; the
    // clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
