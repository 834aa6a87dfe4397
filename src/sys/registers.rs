//! Registers of a thread.

/// The registers that unwinding starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer; `None` when only the kernel knows.
    pub bp: Option<u64>,
}
