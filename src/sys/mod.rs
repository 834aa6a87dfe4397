//! Every syscall and every `unsafe` of the crate.
#![allow(unsafe_code)]

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod auxv;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod clock;
pub mod cpu_clock;
pub mod map;
#[cfg_attr(not(tokio_unstable), allow(dead_code))] // the hooks write it
pub mod polled;
#[cfg(all(feature = "cli", unix))]
pub mod process;
pub mod registers;
pub mod room;
#[cfg_attr(not(feature = "grpc"), allow(dead_code))] // the tap of gRPC reads it
pub mod tcp;
#[cfg(all(test, target_os = "linux"))]
pub mod testing;
pub mod thread;
pub mod tsc;
pub mod zeroed;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod copy;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod fork;
#[cfg(all(feature = "cli", target_os = "linux", target_arch = "x86_64"))]
pub mod pagemap;
#[cfg(all(feature = "cli", target_os = "linux", target_arch = "x86_64"))]
pub mod ptrace;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod raw;
#[cfg(all(feature = "cli", target_os = "linux", target_arch = "x86_64"))]
pub mod region;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod remote;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod sampler;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod socket;
