//! System calls that only tests make.

/// Sleeps in `poll` for some milliseconds; what it returned: 0 after the
/// whole time, -1 if it was interrupted.
#[inline(never)]
pub fn sleep_in_poll(milliseconds: i32) -> i32 {
    // SAFETY: no descriptors, so the pointer is not read.
    unsafe { libc::poll(std::ptr::null_mut(), 0, milliseconds) }
}
