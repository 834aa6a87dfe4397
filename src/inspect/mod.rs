//! Stacks read from outside the code that runs: of native threads, and the
//! await chains of suspended tasks.

mod captured;
mod footprints;
mod hands;
pub mod image;
pub mod join;
mod signature;
pub mod since;
pub mod tasks;

pub use captured::{Captured, CpuSamples, CpuStack};
pub use unwind::Walk;

pub mod cpu;
mod machine_code;
mod maps;
mod modules;
pub mod threads;
mod unwind;
mod where_blocked;
