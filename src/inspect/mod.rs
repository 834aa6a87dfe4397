//! Stacks read from outside the code that runs: of native threads, and the
//! await chains of suspended tasks.
//!
//! Native stacks need Linux on x86-64; elsewhere everything here compiles and
//! answers `Unsupported`.

mod captured;
mod footprints;
mod hands;
pub mod image;
pub mod join;
mod signature;
pub mod since;
pub mod tasks;

pub use captured::{Captured, CpuSamples, CpuStack};

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod cpu;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod machine_code;
mod maps;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod modules;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod threads;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod unwind;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod where_blocked;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod unsupported;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub use unsupported::{cpu, threads};
