//! Every syscall and every `unsafe` of the crate.
#![allow(unsafe_code)]

pub mod auxv;
pub mod clock;
pub mod cpu_clock;
#[cfg_attr(not(tokio_unstable), allow(dead_code))] // the hooks write it
pub mod current;
pub mod map;
#[cfg(feature = "cli")]
pub mod process;
pub mod registers;
pub mod room;
#[cfg_attr(not(feature = "grpc"), allow(dead_code))] // the tap of gRPC reads it
pub mod tcp;
#[cfg(test)]
pub mod testing;
pub mod thread;
pub mod tsc;
pub mod zeroed;

mod copy;
pub mod fork;
#[cfg(feature = "cli")]
pub mod pagemap;
#[cfg(feature = "cli")]
pub mod ptrace;
mod raw;
#[cfg(feature = "cli")]
pub mod region;
pub mod remote;
pub mod sampler;
pub mod socket;
