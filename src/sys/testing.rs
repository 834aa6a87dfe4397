//! System calls that only tests make.

/// Sleeps in `poll` for some milliseconds; what it returned: 0 after the
/// whole time, -1 if it was interrupted.
#[inline(never)]
pub fn sleep_in_poll(milliseconds: i32) -> i32 {
    // SAFETY: no descriptors, so the pointer is not read.
    unsafe { libc::poll(std::ptr::null_mut(), 0, milliseconds) }
}

/// There can be one forked copy of the process at a time, and tests run in
/// parallel: each holds this while it has one.
#[cfg(target_arch = "x86_64")]
pub fn one_copy_at_a_time() -> std::sync::MutexGuard<'static, ()> {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
