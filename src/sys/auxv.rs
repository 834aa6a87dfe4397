//! What the kernel told this program when it started it; see getauxval(3).

/// Address of the entry point of this process's executable.
pub fn own_entry() -> u64 {
    // SAFETY: reads a table that never changes.
    unsafe { libc::getauxval(libc::AT_ENTRY) }
}
